"""Watching a training: progress, checkpoints that survive a kill, and an error when the loss is not finite."""

from __future__ import annotations

import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

from tamis.core.errors import ModelError, SettingsError
from tamis.core.models import device
from tamis.core.progress import Progress
from tamis.finetuning.processes import World
from tamis.finetuning.settings import FinetuningSettings

_COMPLETE = "complete"  # marks a checkpoint that was written in full; holds the number of processes that wrote it


def newest_checkpoint(folder: Path, processes: int) -> Path | None:
    """Return the newest checkpoint in `folder` that was written in full, if there is one.

    Raises:
        SettingsError: when it was written by a different number of processes. Each process saves a part of it: its
            random state and, with ZeRO, its share of the optimizer.
    """
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{_COMPLETE}")]
    newest = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    if newest is not None and (before := int((newest / _COMPLETE).read_text(encoding="utf-8"))) != processes:
        raise SettingsError(
            f"{newest} was written by {before} processes, but now there are {processes}",
            allowed=f"{before} processes, to continue from this checkpoint",
            action="use as many GPUs (or finetuning.processes) as before, or delete that folder to start over",
        )
    return newest


def watch(settings: FinetuningSettings, checkpoints: Path, world: World) -> Any:
    """Return a trainer callback that shows progress, saves checkpoints, and stops at a loss that is not finite.

    Call its `close` when training ends, also when it fails.
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
            control.should_save = _agreed(due, world) and state.global_step < state.max_steps

        def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            loss = more["logs"].get("loss", 0.0)
            if not math.isfinite(loss):
                raise ModelError(
                    f"the loss of step {state.global_step} is {loss}",
                    allowed="a finite loss",
                    action="lower finetuning.learning_rate, or set finetuning.precision: float32",
                )

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._saved = time.monotonic()
            if world.size > 1:
                import torch

                torch.distributed.barrier()  # wait until all processes have written their parts
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
            """Stop showing progress."""
            if self._progress is not None:
                self._progress.__exit__(None, None, None)
                self._progress = None

    return Watch()


def _agreed(due: bool, world: World) -> bool:
    """Return the first process's decision: clocks differ, but all processes must save at the same step."""
    if world.size == 1:
        return due
    import torch

    decided = torch.tensor(int(due), device=device())
    torch.distributed.broadcast(decided, src=0)
    return bool(decided)
