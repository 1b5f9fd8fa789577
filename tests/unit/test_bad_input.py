"""Bad input through the command: a clear error or a counted reject, never a traceback, never half a result."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tamis.cli import main
from tamis.core.artifacts import Artifact
from tests.artifacts import make_embeddings

GOOD = {"instruction": "Name a metal.", "output": "Copper."}


def lines(*rows: object) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


class Bench:
    """A folder with data, and the command to work on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def fails(self, *arguments: str) -> str:
        """Run `tamis`, which must end with an error in words and leave no output; returns the error's text."""
        result = CliRunner().invoke(main, [*arguments, "--out", str(self.folder / "out")])
        assert result.exit_code == 78, result.output
        assert result.output.count("error: ") == 1
        assert "Traceback" not in result.output
        assert not (self.folder / "out").exists(), "half a result"
        return result.output.split("error: ", 1)[1]

    def works(self, *arguments: str, out: str = "out") -> Artifact:
        result = CliRunner().invoke(main, [*arguments, "--out", str(self.folder / out)])
        assert result.exit_code == 0, result.output
        return Artifact.open(self.folder / out)

    def pool_of(self, text: str, *settings: str) -> list[str]:
        """Arguments that make a pool of a JSONL file with this text."""
        source = json.dumps([{"name": "data", "path": self.write("data.jsonl", text)}])
        return ["pool", "--set", f"sources={source}", *(word for s in settings for word in ("--set", s))]

    def ratings_of(self, text: str) -> list[str]:
        """Arguments that import ratings from a JSONL file with this text, by row, for a pool of twelve samples."""
        rows = [GOOD | {"instruction": f"Name metal {number}."} for number in range(12)]
        self.works(*self.pool_of(lines(*rows)), out="pool")
        backend = {
            "kind": "import",
            "path": self.write("ratings.jsonl", text),
            "by": "row",
            "source": "data",
            "key": "row",
        }
        return [
            "rate",
            "--pool",
            str(self.folder / "pool"),
            "--set",
            "name=r",
            "--set",
            f"backend={json.dumps(backend)}",
        ]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def rated(*scores: object) -> str:
    return lines(*({"row": row, "overall": score} for row, score in enumerate(scores)))


ERRORS: dict[str, tuple[Callable[[Bench], list[str]], list[str]]] = {
    "unknown setting": (
        lambda b: [*b.pool_of(lines(GOOD)), "--set", "max_rejects=1"],
        ["max_rejects: unknown setting", "did you mean"],
    ),
    "missing file": (
        lambda b: ["pool", "--set", f"sources=[{{name: data, path: {b.folder}/nowhere.jsonl}}]"],
        ["nowhere.jsonl", "to do:"],
    ),
    "empty pool": (lambda b: b.pool_of(""), ["0 rows", "to do:"]),
    "mostly rows without messages": (
        lambda b: b.pool_of(lines(GOOD, {"instruction": "x", "output": ""}, {"instruction": "y", "output": " "})),
        ["2 of 3", "is empty", "to do:"],
    ),
    "mostly broken JSON": (
        lambda b: b.pool_of(lines(GOOD, "{broken", "[1, 2"), "max_reject_share=0.5"),
        ["2 of 3", "JSON", "to do:"],
    ),
    "a score of 12": (lambda b: b.ratings_of(rated(*[5] * 11, 12)), ["overall is 12", "row 11", "1 to 10"]),
    "two ratings of one sample": (
        lambda b: b.ratings_of(rated(*[5] * 12) + lines({"row": 3, "overall": 6})),
        ["row 12", "row 3", "to do:"],
    ),
    "ratings without the column": (
        lambda b: b.ratings_of(lines(*({"row": row, "score": 5} for row in range(12)))),
        ["no column 'overall'", "row, score"],
    ),
    "a file in place of an artifact": (
        lambda b: ["embed", "--pool", str(Path(__file__))],
        ["test_bad_input.py", "pool", "code:    artifact"],
    ),
    "an input that is no artifact": (
        lambda b: ["embed", "--pool", str(b.folder)],
        ["manifest.json", "to do:", "code:    artifact"],
    ),
}


@pytest.mark.parametrize("case", list(ERRORS))
def test_bad_input_is_a_clear_error(bench: Bench, case: str) -> None:
    arguments, words = ERRORS[case]
    text = bench.fails(*arguments(bench))
    for word in words:
        assert word in text, text


@pytest.mark.parametrize("fault", ["nan", "zero"])
def test_vectors_that_are_no_vectors_are_named(bench: Bench, fault: str) -> None:
    vectors = np.eye(8, 16) + 0.1
    make_embeddings(bench.folder / "embeddings", [f"{i:032x}" for i in range(8)], vectors)
    damaged = np.load(bench.folder / "embeddings/vectors.npy")
    damaged[5] = np.nan if fault == "nan" else 0
    np.save(bench.folder / "embeddings/vectors.npy", damaged)
    text = bench.fails("neighbors", "--embeddings", str(bench.folder / "embeddings"))
    assert f"{5:032x}" in text
    assert "to do:" in text


def test_a_few_bad_rows_are_counted_and_kept_with_their_reasons(bench: Bench) -> None:
    rows = [GOOD | {"instruction": f"Name metal {number}."} for number in range(20)]
    text = lines(*rows, "{broken", {"instruction": "x", "output": ""}, {"other": 1}, rows[0])
    pool = bench.works(*bench.pool_of(text, "max_reject_share=0.2"))
    assert pool.manifest.rows == 20
    rejects = pq.read_table(pool.path("rejects.parquet")).to_pylist()
    assert [reject["row"] for reject in rejects] == [20, 21, 22]
    assert len({reject["reason"] for reject in rejects}) == 3
    assert '"duplicates":1' in json.dumps(pool.manifest.facts, separators=(",", ":"))


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_a_clear_error_and_leaves_nothing_whole(bench: Bench, tiny_disk: Path) -> None:
    rows = [{"instruction": os.urandom(500).hex(), "output": os.urandom(500).hex()} for _ in range(200)]
    result = CliRunner().invoke(main, [*bench.pool_of(lines(*rows)), "--out", str(tiny_disk / "out")])
    assert result.exit_code == 1, result.output
    assert "no space left on the device" in result.output
    assert "Traceback" not in result.output
    assert not (tiny_disk / "out").exists()


def test_a_read_only_folder_is_a_clear_error(bench: Bench, tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    result = CliRunner().invoke(main, [*bench.pool_of(lines(GOOD)), "--out", str(tiny_disk / "out")])
    assert result.exit_code == 78, result.output
    assert "read-only" in result.output
    assert "Traceback" not in result.output
