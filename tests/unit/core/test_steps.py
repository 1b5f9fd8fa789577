"""Steps: what is reused, what is refused, and that nothing half-made looks whole."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from tamis.core import secrets, storage
from tamis.core.artifacts import MANIFEST, Artifact, manifest_of
from tamis.core.errors import ArtifactError, StorageError
from tamis.core.hardware import hardware
from tamis.core.outlook import LookedAtError, Outlook, only_looking
from tamis.core.settings import StageSettings
from tamis.core.steps import Input, Step, run_step
from tests.artifacts import NoSettings


class Words(StageSettings):
    OUTPUT_REVISION: ClassVar[int] = 1
    text: str = "hello"


def _errno_of(error: StorageError) -> int | None:
    """The number of the system's error behind one of Tamis."""
    assert isinstance(error.__cause__, OSError)
    return error.__cause__.errno


class Counter:
    """A stage's body that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, step: Step[Words]) -> None:
        self.calls += 1
        (step.out / "sub").mkdir()
        (step.out / "sub" / "words.txt").write_text(step.settings.text)
        step.rows = 1
        step.facts["length"] = len(step.settings.text)


@pytest.fixture
def body() -> Counter:
    return Counter()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TAMIS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_results_of_another_revision_are_not_taken_and_those_of_another_version_are(
    home: Path, tmp_path: Path, body: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_step("test", "pool", Words(), body, out=tmp_path / "first")
    monkeypatch.setattr("tamis.__version__", "99.0.0")
    again = run_step("test", "pool", Words(), body, out=tmp_path / "again")
    assert (first.revision, again, body.calls) == (1, first, 1)
    monkeypatch.setattr(Words, "OUTPUT_REVISION", 2)
    new = run_step("test", "pool", Words(), body, out=tmp_path / "new")
    assert (new.revision, body.calls) == (2, 2)
    with pytest.raises(ArtifactError):
        run_step("test", "pool", Words(), body, out=tmp_path / "first")


@pytest.mark.parametrize("tells_origins", [False, True])
def test_a_result_that_tells_where_its_inputs_are_from_is_made_anew_when_that_changes(
    tells_origins: bool, home: Path, tmp_path: Path, body: Counter
) -> None:
    def behind(variant: str) -> None:
        """A step behind one whose settings differ and whose content does not."""
        source = tmp_path / f"source-{variant}"
        run_step("first", "pool", NoSettings(variant=variant), lambda step: None, out=source)
        inputs = {"pool": Input(source, "pool")}
        out = tmp_path / f"out-{variant}"
        run_step("test", "pool", Words(), body, out=out, inputs=inputs, tells_origins=tells_origins)

    behind("a")
    behind("b")
    assert body.calls == (2 if tells_origins else 1)


def test_an_input_that_was_damaged_behind_our_back_is_named_and_made_anew(home: Path, tmp_path: Path) -> None:
    def write(step: Step[NoSettings]) -> None:
        (step.out / "words.txt").write_text("hello")

    def read(step: Step[Words]) -> None:
        assert step.input("pool").path("words.txt").read_text() == "hello"

    def first(out: Path) -> Path:
        run_step("first", "pool", NoSettings(), write, out=out)
        return out

    damaged = first(tmp_path / "a")
    (damaged / "words.txt").write_text("jello")  # of the same length, and the same file as in the home
    with pytest.raises(ArtifactError, match=r"words\.txt"):
        run_step("test", "pool", Words(), read, out=tmp_path / "out", inputs={"pool": Input(damaged, "pool")})
    run_step("test", "pool", Words(), read, out=tmp_path / "out", inputs={"pool": Input(first(tmp_path / "b"), "pool")})


def test_artifacts_from_before_revisions_are_read_and_never_taken_for_finished(tmp_path: Path, body: Counter) -> None:
    run_step("test", "pool", Words(), body, out=tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    del manifest["revision"]
    (tmp_path / "out" / MANIFEST).write_text(json.dumps(manifest | {"key": "0" * 64}))
    assert Artifact.open(tmp_path / "out", "pool").manifest.revision == 0
    with pytest.raises(ArtifactError):
        run_step("test", "pool", Words(), body, out=tmp_path / "out")


def test_a_finished_step_describes_itself(tmp_path: Path, body: Counter) -> None:
    manifest = run_step("test", "pool", Words(), body, out=tmp_path / "out", name="n")
    artifact = Artifact.open(tmp_path / "out", "pool")
    assert artifact.manifest == manifest
    assert (manifest.rows, manifest.facts, manifest.name) == (1, {"length": 5}, "n")
    assert [file.name for file in manifest.files] == ["sub/words.txt"]
    assert artifact.path("sub/words.txt").read_text() == "hello"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_the_same_step_is_done_once(tmp_path: Path, body: Counter) -> None:
    first = run_step("test", "pool", Words(), body, out=tmp_path / "out")
    assert run_step("test", "pool", Words(), body, out=tmp_path / "out") == first
    assert body.calls == 1


def test_with_a_home_it_is_reused_in_another_place(tmp_path: Path, body: Counter, home: Path) -> None:
    run_step("test", "pool", Words(), body, out=tmp_path / "a")
    run_step("test", "pool", Words(), body, out=tmp_path / "b")
    assert body.calls == 1
    assert Artifact.open(tmp_path / "b").path("sub/words.txt").read_text() == "hello"


def test_a_reused_step_warns_again_of_what_it_warned_of(
    tmp_path: Path, home: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "_known", secrets._Known())
    secrets.know("abcdefgh-12345678")

    def body(step: Step[Words]) -> None:
        logging.getLogger("tamis.pool").warning("%d rows; most frequent:\n    2 x empty", 3)
        logging.getLogger("tamis.pool").warning("refused: abcdefgh-12345678")
        logging.getLogger("tamis.pool").info("no warning")

    first = run_step("test", "pool", Words(), body, out=tmp_path / "a", name="n")
    assert first.execution.warnings == ["3 rows; most frequent:\n    2 x empty", "refused: ***"]
    caplog.clear()
    assert run_step("test", "pool", Words(), body, out=tmp_path / "b", name="n") == first
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 2
    for text, warning in zip(told, first.execution.warnings, strict=True):
        assert text.endswith(warning)
        assert "reused" in text


@pytest.mark.parametrize("change", ["settings", "input", "file", "name"])
def test_it_is_done_anew_when_something_it_depends_on_has_changed(
    tmp_path: Path, body: Counter, home: Path, change: str
) -> None:
    for variant in ("x", "y"):
        run_step("test", "pool", Words(text=variant), Counter(), out=tmp_path / variant)

    def go(out: str, changed: bool) -> None:
        run_step(
            "test",
            "ratings",
            Words(text="new" if changed and change == "settings" else "old"),
            body,
            out=tmp_path / out,
            inputs={"pool": Input(tmp_path / ("y" if changed and change == "input" else "x"), "pool")},
            files={"data": "2" if changed and change == "file" else "1"},
            name="b" if changed and change == "name" else "a",
        )

    go("first", False)
    go("second", True)
    assert body.calls == 2


def test_a_step_that_is_looked_at_says_its_key_and_whether_it_is_there_and_does_nothing(
    tmp_path: Path, body: Counter, home: Path
) -> None:
    def look(settings: Words) -> Outlook:
        with only_looking(), pytest.raises(LookedAtError) as seen:
            run_step("test", "pool", settings, body, out=tmp_path / "elsewhere", name="n")
        return seen.value.outlook

    before = look(Words())
    assert (before.manifest, body.calls, list(tmp_path.iterdir())) == (None, 0, [])
    made = run_step("test", "pool", Words(), body, out=tmp_path / "out", name="n")
    after = look(Words())
    assert (after.manifest, after.key) == (made, before.key)
    assert after.folder is not None
    assert Artifact.open(after.folder).manifest == made
    assert look(Words(text="other")).manifest is None
    assert body.calls == 1


def test_a_step_says_on_what_it_ran_and_whether_it_took_up_earlier_work(tmp_path: Path) -> None:
    def fails_once(step: Step[Words]) -> None:
        kept = step.scratch / "kept"
        if not kept.exists():
            kept.write_text("half")
            raise ArtifactError("failed")

    with pytest.raises(ArtifactError):
        run_step("test", "pool", Words(), fails_once, out=tmp_path / "out")
    again = run_step("test", "pool", Words(), fails_once, out=tmp_path / "out").execution
    assert (again.resumed, again.machine) == (True, hardware())
    assert not run_step("test", "pool", Words(text="other"), lambda step: None, out=tmp_path / "b").execution.resumed


def test_an_artifact_made_from_other_settings_is_not_overwritten(tmp_path: Path, body: Counter) -> None:
    made = run_step("test", "pool", Words(), body, out=tmp_path / "out")
    with pytest.raises(ArtifactError):
        run_step("test", "pool", Words(text="bye"), body, out=tmp_path / "out")
    assert (body.calls, manifest_of(tmp_path / "out")) == (1, made)


def test_a_failing_body_leaves_nothing_that_looks_whole(tmp_path: Path, body: Counter) -> None:
    def fail(step: Step[Words]) -> None:
        body(step)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_step("test", "pool", Words(), fail, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert run_step("test", "pool", Words(), body, out=tmp_path / "out").rows == 1


def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    def fill(step: Step[Words]) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(step.out / "part"))

    with pytest.raises(StorageError) as raised:
        run_step("test", "pool", Words(), fill, out=tmp_path / "out")
    assert _errno_of(raised.value) == errno.ENOSPC
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path, body: Counter) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError) as raised:
        run_step("test", "pool", Words(), body, out=tmp_path / "file" / "out")
    assert (_errno_of(raised.value), body.calls) == (errno.ENOTDIR, 0)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="this system has no /proc")
@pytest.mark.parametrize("out", ["/proc/x", "/proc/x/y"])
def test_a_place_where_no_folder_can_be_made_is_an_error_and_not_waited_for(body: Counter, out: str) -> None:
    with pytest.raises(StorageError) as refused:
        run_step("test", "pool", Words(), body, out=out)
    assert (refused.value.code, body.calls) == ("storage", 0)


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        (lambda out: (out / MANIFEST).unlink(), r"in .*manifest\.json"),
        (lambda out: (out / "sub" / "words.txt").unlink(), r"in: sub/words\.txt"),
        (lambda out: (out / "sub" / "words.txt").write_text("hell"), r"in: sub/words\.txt .*\b4\b.*\b5\b"),
        (lambda out: (out / MANIFEST).write_text("{}"), r"in/manifest\.json"),
        (lambda out: out.rename(out.with_name("gone")), "in "),
    ],
)
def test_a_damaged_input_is_refused(tmp_path: Path, body: Counter, damage: object, seen: str) -> None:
    run_step("test", "pool", Words(), body, out=tmp_path / "in")
    damage(tmp_path / "in")  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=f"{tmp_path}/{seen}"):
        run_step(
            "test", "ratings", Words(), body, out=tmp_path / "out", inputs={"pool": Input(tmp_path / "in", "pool")}
        )
    assert body.calls == 1


def test_an_input_of_another_kind_is_refused(tmp_path: Path, body: Counter) -> None:
    run_step("test", "pool", Words(), body, out=tmp_path / "in")
    with pytest.raises(ArtifactError, match=r"in .*\bpool\b") as raised:
        run_step("test", "curation", Words(), body, out=tmp_path / "o", inputs={"r": Input(tmp_path / "in", "ratings")})
    assert raised.value.allowed == "ratings"


def test_verify_finds_changed_bytes_of_the_same_length(tmp_path: Path, body: Counter) -> None:
    run_step("test", "pool", Words(), body, out=tmp_path / "out")
    (tmp_path / "out" / "sub" / "words.txt").write_text("jello")
    with pytest.raises(ArtifactError, match=r"sub/words\.txt"):
        Artifact.open(tmp_path / "out").verify()


_SLOW_STEP = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from tamis.core.steps import run_step
    from tests.artifacts import NoSettings

    def body(step):
        before = step.scratch / "before"
        (step.out / "resumed.txt").write_text(before.read_text() if before.exists() else "fresh")
        before.write_text("resumed")
        print("started", flush=True)
        time.sleep(float(sys.argv[2]))

    run_step("test", "pool", NoSettings(), body, out=Path(sys.argv[1]))
    """
)


