"""Training in several processes, which Tamis or a cluster starts through torchrun.

The first process (rank 0) runs the whole stage. The others wait until it has tokenised the subset, train with it, and
wait for its result. All processes share one scratch folder: they are on one machine, or `TAMIS_HOME` is a shared
volume.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from tamis.core import errors
from tamis.core.artifacts import Manifest
from tamis.core.errors import ModelError, SettingsError, StoppedError, TamisError
from tamis.core.processes import cores
from tamis.core.progress import load_packages
from tamis.core.settings import Settings
from tamis.core.steps import Uri
from tamis.finetuning.settings import FinetuningSettings

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

log = logging.getLogger(__name__)
_PATIENCE = timedelta(days=30)  # how long processes wait for the first one, which may itself wait for a lock
_ORDER, _MANIFEST = "order.json", "manifest.json"


@dataclass(frozen=True)
class World:
    """The rank of this process, and the number of processes that train together."""

    rank: int
    size: int


def world() -> World:
    """Return this process's place among those that torchrun started; rank 0 of 1 if there is only this one.

    Raises:
        SettingsError: when several processes were started, but not by torchrun.
    """
    place = World(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    if place.size > 1 and "LOCAL_RANK" not in os.environ:
        raise SettingsError(
            f"finetuning: WORLD_SIZE is {place.size}, but LOCAL_RANK is not set",
            allowed="processes started by torchrun, or one process per node with PET_NNODES, PET_NODE_RANK, "
            "PET_MASTER_ADDR and PET_MASTER_PORT set, as Kubeflow Trainer does",
            action="start Tamis with torchrun, or unset WORLD_SIZE and set finetuning.processes",
        )
    return place


def to_launch(settings: FinetuningSettings) -> int:
    """Return how many processes to start on this node; 0 if this process is enough, or torchrun has started it.

    Raises:
        SettingsError: when the settings ask for more processes than there are GPUs.
    """
    if "WORLD_SIZE" in os.environ or find_spec("torch") is None:
        return 0
    load_packages("torch")
    import torch

    gpus, cluster = torch.cuda.device_count(), os.environ.get("PET_NPROC_PER_NODE", "")
    processes = settings.processes or (int(cluster) if cluster.isdecimal() else max(1, gpus))
    if gpus and processes > gpus:
        raise SettingsError(
            f"finetuning.processes: seen {processes}", allowed=f"1 to {gpus}, the number of visible GPUs"
        )
    # A single process that sees several GPUs would split every batch among them; under torchrun it uses only one.
    alone = processes == 1 and gpus <= 1 and _nodes() == 1 and settings.deepspeed is None
    return 0 if alone else processes


def _nodes() -> int:
    nodes = os.environ.get("PET_NNODES", "1")
    return int(nodes) if nodes.isdecimal() else 2


class Order(Settings):
    """The work of a training process: the arguments of the stage."""

    settings: FinetuningSettings
    selection: str
    out: str
    verbose: bool

    @classmethod
    def read(cls, folder: Path) -> Order:
        """Read the order in `folder`."""
        return cls.model_validate_json((folder / _ORDER).read_text(encoding="utf-8"))


class Failure(BaseModel):
    """Why a process failed, in the fields of a `TamisError`; `expected` is false if it was any other error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    problem: str
    allowed: str = ""
    action: str = ""
    permanent: bool = False
    expected: bool = True

    @classmethod
    def of(cls, error: BaseException, rank: int) -> Failure:
        """Describe the `error` that ended the process with this `rank`."""
        if isinstance(error, TamisError):
            return cls(
                kind=type(error).__name__,
                problem=error.problem,
                allowed=error.allowed,
                action=error.action,
                permanent=error.permanent,
            )
        first = next(iter(str(error).splitlines()), "")
        return cls(
            kind=ModelError.__name__,
            problem=f"training process {rank} failed with {type(error).__name__}: {first}",
            action="see its traceback above; if it ran out of memory, lower finetuning.micro_batch_size or set "
            "finetuning.gradient_checkpointing: true",
            expected=False,
        )

    def as_error(self) -> TamisError:
        """Return the error to raise."""
        kind: type[TamisError] = getattr(errors, self.kind)
        return kind(self.problem, allowed=self.allowed, action=self.action, permanent=self.permanent)


