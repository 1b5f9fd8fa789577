"""A store on a disk that fails: real file systems that are full, read-only or unmounted, and the errors of others."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tamis.core.errors import StoppedError, StorageError
from tamis.core.processes import ended_in_order
from tamis.core.settings import parse
from tamis.core.storage import write_bytes
from tamis.llm.store import Store, Writer, spare_places
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run
from tests.artifacts import conversation, make_pool
from tests.llm_server import Reaction, Server, completion
from tests.paper_prompt import RECORDS, Rating

KEY = {"rater": "r"}
ERRORS = ("EIO", "ESTALE", "ETIMEDOUT", "ENOTCONN", "EMFILE", "ENOMEM", "ENOSPC", "EHOSTDOWN", "EBUSY", "EREMOTEIO")
SAMPLES = 60


def rating(number: int) -> Rating:
    return Rating(id=f"{number:032x}", status="ok", overall=number % 10 + 1, attempts=1)


def ids(count: int) -> pa.Array:
    return pa.array([rating(number).id for number in range(count)])


def parts(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jsonl"))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is tried again in a moment, and not for long."""
    monkeypatch.setattr("tamis.llm.store.waits._AGAIN_AFTER", 0.05)
    monkeypatch.setitem(Writer.__init__.__kwdefaults__, "seconds", 0.05)
    monkeypatch.setitem(Writer.__init__.__kwdefaults__, "patience", 0.3)


class Disk:
    """Lets renames of parts below `folder` fail, the first one excepted, as long as `broken`."""

    def __init__(self, folder: Path, code: int, monkeypatch: pytest.MonkeyPatch, times: float = float("inf")) -> None:
        self.left, self.seen, replace = times, 0, os.replace

        def replaced(source: Any, target: Any) -> None:
            if folder in Path(target).parents and Path(target).suffix == ".jsonl":
                self.seen += 1
                if self.seen > 1 and self.left > 0:
                    self.left -= 1
                    raise OSError(code, os.strerror(code), str(target))
            replace(source, target)

        monkeypatch.setattr(os, "replace", replaced)


def rate(server: Server, folder: Path) -> None:
    """Rate `SAMPLES` samples, two of them at a time."""
    pool = folder / "pool"
    if not pool.exists():
        make_pool(pool, [conversation(f"What is {n}?", f"A number, {n}.") for n in range(SAMPLES)])
    backend = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None, "concurrency": 2}
    values = {"name": "mini", "backend": backend, "store": str(folder / "store")}
    run(parse(RatingSettings, values, where="here"), pool=pool, out=folder / "out")


@pytest.fixture
def server() -> Iterator[Server]:
    pytest.importorskip("openai")
    with Server(lambda asked: Reaction(completion(), delay=0.05)) as running:
        yield running


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("name", ERRORS)
def test_every_error_of_the_system_is_waited_for(
    name: str, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Writer.__init__.__kwdefaults__, "patience", 30.0)
    disk = Disk(tmp_path / "store", getattr(errno, name), monkeypatch, times=3)
    rate(server, tmp_path)
    assert (disk.left, len(server.asked)) == (0, SAMPLES)
    lines = [line for part in parts(tmp_path / "store") for line in part.read_text().splitlines()]
    assert len(lines) == SAMPLES


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("name", ["EIO", "ESTALE", "ENOMEM"])
def test_answers_in_hand_are_kept_elsewhere_and_taken_up_by_the_next_run(
    name: str, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        Disk(tmp_path / "store", getattr(errno, name), broken)
        with pytest.raises(StorageError) as raised:
            rate(server, tmp_path)
    spare = tmp_path / ".answers-in-hand"
    assert raised.value.code == "storage"
    assert str(spare) in raised.value.problem
    assert parts(spare)
    assert len(server.asked) < SAMPLES  # it ended early
    rate(server, tmp_path)
    assert len(server.asked) == SAMPLES  # nothing was paid for twice
    lines = [json.loads(line)["id"] for part in parts(tmp_path / "store") for line in part.read_text().splitlines()]
    assert len(lines) == len(set(lines)) == SAMPLES
    assert not parts(spare)


@pytest.mark.usefixtures("hasty")
def test_spare_places_of_two_stores_with_one_key_are_two(tmp_path: Path) -> None:
    """As of two services that call different models by one name."""
    spare = [tmp_path / "spare"]
    one, other = (Store(tmp_path / name, KEY, RECORDS, spare) for name in ("one", "other"))
    one.leave([rating(number) for number in range(5)])
    assert len(one.read()) == 5
    assert len(other.read()) == 0


def test_a_signal_while_the_last_answers_are_written_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store", KEY, RECORDS, [tmp_path / "spare"])
    append = Store.append
    monkeypatch.setattr(Store, "append", lambda *given: (time.sleep(1.0), append(*given))[1])
    with pytest.raises(StoppedError):
        _write_until_signalled(store)
    assert len(Store(tmp_path / "store", KEY, RECORDS).read()) == 60


def _write_until_signalled(store: Store[Rating]) -> None:
    with ended_in_order(), Writer(store) as writer:
        for number in range(60):
            writer.add(rating(number))
        threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGTERM)).start()


