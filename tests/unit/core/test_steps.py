"""Steps: what is reused, what is refused, and that nothing half-made looks whole."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tamis.core.artifacts import MANIFEST, Artifact
from tamis.core.errors import ArtifactError, StorageError
from tamis.core.settings import Settings
from tamis.core.steps import Input, Step, run_step


class Words(Settings):
    text: str = "hello"


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


def test_an_artifact_made_from_other_settings_is_not_overwritten(tmp_path: Path, body: Counter) -> None:
    run_step("test", "pool", Words(), body, out=tmp_path / "out")
    with pytest.raises(ArtifactError, match="made from other settings"):
        run_step("test", "pool", Words(text="bye"), body, out=tmp_path / "out")


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

    with pytest.raises(StorageError, match="no space left"):
        run_step("test", "pool", Words(), fill, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path, body: Counter) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file, not a folder"):
        run_step("test", "pool", Words(), body, out=tmp_path / "file" / "out")
    assert body.calls == 0


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda out: (out / MANIFEST).unlink(), "is unfinished"),
        (lambda out: (out / "sub" / "words.txt").unlink(), "words.txt is missing"),
        (lambda out: (out / "sub" / "words.txt").write_text("hell"), "has 4 bytes instead of 5"),
        (lambda out: (out / MANIFEST).write_text("{}"), "cannot be read"),
        (lambda out: out.rename(out.with_name("gone")), "does not exist"),
    ],
)
def test_a_damaged_input_is_refused(tmp_path: Path, body: Counter, damage: object, words: str) -> None:
    run_step("test", "pool", Words(), body, out=tmp_path / "in")
    damage(tmp_path / "in")  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=words):
        run_step(
            "test", "ratings", Words(), body, out=tmp_path / "out", inputs={"pool": Input(tmp_path / "in", "pool")}
        )


def test_an_input_of_another_kind_is_refused(tmp_path: Path, body: Counter) -> None:
    run_step("test", "pool", Words(), body, out=tmp_path / "in")
    with pytest.raises(ArtifactError, match="is a pool\n  allowed: ratings"):
        run_step("test", "curation", Words(), body, out=tmp_path / "o", inputs={"r": Input(tmp_path / "in", "ratings")})


def test_verify_finds_changed_bytes_of_the_same_length(tmp_path: Path, body: Counter) -> None:
    run_step("test", "pool", Words(), body, out=tmp_path / "out")
    (tmp_path / "out" / "sub" / "words.txt").write_text("jello")
    with pytest.raises(ArtifactError, match="not what was written"):
        Artifact.open(tmp_path / "out").verify()


_SLOW_STEP = textwrap.dedent(
    """
    import sys, time
    from pathlib import Path
    from tamis.core.settings import Settings
    from tamis.core.steps import run_step

    def body(step):
        before = step.scratch / "before"
        (step.out / "resumed.txt").write_text(before.read_text() if before.exists() else "fresh")
        before.write_text("resumed")
        print("started", flush=True)
        time.sleep(float(sys.argv[2]))

    run_step("test", "pool", Settings(), body, out=Path(sys.argv[1]))
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
    with _slow_step(tmp_path / "out", 60) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "started\n"
        killed.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out").exists()
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
