"""Raters that are asked on a scale of their own prompt: their scores come to 1 to 10, and the form holds them to it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import ModelError, SettingsError
from tamis.core.llm.backend import Answer
from tamis.core.scales import Scale
from tamis.core.settings import parse
from tamis.rating import prompts
from tamis.rating.parsing import KEYS
from tamis.rating.prompts import load_prompt
from tamis.rating.records import rating_of
from tamis.rating.scaling import question_lower_half
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run
from tests.artifacts import conversation, make_pool
from tests.llm_server import Reaction, Server, completion

FIVE, HUNDRED = Scale(lowest=1, highest=5), Scale(lowest=0, highest=100)


def prompt_on(folder: Path, scale: str) -> str:
    text = (Path(prompts.__file__).parent / "ds2-v1.yaml").read_text()
    path = folder / f"prompt{len(list(folder.iterdir()))}.yaml"
    path.write_text(f"{text}scale: {scale}\n")
    return str(path)


def answer(value: int, probabilities: tuple[float, ...] | None = None) -> Answer:
    return Answer("a" * 32, text=json.dumps(dict.fromkeys(KEYS, value)), probabilities=probabilities)


@pytest.mark.parametrize(
    ("scale", "value", "kept"),
    [
        *((FIVE, value, kept) for value, kept in zip(range(1, 6), (1, 3, 6, 8, 10), strict=True)),
        *((HUNDRED, value, kept) for value, kept in ((0, 1), (50, 6), (100, 10))),
        (Scale(), 7, 7),
        (Scale(lowest=1, highest=2), 2, 10),
    ],
)
def test_scores_are_stretched(scale: Scale, value: int, kept: int) -> None:
    rating = rating_of(answer(value), 1, scale=scale)
    assert (rating.status, rating.overall, rating.rarity) == ("ok", kept, kept)


@pytest.mark.parametrize(("scale", "value"), [(FIVE, 0), (FIVE, 6), (HUNDRED, 101), (Scale(), 11)])
def test_scores_outside_the_scale_are_no_scores(scale: Scale, value: int) -> None:
    rating = rating_of(answer(value), 1, scale=scale)
    assert (rating.status, rating.overall) == ("unparsable", None)


def test_the_mean_of_the_probabilities_is_on_the_same_scale() -> None:
    assert rating_of(answer(5, (0, 0, 0, 0.5, 0.5)), 1, scale=FIVE).expected == pytest.approx(8.875)
    assert rating_of(answer(50, (1.0,) * 101), 1, scale=HUNDRED).expected is None


def test_the_prompt_declares_its_scale(tmp_path: Path) -> None:
    shipped = load_prompt("ds2-v1")
    five = load_prompt(prompt_on(tmp_path, "{lowest: 1, highest: 5}"))
    assert (five.form.low, five.form.high, shipped.form.high) == (1, 5, 10)
    assert five.hash != shipped.hash
    assert load_prompt(prompt_on(tmp_path, "{lowest: 1, highest: 10}")).hash == shipped.hash
    for wrong in ("{lowest: 0, highest: 1.5}", "{lowest: -1, highest: 1}", "{lowest: 1, highest: 1000}"):
        with pytest.raises(SettingsError):
            load_prompt(prompt_on(tmp_path, wrong))


def test_a_service_is_held_to_the_scale_and_its_scores_are_kept_on_1_to_10(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openai")
    pool = make_pool(tmp_path / "pool", [conversation(f"What is {n}?", f"{n}.") for n in range(40)])
    prompt = prompt_on(tmp_path, "{lowest: 1, highest: 5}")

    def rated(out: str, value: int) -> Artifact:
        text = json.dumps(dict.fromkeys(KEYS, value))
        with Server(lambda _: Reaction(completion(text))) as server:
            backend = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None}
            settings = parse(RatingSettings, {"name": "mini", "prompt": prompt, "backend": backend}, where="test")
            run(settings, pool=pool, out=tmp_path / out)
        schema = server.asked[0].body["response_format"]["json_schema"]["schema"]
        assert schema["properties"][KEYS[-1]]["enum"] == [1, 2, 3, 4, 5]
        return Artifact.open(tmp_path / out, "ratings")

    high = rated("high", 4)
    assert (high.manifest.facts["scale"], high.manifest.facts["overall_mean"]) == ("1 to 5", 8)
    assert set(high.table()["overall"].to_pylist()) == {8}
    assert not [record for record in caplog.records if record.name == "tamis.rating.scaling"]
    rated("low", 2)
    assert [record.args[1:3] for record in caplog.records if record.name == "tamis.rating.scaling"] == [(3, FIVE)]


@pytest.mark.parametrize(
    ("histogram", "questioned"),
    [({"1": 20, "5": 10}, True), ({"1": 20, "5": 9}, False), ({"1": 29, "6": 1}, False), ({}, False)],
)
def test_many_scores_of_the_lower_half_are_questioned(
    histogram: dict[str, int], questioned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        question_lower_half("r", histogram, Scale())
    assert len(caplog.records) == questioned


@pytest.mark.slow
def test_a_real_model_answers_on_the_scale(models: Path, tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", [conversation("Name a metal.", "Copper."), conversation("Hi", "Hello!")])

    def rated(scale: str) -> int:
        backend = {"kind": "transformers", "model": str(models / "smollm2")}
        settings = {"name": "small", "prompt": prompt_on(tmp_path, scale), "backend": backend}
        manifest = run(parse(RatingSettings, settings, where="test"), pool=pool, out=tmp_path / "out")
        found: int = manifest.facts["ok"]
        return found

    with pytest.raises(ModelError) as error:  # its tokens are digits
        rated("{lowest: 0, highest: 100}")
    assert "structured: false" in error.value.action
    assert rated("{lowest: 1, highest: 5}") == 2