def test_too_many_open_files_are_survived_and_what_is_in_hand_is_saved(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    store = Store(tmp_path / "store", KEY, RECORDS, spare_places(tmp_path / "scratch"))
    store.prepare()
    opened: list[int] = []

    def use() -> None:
        with Writer(store, patience=0.3) as writer:
            writer.add(rating(0))
            while not parts(tmp_path / "store"):
                time.sleep(0.01)
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 3, hard))
            for number in range(1, 20):
                writer.add(rating(number))
            while not writer.failed():
                with suppress(OSError):  # again and again: others of this process close some
                    opened.append(os.open(os.devnull, os.O_RDONLY))

    try:
        with pytest.raises(StorageError):
            use()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for handle in opened:
            os.close(handle)
    again = Store(tmp_path / "store", KEY, RECORDS, spare_places(tmp_path / "scratch"))
    assert again.read().find(ids(20)) == [rating(number) for number in range(20)]
    again.bring_in()
    assert Store(tmp_path / "store", KEY, RECORDS).read().find(ids(20)) == [rating(number) for number in range(20)]


@pytest.mark.usefixtures("hasty")
def test_where_no_spare_place_can_be_written_a_temporary_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file", KEY, RECORDS, [tmp_path / "file", tmp_path / "file" / "below"])
    with pytest.raises(StorageError) as raised, Writer(store) as writer:
        writer.add(rating(0))
    (place,) = (tmp_path / "temporary").iterdir()
    assert str(place) in raised.value.problem
    assert Store(place, KEY, RECORDS).read().find(ids(1)) == [rating(0)]  # it has the form of a store


@pytest.mark.usefixtures("hasty")
def test_an_end_by_a_signal_does_not_wait_for_a_store_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tamis.llm.store.writer._AT_END", 0.2)
    store = Store(tmp_path / "store", KEY, RECORDS, spare_places(tmp_path / "scratch"))
    store.prepare()
    store.append([rating(0)])
    Disk(tmp_path / "store", errno.EIO, monkeypatch).seen = 1
    start = time.monotonic()

    def use() -> None:
        with Writer(store, patience=600) as writer:
            writer.add(rating(1))
            raise SystemExit(143)

    with pytest.raises(SystemExit):
        use()
    assert time.monotonic() - start < 30
    assert store.read().find(ids(2)) == [rating(0), rating(1)]


def test_a_part_that_stays_unreadable_is_left_out_but_a_store_that_does_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tamis.llm.store.parts._READ_PATIENCE", 0.0)
    store = Store(tmp_path, KEY, RECORDS)
    for number in range(20):
        store.append([rating(number)])
    some = parts(tmp_path)[7]
    some.unlink()
    some.mkdir()  # reading it is an error of the system, for root too
    stored = store.read()
    assert (len(stored), stored.damaged) == (19, 1)
    for part in parts(tmp_path)[8:]:
        part.unlink()
        part.mkdir()
    with pytest.raises(StorageError) as raised:
        store.read()
    assert raised.value.code == "storage"