def _slow_step(out: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _SLOW_STEP, str(out), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("with_home", [False, True])
def test_a_killed_step_leaves_nothing_whole_and_takes_up_its_scratch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_home: bool
) -> None:
    if with_home:
        monkeypatch.setenv("TAMIS_HOME", str(tmp_path / "home"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with _slow_step(tmp_path / "out", 60) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "started\n"
        killed.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "temporary").iterdir())
    with _slow_step(tmp_path / "out", 0) as again:
        assert again.wait() == 0
    assert Artifact.open(tmp_path / "out").path("resumed.txt").read_text() == "resumed"
    assert not list(tmp_path.rglob("*.scratch"))


def test_two_processes_on_one_step_do_the_work_once(tmp_path: Path, home: Path) -> None:
    with _slow_step(tmp_path / "a", 1.5) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with _slow_step(tmp_path / "b", 0) as second:
            assert second.wait() == first.wait() == 0
            assert second.stdout is not None
            assert second.stdout.read() == "", "the second one waited and reused the first one's work"
    started = time.monotonic()
    assert Artifact.open(tmp_path / "b").path("resumed.txt").read_text() == "fresh"
    assert time.monotonic() - started < 5


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path, body: Counter) -> None:
    (tmp_path / "project/raw").mkdir(parents=True)
    (tmp_path / "project/raw/data.jsonl").write_text("mine")
    with pytest.raises(ArtifactError):
        run_step("test", "pool", Words(), body, out=tmp_path / "project")
    (tmp_path / "project/manifest.json").write_text('{"manifest_version": 3}')
    with pytest.raises(ArtifactError):
        run_step("test", "pool", Words(), body, out=tmp_path / "project")
    assert (tmp_path / "project/raw/data.jsonl").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtifactError):
        run_step("test", "pool", Words(), body, out=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ArtifactError):
        run_step("test", "pool", Words(), body, out="/proc")
    assert body.calls == 0