def launch(settings: FinetuningSettings, processes: int, *, selection: Uri, out: Uri) -> Manifest:
    """Run the stage in `processes` new processes on this node; every other node of a cluster does the same.

    Raises:
        TamisError: the error of the process that failed first.
        SystemExit: after a signal, once the processes have ended.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, get_args_parser

    settings.accumulation(processes * _nodes())
    with tempfile.TemporaryDirectory(prefix="tamis-") as name, _undisturbed():
        folder, verbose = Path(name), logging.getLogger("tamis").isEnabledFor(logging.DEBUG)
        order = Order(settings=settings, selection=str(selection), out=str(out), verbose=verbose)
        (folder / _ORDER).write_text(order.model_dump_json(), encoding="utf-8")
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // processes)))
        # torchrun's own parser reads the variables that a cluster sets for it (PET_…).
        here = ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", f"--rdzv-id={uuid.uuid4()}"]
        arguments = [f"--nproc-per-node={processes}", *(here if _nodes() == 1 else [])]
        arguments += ["--module", "tamis.finetuning.worker", str(folder)]
        config, command, rest = config_from_args(get_args_parser().parse_args(arguments))
        log.info("finetuning: %d processes%s", processes, f" on each of {_nodes()} nodes" if _nodes() > 1 else "")
        try:
            with _silent():
                elastic_launch(config, command)(*rest)
        except ChildFailedError as failed:
            raise _reason(folder, failed.failures) from None
        except SignalException as ended:
            raise KeyboardInterrupt if ended.sigval == signal.SIGINT else SystemExit(128 + ended.sigval) from None
        return Manifest.model_validate_json((folder / _MANIFEST).read_text(encoding="utf-8"))


def report(folder: Path, rank: int, outcome: Manifest | BaseException) -> None:
    """Write this process's outcome where `launch` finds it."""
    if isinstance(outcome, Manifest):
        target, text = folder / _MANIFEST, outcome.model_dump_json()
    else:
        target, text = folder / f"failure-{rank}.json", Failure.of(outcome, rank).model_dump_json()
    temporary = target.with_suffix(f".{rank}")  # the launcher must never read a partly written file
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)


def _reason(folder: Path, ended: Mapping[int, ProcessFailure]) -> TamisError:
    """Return the most likely cause: an expected error, else a kill, else an error that may only follow from another."""
    files = sorted(folder.glob("failure-*.json"), key=lambda path: path.stat().st_mtime_ns)
    reported = [Failure.model_validate_json(path.read_text(encoding="utf-8")) for path in files]
    expected = [failure for failure in reported if failure.expected]
    killed = {rank: failure for rank, failure in ended.items() if failure.exitcode < 0}
    if expected or (reported and not killed):
        return (expected or reported)[0].as_error()
    rank, failure = min((killed or dict(ended)).items(), key=lambda item: int(item[1].timestamp))
    how = f"was killed by {failure.signal_name()}" if killed else f"ended with exit code {failure.exitcode}"
    return StoppedError(
        f"training process {rank} {how}",
        action="start again to continue from the last checkpoint; if the machine ran out of memory (SIGKILL), lower "
        "finetuning.micro_batch_size or use a machine with more memory",
    )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Restore the environment and the signal handlers, which torchrun's launcher changes in this process."""
    environment, signals = dict(os.environ), (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    handlers = {number: signal.getsignal(number) for number in signals}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items():
            if handler is not None:  # None: not installed from Python, so it cannot be restored
                signal.signal(number, handler)


@contextmanager
def _silent() -> Iterator[None]:
    """Suppress torchrun's own log: the failed process and Tamis already report what it would say."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


class Meeting:
    """Messages from the first process to the others, through the store that torchrun keeps for its processes."""

    def __init__(self) -> None:
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        store, self.rank, _ = next(iter(rendezvous("env://", timeout=_PATIENCE)))
        self._store = PrefixStore("tamis", store)

    def announce(self, folder: Path | None) -> None:
        """Tell the others to train in `folder`, which the first process has prepared; None: nothing to train."""
        self._store.set("work", json.dumps(None if folder is None else str(folder.resolve())))

    def work(self) -> Path | None:
        """Wait for the first process and return the folder to train in; None: nothing to train."""
        folder = json.loads(self._store.get("work"))
        return None if folder is None else Path(folder)

    def conclude(self, outcome: Manifest | TamisError) -> None:
        """Tell the others how the stage ended."""
        message = outcome if isinstance(outcome, Manifest) else Failure.of(outcome, self.rank)
        self._store.set("outcome", json.dumps([isinstance(outcome, Manifest), message.model_dump(mode="json")]))

    def outcome(self) -> Manifest:
        """Wait for the first process and return the manifest of its result.

        Raises:
            TamisError: the error of the first process.
        """
        succeeded, message = json.loads(self._store.get("outcome"))
        if succeeded:
            return Manifest.model_validate(message)
        raise Failure.model_validate(message).as_error()
