"""What a setting refers to is a part of the step's key by its content: a changed file is not taken for the old one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from tamis.core.outlook import LookedAtError, only_looking
from tamis.core.references import references_of, walk
from tamis.core.settings import StageSettings, all_fields, models_in, parse
from tamis.curation import stage as curation
from tamis.curation.settings import CurationSettings
from tamis.embedding import stage as embedding
from tamis.embedding.settings import EmbeddingSettings
from tamis.evaluation import stage as evaluation
from tamis.evaluation.settings import EvaluationSettings
from tamis.finetuning import stage as finetuning
from tamis.finetuning.settings import FinetuningSettings
from tamis.influence import stage as influence
from tamis.influence.settings import InfluenceSettings
from tamis.judging import stage as judging
from tamis.judging.settings import JudgingSettings
from tamis.pool import stage as pool
from tamis.pool.settings import PoolSettings
from tamis.rating import stage as rating
from tamis.rating.settings import RatingSettings
from tamis.scoring import stage as scoring
from tamis.scoring.settings import ScoringSettings
from tamis.selection import stage as selection
from tamis.selection.settings import SelectionSettings
from tests.artifacts import conversation, make_curation, make_neighbors, make_pool, make_ratings, make_selection
from tests.conftest import ROOT

SAMPLES = [conversation(f"{number}?", "So.") for number in range(4)]
_HERE = {"store", "work"}  # what is written is no part of a result
_INPUTS = {"ArtifactContestant.path"}  # an artifact, whose content hash is that of an input
SERVICE = {"kind": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1", "api_key_env": None}

Case = tuple[type[StageSettings], dict[str, Any], Callable[..., object], dict[str, str]]
# Settings with names of files and folders that `files` makes, the stage, and its inputs among those of `artifacts`.
CASES: dict[str, Case] = {
    "pool": (
        PoolSettings,
        {"sources": [{"name": "a", "path": "rows.jsonl"}, {"name": "b", "dataset": "set"}]},
        pool.run,
        {},
    ),
    "rating": (
        RatingSettings,
        {
            "name": "r",
            "backend": {"kind": "transformers", "model": "model"},
            "prompt": "prompt.yaml",
            "sample": 0.5,
            "also": ["ids.txt"],
        },
        rating.run,
        {"pool": "pool"},
    ),
    "rating by vLLM": (
        RatingSettings,
        {"name": "r", "backend": {"kind": "vllm", "model": "model"}},
        rating.run,
        {"pool": "pool"},
    ),
    "rating by a service": (
        RatingSettings,
        {"name": "r", "backend": SERVICE | {"tokenizer": "model"}},
        rating.run,
        {"pool": "pool"},
    ),
    "imported": (
        RatingSettings,
        {"name": "r", "backend": {"kind": "import", "path": "rows.jsonl", "by": "row"}},
        rating.run,
        {"pool": "pool"},
    ),
    "embedding": (EmbeddingSettings, {"model": "model"}, embedding.run, {"pool": "pool"}),
    "curation": (
        CurationSettings,
        {"grades": {"path": ["rows.jsonl"]}},
        curation.run,
        {"ratings": "ratings", "neighbors": "neighbors"},
    ),
    "perplexity": (
        ScoringSettings,
        {"measure": {"kind": "perplexity", "model": "model"}},
        scoring.run,
        {"pool": "pool"},
    ),
    "deita": (
        ScoringSettings,
        {"measure": {"kind": "deita", "complexity_model": "model", "quality_model": "other"}},
        scoring.run,
        {"pool": "pool"},
    ),
    "influence": (
        InfluenceSettings,
        {"model": "model", "tasks": [{"name": "t", "path": "rows.jsonl"}]},
        influence.run,
        {"pool": "pool"},
    ),
    "selection": (
        SelectionSettings,
        {"name": "s", "strategy": "random", "size": 2, "exclude": ["ids.txt"]},
        selection.run,
        {"pool": "pool", "curation": "curation"},
    ),
    "finetuning": (
        FinetuningSettings,
        {"model": "model", "deepspeed": "zero.yaml"},
        finetuning.run,
        {"selection": "selection"},
    ),
    "evaluation": (
        EvaluationSettings,
        {"model": "model", "suite": "suite.yaml", "data_dir": "set"},
        evaluation.run,
        {},
    ),
    "judging": (
        JudgingSettings,
        {
            "prompts": [{"name": "file", "path": "rows.jsonl"}, {"name": "folder", "dataset": "set"}],
            "model": {"kind": "model", "model": "model"},
            "against": {"kind": "answers", "name": "theirs", "path": "answers.jsonl"},
            "judge": {"backend": SERVICE | {"tokenizer": "other"}, "prompt": "judge.yaml"},
        },
        judging.run,
        {},
    ),
    "judging by a model": (
        JudgingSettings,
        {
            "prompts": [{"name": "file", "path": "rows.jsonl"}],
            "model": {"kind": "model", "model": "model"},
            "against": {"kind": "model", "name": "theirs", "model": "other"},
            "judge": {"backend": {"kind": "transformers", "model": "third"}},
        },
        judging.run,
        {},
    ),
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with everything that the settings of `CASES` name."""
    monkeypatch.delenv("TAMIS_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    rooms = ROOT / "components/tamis"
    for name in ("model", "other", "third", "set"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"name": name}))
    (tmp_path / "set" / "rows.jsonl").write_text('{"prompt": "Who?", "completion": "I."}\n')
    for name in ("rows.jsonl", "answers.jsonl"):
        (tmp_path / name).write_text('{"prompt": "Who?", "completion": "I.", "answer": "I."}\n')
    (tmp_path / "ids.txt").write_text("0" * 32 + "\n")
    shutil.copy(rooms / "rating/prompts/ds2-v1.yaml", tmp_path / "prompt.yaml")
    shutil.copy(rooms / "judging/prompts/scores-v1.yaml", tmp_path / "judge.yaml")
    shutil.copy(rooms / "finetuning/deepspeed/zero2.yaml", tmp_path / "zero.yaml")
    shutil.copy(rooms / "evaluation/suites/quick.yaml", tmp_path / "suite.yaml")
    ids = [f"{number:032x}" for number in range(4)]
    made = tmp_path / "artifacts"
    make_pool(made / "pool", SAMPLES)
    make_ratings(made / "ratings", "r", ids, [5, 6, 7, 8])
    make_neighbors(made / "neighbors", ids, np.zeros((4, 2)), np.ones((4, 2)))
    make_curation(made / "curation", [{"id": one} for one in ids])
    make_selection(made / "selection", SAMPLES)
    return tmp_path


