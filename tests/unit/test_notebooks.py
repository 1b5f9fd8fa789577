"""`tamis.load`: a run's artifacts as tables."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import tamis
from tamis.core.artifacts import Artifact
from tamis.core.errors import ArtifactError, InputError, SettingsError, TamisError
from tamis.core.steps import Input, Step, run_step
from tamis.core.tables import SCORES, PartsWriter
from tests.artifacts import (
    NoSettings,
    conversation,
    make,
    make_curation,
    make_embeddings,
    make_pool,
    make_ratings,
    make_selection,
)
from tests.conftest import ROOT

N = 20
SAMPLES = [conversation(f"What is {i}?", f"{i} is a number.") for i in range(N)]


def score_all(folder: Path, ids: list[str]) -> None:
    def write(step: Step[NoSettings]) -> None:
        with PartsWriter(step.out, SCORES) as parts:
            parts.write_rows({"id": one, "score": float(i), "status": "ok"} for i, one in enumerate(ids))

    make("scores", folder, write, name="perplexity")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder, `runs/first` in the working folder, whose artifacts are not in the pool's order."""
    monkeypatch.chdir(tmp_path)
    run = Path("runs/first")
    make_pool(run / "pool", SAMPLES, source=["a", "b"] * (N // 2), metadata=[{"key": i} for i in range(N)])
    ids = ids_of(run)
    backwards = ids[::-1]
    make_ratings(run / "ratings/llama", "llama", backwards, [None if i == 0 else i % 10 + 1 for i in range(N)][::-1])
    make_ratings(run / "ratings/gpt-4.1", "gpt-4.1", ids, [5] * N)
    curated: list[dict[str, Any]] = [
        {"id": one, "rater": rater, "raw_score": i % 5, "score": 5 if i % 2 else i % 5, "confidence": 0.5}
        | {"diversity": i / N}
        for rater in ("llama", "combined")
        for i, one in reversed(list(enumerate(ids)))
        if (i, rater) != (3, "combined")
    ]
    make_curation(run / "curation", curated)
    make_embeddings(run / "embeddings", ids, np.eye(N, 8, dtype=np.float32) + 0.1)
    score_all(run / "scores/perplexity", ids)
    make_selection(run / "selections/best", [SAMPLES[i] for i in (7, 2, 11)], name="best")
    make_selection(run / "selections/random", [SAMPLES[i] for i in (2, 0)], name="random")
    (run / "runs/other").mkdir(parents=True)
    (run / ".tamis").mkdir()
    return run


def ids_of(run: Path) -> list[str]:
    return list(Artifact.open(run / "pool").table(["id"])["id"].to_pylist())


def test_a_run_is_one_table_in_the_order_of_the_pool(run: Path) -> None:
    table = tamis.load(run)
    ids = ids_of(run)
    assert table["id"].to_pylist() == ids
    assert table["source"].to_pylist() == ["a", "b"] * (N // 2)
    assert table["origin"].to_pylist() == list(range(N))
    assert table["ratings/llama/overall"].to_pylist() == [None, *(i % 10 + 1 for i in range(1, N))]
    assert table["ratings/llama/status"].to_pylist() == ["unparsable"] + ["ok"] * (N - 1)
    assert table["ratings/gpt-4.1/overall"].to_pylist() == [5] * N
    assert table["curation/llama/score"].to_pylist() == [5 if i % 2 else i % 5 for i in range(N)]
    assert table["curation/combined/score"].to_pylist() == [None if i == 3 else 5 if i % 2 else i % 5 for i in range(N)]
    np.testing.assert_allclose(table["curation/llama/diversity"].to_numpy(), np.arange(N) / N, rtol=1e-6)
    assert table["scores/perplexity/score"].to_pylist() == [float(i) for i in range(N)]
    assert [i for i, rank in enumerate(table["selections/best/rank"].to_pylist()) if rank is not None] == [2, 7, 11]
    assert [table["selections/best/rank"][i].as_py() for i in (7, 2, 11)] == [0, 1, 2]
    assert [i for i, picked in enumerate(table["selections/random/picked"].to_pylist()) if picked] == [0, 2]
    assert "messages" not in table.column_names
    assert len(table.to_pandas()) == N


def test_texts_come_when_asked_for_and_for_chosen_samples_in_their_order(run: Path) -> None:
    ids = ids_of(run)
    assert tamis.load(run, messages=True)["messages"].to_pylist() == SAMPLES
    some = tamis.load(run, ids=[ids[i] for i in (9, 0, 9)], messages=True)
    assert some["messages"].to_pylist() == [SAMPLES[i] for i in (9, 0, 9)]
    assert some["origin"].to_pylist() == [9, 0, 9]
    assert some["curation/llama/raw_score"].to_pylist() == [4, 0, 4]
    assert tamis.load(run, ids=[]).num_rows == 0


def test_tables_of_several_parts_fit_together(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ids_of(run)
    short = PartsWriter.__init__.__defaults__
    monkeypatch.setattr(PartsWriter.__init__, "__defaults__", (3,))
    other = run.parent / "other"
    make_pool(other / "pool", SAMPLES, source=[str(i % 3) for i in range(N)])
    make_ratings(other / "ratings/r", "r", ids[::-1], [None if i % 4 else 3 for i in range(N)])
    monkeypatch.setattr(PartsWriter.__init__, "__defaults__", short)
    assert len(Artifact.open(other / "pool").parts()) == 7
    table = tamis.load(other, messages=True)
    assert table["source"].to_pylist() == [str(i % 3) for i in range(N)]
    assert table["ratings/r/status"].to_pylist() == ["unparsable" if i % 4 else "ok" for i in range(N)][::-1]
    assert table.to_pandas()["source"].value_counts()["0"] == 7
    some = tamis.load(other, ids=[ids[19], ids[1]], messages=True)
    assert some["messages"].to_pylist() == [SAMPLES[19], SAMPLES[1]]


def test_single_artifacts_are_tables_too(run: Path) -> None:
    assert "messages" not in tamis.load(run / "pool").column_names
    assert tamis.load(run / "pool", messages=True)["messages"].to_pylist() == SAMPLES
    assert tamis.load(str(run / "curation")).num_rows == 2 * N - 1
    assert tamis.load(run / "selections/best")["rank"].to_pylist() == [0, 1, 2]
    vectors = tamis.load(run / "embeddings")
    assert vectors["vector"].type == pa.list_(pa.float16(), 8)
    np.testing.assert_array_equal(
        vectors["vector"].combine_chunks().flatten().to_numpy().reshape(N, 8), np.load(run / "embeddings/vectors.npy")
    )


def refused(*arguments: Any, **more: Any) -> str:
    with pytest.raises(TamisError) as caught:
        tamis.load(*arguments, **more)
    return caught.value.code


def test_what_is_no_run_is_refused(run: Path) -> None:
    assert refused("nowhere") == ArtifactError.code
    assert refused("runs") == ArtifactError.code  # its pool would be found, and nothing of what lies deeper
    assert refused(run / "runs/other") == ArtifactError.code
    make("report", run / "report", lambda step: None)
    assert refused(run / "report") == ArtifactError.code
    assert refused(run / "curation", ids=ids_of(run)) == SettingsError.code
    assert refused(run, ids=["0" * 32]) == InputError.code
    assert refused(run, ids=["no id"]) == InputError.code


def test_artifacts_of_two_runs_are_not_put_side_by_side(run: Path) -> None:
    make_pool(run.parent / "pool", SAMPLES[:3])

    def write(step: Step[NoSettings]) -> None:
        with PartsWriter(step.out, SCORES) as parts:
            parts.write_rows([])

    inputs = {"pool": Input(run.parent / "pool", "pool")}
    run_step("test", "scores", NoSettings(), write, out=run / "scores/deita", inputs=inputs, name="deita")
    assert refused(run) == InputError.code


def test_two_artifacts_of_one_name_are_refused(run: Path) -> None:
    make_selection(run / "copies/best", SAMPLES[:1], name="best")
    assert refused(run) == InputError.code


def test_importing_tamis_loads_nothing_that_takes_time() -> None:
    code = "import sys, tamis; assert not {'numpy', 'pyarrow', 'pydantic', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def documented() -> str:
    return (ROOT / "docs/notebooks.md").read_text()


def test_the_columns_are_those_that_the_docs_list(run: Path) -> None:
    listed: dict[str, str] = {}
    for names, kind in re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|", documented(), re.MULTILINE):
        first, *others = re.findall(r"`([^`]*)`", names)
        folder = first.rpartition("/")[0]
        listed |= dict.fromkeys([first, *(name.replace("…", folder) for name in others)], kind)
    kinds = {"string": pa.string(), "bool": pa.bool_(), "int8": pa.int8(), "int64": pa.int64(), "float": pa.float32()}
    kinds |= {"double": pa.float64(), "dictionary of strings": pa.dictionary(pa.int32(), pa.string())}
    schema = tamis.load(run, messages=True).schema
    assert str(schema.field("messages").type).startswith("list<")
    seen = {
        re.sub(
            r"^(ratings|curation)/[^/]*", r"\1/RATER", re.sub(r"^scores/[^/]*", "scores/NAME", field.name)
        ): field.type
        for field in schema
        if field.name != "messages"
    }
    seen = {re.sub(r"^selections/[^/]*", "selections/SUBSET", name): kind for name, kind in seen.items()}
    assert listed.pop("messages") == "list of {role, content}"
    assert {name: kinds[kind] for name, kind in listed.items()} == seen
    assert tamis.load.__doc__ is not None
    assert all(name.rpartition("/")[2] in tamis.load.__doc__ for name in seen)


def test_the_code_of_the_docs_runs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", documented(), re.DOTALL):
        exec(block, there)
    assert there["shared"] == 1
    assert len(there["raised"]) == 2
    assert there["by_source"].to_dict() == pytest.approx({"a": 0.1, "b": 0.2})
    assert capsys.readouterr().out.splitlines() == ["0 What is 7?", "1 What is 2?", "2 What is 11?"]
    assert there["similar"][0] == pytest.approx(1, abs=1e-2)