def test_a_files_name_is_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = [], os.fsync

    def noted(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    write_bytes(tmp_path / "new" / "newer" / "file", b"content")
    assert [Path(path) for path in synced[1:]] == [tmp_path / "new" / "newer", tmp_path / "new", tmp_path]
    synced.clear()
    write_bytes(tmp_path / "new" / "newer" / "file", b"content")
    assert [Path(path) for path in synced[1:]] == [tmp_path / "new" / "newer"]


def mounted(script: str, mount: str, *arguments: object) -> dict[str, Any]:
    """What `script` prints as JSON with a small file system of its own, mounted by `mount` (with sh)."""
    command = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", script]
    try:
        tried = subprocess.run(
            ["unshare", "--mount", "sh", "-c", f"{mount}"], check=False, capture_output=True, timeout=60
        )
    except FileNotFoundError:
        pytest.skip("no `unshare` on this machine")
    if tried.returncode:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run(
        [*command, *map(str, arguments)],
        check=False, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


RATE = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from tamis.core.errors import TamisError
from tests.unit.llm.test_store_faults import rate
code = None
try:
    rate(SimpleNamespace(url=sys.argv[1]), Path(sys.argv[2]))
except TamisError as error:
    code = error.code
print(json.dumps({"code": code}))
"""


@pytest.mark.parametrize(
    "mount",
    [
        "mount -t tmpfs -o size=1m none {store} && head -c 900000 /dev/zero > {store}/other",
        "mount -t tmpfs -o ro none {store}",
    ],
)
def test_a_full_or_read_only_store_is_found_before_the_first_request(
    mount: str, tmp_path: Path, server: Server
) -> None:
    (tmp_path / "store").mkdir()
    assert mounted(RATE, mount.format(store=tmp_path / "store"), server.url, tmp_path) == {"code": "storage"}
    assert not server.asked


UNMOUNT = """
import json, subprocess, sys, time
from pathlib import Path
from tamis.core.errors import TamisError
from tamis.llm.store import Store, Writer, spare_places
from tests.paper_prompt import RECORDS
from tests.unit.llm.test_store_faults import KEY, parts, rating
place, code, start = Path(sys.argv[1]), None, time.monotonic()
store = Store(place, KEY, RECORDS, spare_places(place.parent / "scratch"))
store.prepare()
try:
    with Writer(store, seconds=0.05) as writer:
        writer.add(rating(0))
        while not parts(place):
            time.sleep(0.01)
        subprocess.run(["umount", "--lazy", place], check=True)
        writer.add(rating(1))
        while not writer.failed() and time.monotonic() - start < 60:
            time.sleep(0.01)
        writer.add(rating(2))
except TamisError as error:
    code = error.code
print(json.dumps({"code": code, "there": [str(path) for path in place.rglob("*")]}))
"""


def test_a_store_that_is_unmounted_stops_the_work_and_nothing_is_written_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    told = mounted(UNMOUNT, f"mount -t tmpfs -o size=4m none {tmp_path / 'store'}", tmp_path / "store")
    assert told == {"code": "store-gone", "there": []}
    again = Store(tmp_path / "store", KEY, RECORDS, spare_places(tmp_path / "scratch"))
    assert again.read().find(ids(3)) == [None, rating(1), rating(2)]


def test_a_folder_that_another_one_replaces_stops_the_work(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", KEY, RECORDS)
    store.prepare()
    store.append([rating(0)])
    (tmp_path / "store").rename(tmp_path / "moved")
    Store(tmp_path / "store", KEY, RECORDS).append([rating(1)])
    with pytest.raises(StorageError) as raised:
        store.append([rating(2)])
    assert raised.value.code == "store-gone"
