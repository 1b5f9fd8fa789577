"""Several training processes: started through torchrun, by Tamis or by a cluster, and led by the first of them.

The first process (rank 0) does the whole stage; the others wait until it has made the token ids, train with it, and
wait for what became of it. All of them see one scratch folder: they are on one machine, or share the volume of
`TAMIS_HOME`.
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
_PATIENCE = timedelta(days=30)  # of the other processes with the first one, which may wait for a machine's lock, say
_ORDER, _MANIFEST = "order.json", "manifest.json"


@dataclass(frozen=True)
class World:
    """Which of how many processes that train together this one is."""

    rank: int
    size: int


def world() -> World:
    """Where torchrun has put this process; alone, if nobody has started several.

    Raises:
        SettingsError: when several were started, but not by torchrun.
    """
    place = World(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    if place.size > 1 and "LOCAL_RANK" not in os.environ:
        raise SettingsError(
            f"finetuning: WORLD_SIZE is {place.size}, but LOCAL_RANK is not set",
            allowed="processes that torchrun has started, or one per node with PET_NNODES, PET_NODE_RANK, "
            "PET_MASTER_ADDR and PET_MASTER_PORT, as Kubeflow Trainer sets them",
            action="start it by torchrun, or unset WORLD_SIZE and give finetuning.processes",
        )
    return place


def to_launch(settings: FinetuningSettings) -> int:
    """How many processes must be started on this node; 0 if this one is enough, or torchrun has started it already.

    Raises:
        SettingsError: when there are fewer GPUs.
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
    # One process that sees several GPUs would be given a share of each batch on every one of them.
    alone = processes == 1 and gpus <= 1 and _nodes() == 1 and settings.deepspeed is None
    return 0 if alone else processes


def _nodes() -> int:
    nodes = os.environ.get("PET_NNODES", "1")
    return int(nodes) if nodes.isdecimal() else 2


class Order(Settings):
    """What a training process is told to do."""

    settings: FinetuningSettings
    selection: str
    out: str
    verbose: bool

    @classmethod
    def read(cls, folder: Path) -> Order:
        """The order that lies in `folder`."""
        return cls.model_validate_json((folder / _ORDER).read_text(encoding="utf-8"))


class Failure(BaseModel):
    """Why a process ended, as `TamisError` tells it; `expected` is false for any other error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    problem: str
    allowed: str = ""
    action: str = ""
    expected: bool = True

    @classmethod
    def of(cls, error: BaseException, rank: int) -> Failure:
        """What `error`, by which the process of `rank` ended, tells."""
        if isinstance(error, TamisError):
            return cls(kind=type(error).__name__, problem=error.problem, allowed=error.allowed, action=error.action)
        first = next(iter(str(error).splitlines()), "")
        return cls(
            kind=ModelError.__name__,
            problem=f"training process {rank} ended by {type(error).__name__}: {first}",
            action="look at its traceback above; if memory ran out: lower finetuning.micro_batch_size, or set "
            "gradient_checkpointing: true",
            expected=False,
        )

    def as_error(self) -> TamisError:
        """The error that was told."""
        kind: type[TamisError] = getattr(errors, self.kind)
        return kind(self.problem, allowed=self.allowed, action=self.action)


def launch(settings: FinetuningSettings, processes: int, *, selection: Uri, out: Uri) -> Manifest:
    """Run the stage in `processes` new processes on this node, and as many on each other node of a cluster.

    Raises:
        TamisError: what ended the process that failed first.
        SystemExit: after a signal, when the processes are gone.
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
        # What a cluster has set for torchrun (PET_…) is read by its own parser.
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
    """Tell the process that launched this one what became of it."""
    if isinstance(outcome, Manifest):
        target, text = folder / _MANIFEST, outcome.model_dump_json()
    else:
        target, text = folder / f"failure-{rank}.json", Failure.of(outcome, rank).model_dump_json()
    temporary = target.with_suffix(f".{rank}")  # the launcher must not read half a file
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)


def _reason(folder: Path, ended: Mapping[int, ProcessFailure]) -> TamisError:
    """What was wrong first: an error on purpose, else a kill from outside, else an error that may be an echo of one."""
    files = sorted(folder.glob("failure-*.json"), key=lambda path: path.stat().st_mtime_ns)
    told = [Failure.model_validate_json(path.read_text(encoding="utf-8")) for path in files]
    on_purpose = [failure for failure in told if failure.expected]
    killed = {rank: failure for rank, failure in ended.items() if failure.exitcode < 0}
    if on_purpose or (told and not killed):
        return (on_purpose or told)[0].as_error()
    rank, failure = min((killed or dict(ended)).items(), key=lambda item: int(item[1].timestamp))
    how = f"was killed by {failure.signal_name()}" if killed else f"ended with exit code {failure.exitcode}"
    return StoppedError(
        f"training process {rank} {how}",
        action="start again to go on from the last checkpoint; if memory ran out (SIGKILL): lower "
        "finetuning.micro_batch_size, or give the machine more",
    )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Take back what torchrun's parts change in the process that they run in: environment and signal handlers."""
    environment, signals = dict(os.environ), (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    handlers = {number: signal.getsignal(number) for number in signals}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items():
            if handler is not None:  # None: not Python's own, so it could not be put back
                signal.signal(number, handler)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep torchrun's own log away: what it would say of a failed process is said by that process and by Tamis."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


class Meeting:
    """What the first process tells the others, by the store that torchrun keeps for its processes."""

    def __init__(self) -> None:
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        store, self.rank, _ = next(iter(rendezvous("env://", timeout=_PATIENCE)))
        self._store = PrefixStore("tamis", store)

    def announce(self, folder: Path | None) -> None:
        """Tell the others to train in `folder`, which the first process has prepared; None: there is nothing to do."""
        self._store.set("work", json.dumps(None if folder is None else str(folder.resolve())))

    def work(self) -> Path | None:
        """Where to train; waits for the first process."""
        folder = json.loads(self._store.get("work"))
        return None if folder is None else Path(folder)

    def conclude(self, outcome: Manifest | TamisError) -> None:
        """Tell the others how the stage ended."""
        told = outcome if isinstance(outcome, Manifest) else Failure.of(outcome, self.rank)
        self._store.set("outcome", json.dumps([isinstance(outcome, Manifest), told.model_dump(mode="json")]))

    def outcome(self) -> Manifest:
        """The manifest of what the first process has made; waits for it.

        Raises:
            TamisError: what the first process failed by.
        """
        good, told = json.loads(self._store.get("outcome"))
        if good:
            return Manifest.model_validate(told)
        raise Failure.model_validate(told).as_error()