def key_of(files: Path, case: Case) -> str:
    model, values, run, inputs = case
    given: dict[str, Any] = {name: files / "artifacts" / place for name, place in inputs.items()}
    if "ratings" in given:
        given["ratings"] = [given["ratings"]]
    with only_looking(), pytest.raises(LookedAtError) as looked:
        run(parse(model, values, where="case"), **given, out=files / "out")
    return looked.value.outlook.key


def change(place: Path) -> None:
    """Other content, which can still be read: of what Tamis versions the version, as a comment would not count."""
    file = place / "config.json" if place.is_dir() else place
    text = file.read_text()
    file.write_text(text.replace("version: 1", "version: 2") if "version: 1" in text else text + "\n")


@pytest.mark.parametrize("case", CASES)
def test_other_content_makes_another_key(case: str, files: Path) -> None:
    model, values, *_ = CASES[case]
    fields = [field for field in walk(parse(model, values, where=case)) if field.reference and field.value is not None]
    named = [Path(str(field.value)) for field in fields if field.reference and field.reference.to not in _HERE]
    places = [place for place in named if place.exists()]  # others are names of what ships with Tamis
    assert places
    keys = [key_of(files, CASES[case])]
    assert key_of(files, CASES[case]) == keys[0]
    for place in places:
        change(place)
        keys.append(key_of(files, CASES[case]))
        assert keys[-1] != keys[-2], place


def test_every_setting_that_refers_to_content_is_in_a_case_above() -> None:
    typed, tried = set[str](), set[str]()
    for model, values, *_ in CASES.values():
        typed |= {name for one in models_below(model, set()) for name in referring(one)}
        for field in walk(parse(model, values, where="case")):
            if field.reference is not None and field.value is not None:
                (*_, name) = (word for word in field.where.split(".") if not word.isdecimal())
                tried.add(f"{type(field.owner).__name__}.{name}")
    assert typed - tried == _INPUTS | {"OpenAIBatchSettings.tokenizer"}  # read as OpenAISettings' is


def referring(model: type[BaseModel]) -> set[str]:
    found = references_of(model).items()
    return {f"{model.__name__}.{name}" for name, reference in found if reference.to not in _HERE}


def models_below(model: type[BaseModel], seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    if model not in seen:
        seen.add(model)
        for field in all_fields(model).values():
            for inner in (*vars(model).get("VARIANTS", ()), *models_in(field.annotation)):
                models_below(inner, seen)
    return seen