def test_an_empty_folder_a_link_and_a_damaged_artifact_are_replaced(tmp_path: Path, body: Counter) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    run_step("test", "pool", Words(), body, out=tmp_path / "link")
    assert (tmp_path / "empty/sub/words.txt").read_text() == "hello"
    (tmp_path / "empty/sub/words.txt").write_text("torn")
    run_step("test", "pool", Words(), body, out=tmp_path / "empty")
    assert Artifact.open(tmp_path / "empty").path("sub/words.txt").read_text() == "hello"
    assert body.calls == 2


def test_a_kept_artifact_of_another_step_is_not_handed_out(tmp_path: Path, body: Counter, home: Path) -> None:
    for text in ("one", "two"):
        run_step("test", "pool", Words(text=text), body, out=tmp_path / text)
    one, two = (next((home / "artifacts").glob(f"test-{manifest_of(tmp_path / t).key[:24]}")) for t in ("one", "two"))
    shutil.rmtree(one)
    shutil.copytree(two, one)
    run_step("test", "pool", Words(text="one"), body, out=tmp_path / "again")
    assert Artifact.open(tmp_path / "again").path("sub/words.txt").read_text() == "one"


def test_links_are_never_written_through(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    storage.link_tree(tmp_path / "one", tmp_path / "there")
    storage.link_tree(tmp_path / "two", tmp_path / "there")
    assert (tmp_path / "there/file").read_text() == "two"
    assert (tmp_path / "one/file").read_text() == "one"


def test_a_step_that_waited_for_an_equal_one_elsewhere_does_its_own(tmp_path: Path) -> None:
    """Without a home two outputs beside each other share the unfinished work, which the first removes at its end."""
    for run in [start(tmp_path, name) for name in ("a", "b")]:
        assert run.wait(timeout=60) == 0
    assert {name: (tmp_path / name / "done").read_text() for name in ("a", "b")} == {"a": "done", "b": "done"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_step_that_waited_for_its_equal_leaves_nothing_behind(tmp_path: Path) -> None:
    for run in [start(tmp_path, "a") for _ in range(3)]:
        assert run.wait(timeout=60) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_many_processes_wait_for_one_scratch_folder_that_each_removes(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from tamis.core.steps import _only_one, _remove

        scratch = Path({str(tmp_path / "scratch")!r})
        for _ in range(200):
            with _only_one(scratch):
                (scratch / "mine").touch(exist_ok=False)
                _remove(scratch)
        """
    )
    runs = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(4)]
    assert [run.wait(timeout=120) for run in runs] == [0] * 4
    assert list(tmp_path.iterdir()) == []


def start(folder: Path, name: str) -> subprocess.Popen[bytes]:
    script = textwrap.dedent(
        f"""
        import time
        from tamis.core.steps import run_step
        from tests.artifacts import NoSettings

        def body(step):
            (step.scratch / "journal").write_text("begun")
            time.sleep(1)
            (step.out / "done").write_text("done")
            (step.scratch / "journal").write_text("ended")

        run_step("test", "pool", NoSettings(), body, out={str(folder / name)!r})
        """
    )
    environment = {key: value for key, value in os.environ.items() if key != "TAMIS_HOME"}
    return subprocess.Popen([sys.executable, "-c", script], env=environment)


def test_what_a_hub_client_notes_beside_a_model_changes_no_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = storage.fingerprint(tmp_path)
    (tmp_path / ".cache/huggingface").mkdir(parents=True)
    (tmp_path / ".cache/huggingface/config.json.metadata").write_text("1732665600.0")
    assert storage.fingerprint(tmp_path) == before
    (tmp_path / "config.json").write_text("{ }")
    assert storage.fingerprint(tmp_path) != before


SOURCE = storage.ObjectPath("s3", "bucket", "file")


@pytest.fixture
def content(monkeypatch: pytest.MonkeyPatch) -> list[bytes | OSError]:
    """What comes of every file in object storage: its bytes, or an error."""
    given: list[bytes | OSError] = [b"whole"]

    def download(_: storage.ObjectPath, target: Path) -> None:
        target.write_bytes(b"half")
        if isinstance(given[0], OSError):
            raise given[0]
        time.sleep(0.05)
        target.write_bytes(given[0])

    monkeypatch.setattr("tamis.core.storage.objects.download", download)
    return given


def test_a_full_disk_while_downloading_is_a_clear_error(content: list[bytes | OSError], tmp_path: Path) -> None:
    content[0] = OSError(errno.ENOSPC, "full")
    with pytest.raises(StorageError) as raised:
        storage.download(SOURCE, tmp_path / "file")
    assert (_errno_of(raised.value), list(tmp_path.iterdir())) == (errno.ENOSPC, [])


@pytest.mark.usefixtures("content")
def test_downloads_of_one_file_at_once_all_end_well(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: storage.download(SOURCE, tmp_path / "file"), range(4)))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


@pytest.mark.usefixtures("content")
def test_what_a_killed_download_has_left_is_removed_by_a_later_one(tmp_path: Path) -> None:
    left, running = tmp_path / ".file.0123", tmp_path / ".file.4567"
    for path in (left, running):
        path.write_bytes(b"half")
    os.utime(left, (0, 0))
    storage.download(SOURCE, tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".file.4567", "file"]


@pytest.mark.usefixtures("content")
def test_a_download_of_other_bytes_never_has_the_files_name(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        storage.download(SOURCE, tmp_path / "file", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_where_only_this_machine_counts_object_storage_is_not_asked(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("a")
    with storage.only_local():
        with pytest.raises(StorageError, match="s3://bucket/a is in object storage"):
            storage.locate("s3://bucket/a")
        assert storage.fingerprint(file) == storage.sha256_of(file)
