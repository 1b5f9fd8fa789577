"""What happens beside training: progress, checkpoints that survive a kill, an end when the loss is no number."""

from __future__ import annotations

import math
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamis.core.errors import ModelError
from tamis.core.progress import Progress
from tamis.finetuning.settings import FinetuningSettings

if TYPE_CHECKING:
    from transformers import TrainerCallback

_COMPLETE = "complete"  # file in a checkpoint that was written to its end


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` that was written to its end."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{_COMPLETE}")]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def watch(settings: FinetuningSettings, checkpoints: Path) -> TrainerCallback:
    """Progress, checkpoints by steps and by time, and an end to training whose loss is no number."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._saved = time.monotonic()
            self._progress = Progress("finetuning", state.max_steps, unit="steps", done=state.global_step)
            self._progress.__enter__()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._progress.advance()
            due = time.monotonic() - self._saved >= 60 * settings.save_every_minutes
            if settings.save_every_steps is not None:
                due = due or state.global_step % settings.save_every_steps == 0
            control.should_save = due and state.global_step < state.max_steps

        def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            loss = more["logs"].get("loss", 0.0)
            if not math.isfinite(loss):
                raise ModelError(
                    f"in step {state.global_step} the loss is {loss}",
                    allowed="a finite number",
                    action="lower finetuning.learning_rate, or set finetuning.precision: float32",
                )

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            newest = checkpoints / f"checkpoint-{state.global_step}"
            for path in newest.rglob("*"):
                if path.is_file():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
            (newest / _COMPLETE).touch()
            for older in checkpoints.glob("checkpoint-*"):
                if older != newest:
                    shutil.rmtree(older)
            self._saved = time.monotonic()

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._progress.__exit__(None, None, None)

    return Watch()
