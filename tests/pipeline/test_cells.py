"""An experiment in which cells fail: the others are there, and the report says why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tamis.core.artifacts import Artifact
from tamis_pipelines.plan import plan
from tamis_pipelines.settings import load_run
from tests.pipeline.conftest import tamis, write

ROOT = Path(__file__).parents[2]


@pytest.fixture
def experiment(continued_run: dict[str, Any], tiny: Path, tmp_path: Path) -> Path:
    """Settings of two subsets, of which `length` takes what cannot be trained on."""
    settings = continued_run
    settings["subsets"] = [{"name": "endless", "strategy": "length", "size": 2}]
    settings["experiment"] = {"strategies": ["random"], "sizes": [10], "seeds": [1]}
    settings["finetuning"] = {"model": str(tiny), "max_tokens": 128, "epochs": 1, "learning_rate": 0.01}
    settings["evaluation"] = {"model": str(tiny), "suite": str(ROOT / "components/tamis/demo/suite.yaml"), "limit": 2}
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "What is copper?"}\n{"prompt": "Name a river."}\n')
    settings["judging"] = {
        "prompts": [{"name": "two", "path": str(prompts)}],
        "against": {"kind": "model", "name": "untrained", "model": str(tiny)},
        "answers": {"max_new_tokens": 40},
        "judge": {"backend": {"kind": "transformers", "model": str(tiny)}},
    }
    return write(tmp_path, settings)


@pytest.mark.timeout(660)
def test_a_failed_cell_leaves_the_others(experiment: Path) -> None:
    work = experiment.parent / "work"
    ended = tamis("run", experiment, timeout=600)

    assert ended.returncode == 1, ended.stderr
    assert "error: 1 of the results could not be made" in ended.stderr
    assert "model of 'endless-s1': " in ended.stderr
    assert [path.name for path in (work / "models").iterdir()] == ["random-10-s1"]
    assert sorted(path.name for path in (work / "evaluations").iterdir()) == ["base", "random-10-s1"]
    assert [path.name for path in (work / "judgements").iterdir()] == ["random-10-s1"]
    shared = {"pool", "embedding", "neighbors", "rating", "curation"}  # finished before, as after a kill
    assert not shared & set(re.findall(r"tamis\.core\.steps (\w+): done", ended.stderr))
    said = (work / "report/results.md").read_text()
    assert re.search(r"\| endless-s1 \| [^|]*token[^|]* \| model \| length \| 1 \|", said), said
    assert re.search(r"\| length \| .* \| 0 of 1 \| failed \| failed \| failed \|", said), said
    assert re.search(r"\| random-10-s1 \| untrained \| 2 \| ", said), said
    Artifact.open(work / "report", "report").verify()
    lines = {line.step: (line.done, line.of) for line in plan(load_run(experiment)).lines}
    cells = {"finetune": (1, 2), "evaluate": (2, 3), "judge": (1, 2), "answer prompts": (2, 3), "select": (2, 2)}
    assert {step: lines[step] for step in cells} == cells, "a plan finds what is finished, and what has failed to do"
    first = ("pool", "rate by imported", "embed", "neighbors", "curate")
    assert {lines[step] for step in first} == {(1, 1)}


def test_a_subset_that_cannot_be_made_leaves_the_others(continued_run: dict[str, Any], tmp_path: Path) -> None:
    sizes = {"all": 99, "few": 5}
    continued_run["subsets"] = [{"name": name, "strategy": "random", "size": size} for name, size in sizes.items()]
    ended = tamis("run", write(tmp_path, continued_run), "--force")  # else `tamis doctor` says so beforehand
    assert ended.returncode == 1, ended.stderr
    assert "error: 1 of the results could not be made" in ended.stderr
    assert "selection of 'all': " in ended.stderr
    assert [path.name for path in (tmp_path / "work/selections").iterdir()] == ["few"]
    assert re.search(r"\| all \| .* \| selection \| random \| 42 \|", (tmp_path / "work/report/results.md").read_text())


def test_scores_that_cannot_be_made_leave_the_subsets_that_do_without(
    continued_run: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    subsets = {"clear": "perplexity", "some": "random", "long": "length"}
    continued_run["subsets"] = [{"name": name, "strategy": kind, "size": 5} for name, kind in subsets.items()]
    # Two questions are longer than what a sample may have: 5 % of the samples.
    continued_run["perplexity"] = {"measure": {"model": str(tiny), "format": "tulu"}, "max_tokens": 128}
    continued_run["perplexity"]["max_left_out_share"] = 0.01
    ended = tamis("run", write(tmp_path, continued_run))
    assert ended.returncode == 1, ended.stderr
    assert "error: 1 of the results could not be made" in ended.stderr
    assert re.search(
        r"selection of 'clear': the scores 'perplexity' could not be made: .*2 of 42 samples", ended.stderr
    )
    assert sorted(path.name for path in (tmp_path / "work/selections").iterdir()) == ["long", "some"]
    said = (tmp_path / "work/report/results.md").read_text()
    assert re.search(r"\| clear \| .*perplexity.* \| selection \| perplexity \| ", said), said
