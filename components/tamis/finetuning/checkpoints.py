"""What happens beside training: progress, checkpoints that survive a kill, an end when the loss is no number."""

from __future__ import annotations

import math
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamis.core.errors import ModelError, SettingsError
from tamis.core.models import device
from tamis.core.progress import Progress
from tamis.finetuning.processes import World
from tamis.finetuning.settings import FinetuningSettings

if TYPE_CHECKING:
    pass

_COMPLETE = "complete"  # file in a checkpoint that was written to its end: the number of processes that wrote it


def newest_checkpoint(folder: Path, processes: int) -> Path | None:
    """The newest checkpoint in `folder` that was written to its end.

    Raises:
        SettingsError: when another number of processes wrote it; each keeps a part (random states, ZeRO's share).
    """
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{_COMPLETE}")]
    newest = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    if newest is not None and (before := int((newest / _COMPLETE).read_text(encoding="utf-8"))) != processes:
        raise SettingsError(
            f"{newest} was written by {before} processes, now there are {processes}",
            allowed=f"{before} processes, to go on from it",
            action="give as many GPUs or finetuning.processes as before, or remove that folder to begin anew",
        )
    return newest


def watch(settings: FinetuningSettings, checkpoints: Path, world: World) -> Any:
    """A callback: progress, checkpoints by steps and by time, an end to training whose loss is no number.

    Its `close` ends the progress, also where training fails.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        _progress: Progress | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._saved = time.monotonic()
            if world.rank == 0:
                self._progress = Progress("finetuning", state.max_steps, unit="steps", done=state.global_step)
                self._progress.__enter__()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self._progress is not None:
                self._progress.advance()
            due = time.monotonic() - self._saved >= 60 * settings.save_every_minutes
            if settings.save_every_steps is not None:
                due = due or state.global_step % settings.save_every_steps == 0
            control.should_save = _as_the_first(due, world) and state.global_step < state.max_steps

        def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            loss = more["logs"].get("loss", 0.0)
            if not math.isfinite(loss):
                raise ModelError(
                    f"in step {state.global_step} the loss is {loss}",
                    allowed="a finite number",
                    action="lower finetuning.learning_rate, or set finetuning.precision: float32",
                )

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._saved = time.monotonic()
            if world.size > 1:
                import torch

                torch.distributed.barrier()  # until all have written their parts
            if world.rank == 0:
                self._seal(state)

        def _seal(self, state: Any) -> None:
            newest = checkpoints / f"checkpoint-{state.global_step}"
            for path in newest.rglob("*"):
                if path.is_file():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
            (newest / _COMPLETE).write_text(str(world.size), encoding="utf-8")
            for older in checkpoints.glob("checkpoint-*"):
                if older != newest:
                    shutil.rmtree(older)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.close()

        def close(self) -> None:
            """Tell no more progress, also where training has failed."""
            if self._progress is not None:
                self._progress.__exit__(None, None, None)
                self._progress = None

    return Watch()


def _as_the_first(due: bool, world: World) -> bool:
    """What the first process decided: clocks differ, and a checkpoint is written by all processes or by none."""
    if world.size == 1:
        return due
    import torch

    decided = torch.tensor(int(due), device=device())
    torch.distributed.broadcast(decided, src=0)
    return bool(decided)
