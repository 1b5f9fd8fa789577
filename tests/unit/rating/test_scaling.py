"""Raters that are asked on a scale of their own prompt: their scores come to 1 to 10, and the form holds them to it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import ModelError, SettingsError
from tamis.core.scales import Scale
from tamis.core.settings import parse
from tamis.llm.backend import Answer
from tamis.llm.backends.logprobs import key_probabilities
from tamis.llm.backends.skeleton import Skeleton
from tamis.rating import prompts
from tamis.rating.prompts import load_prompt
from tamis.rating.records import rating_of
from tamis.rating.scaling import question_lower_half
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run
from tests.artifacts import conversation, make_pool
from tests.llm_server import Reaction, Server, completion
from tests.paper_prompt import KEYS, on

FIVE, HUNDRED = Scale(lowest=1, highest=5), Scale(lowest=0, highest=100)


def prompt_on(folder: Path, scale: str) -> str:
    text = (Path(prompts.__file__).parent / "ds2-v1.yaml").read_text()
    path = folder / f"prompt{len(list(folder.iterdir()))}.yaml"
    path.write_text(f"{text}scale: {scale}\n")
    return str(path)


def answer(value: int, shares: tuple[float, ...] | None = None) -> Answer:
    return Answer("a" * 32, text=json.dumps(dict.fromkeys(KEYS, value)), probabilities=shares and (shares,))


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
    rating = rating_of(answer(value), 1, criteria=on(scale))
    assert (rating.status, rating.overall, rating.rarity) == ("ok", kept, kept)


@pytest.mark.parametrize(("scale", "value"), [(FIVE, 0), (FIVE, 6), (HUNDRED, 101), (Scale(), 11)])
def test_scores_outside_the_scale_are_no_scores(scale: Scale, value: int) -> None:
    rating = rating_of(answer(value), 1, criteria=on(scale))
    assert (rating.status, rating.overall) == ("unparsable", None)


def test_the_mean_of_the_probabilities_is_on_the_same_scale() -> None:
    assert rating_of(answer(5, (0, 0, 0, 0.5, 0.5)), 1, criteria=on(FIVE)).expected == pytest.approx(8.875)
    assert rating_of(answer(50, (1.0,) * 101), 1, criteria=on(HUNDRED)).expected is None


def test_the_prompt_declares_its_scale(tmp_path: Path) -> None:
    shipped = load_prompt("ds2-v1")
    five = load_prompt(prompt_on(tmp_path, "{lowest: 1, highest: 5}"))
    assert (five.form.numbers[-1].low, five.form.numbers[-1].high, shipped.form.numbers[-1].high) == (1, 5, 10)
    assert five.hash != shipped.hash
    assert load_prompt(prompt_on(tmp_path, "{lowest: 1, highest: 10}")).hash == shipped.hash
    for wrong, why in (
        ("{lowest: 0, highest: 1.5}", "step: 0.1"),
        ("{lowest: 0, highest: 1}", "step: 0.1"),  # 0 and 1 alone, or fractions?
        ("{lowest: -1, highest: 1}", "from 0 to 100"),
        ("{lowest: 1, highest: 1000}", "from 0 to 100"),
        ("{lowest: 0, highest: 1, step: 0.3}", "steps of 0.3"),
        ("{lowest: 0, highest: 10, step: 0.01}", "1001 scores"),
        ("{lowest: 0, highest: 0.1, step: 0.001}", "3 decimals"),
    ):
        with pytest.raises(SettingsError) as error:
            load_prompt(prompt_on(tmp_path, wrong))
        assert why in str(error.value)


TENTHS, QUARTERS = Scale(lowest=0, highest=1, step=0.1), Scale(lowest=1, highest=5, step=0.25)


@pytest.mark.parametrize(
    ("scale", "said", "kept"),
    [
        *((TENTHS, f"{n / 10}", kept) for n, kept in enumerate((1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10))),
        (TENTHS, "0.50", 6),  # 5.5 of 1..10, rounded half up
        (TENTHS, "1", 10),
        (TENTHS, '" 0.7 "', 7),
        (QUARTERS, "1.25", 2),
        (QUARTERS, "3", 6),
        (Scale(lowest=0, highest=100, step=10), "50", 6),
    ],
)
def test_scores_with_decimals_are_read_by_their_digits(scale: Scale, said: str, kept: int) -> None:
    text = "{" + ", ".join(f'"{key}": {said}' for key in KEYS) + "}"
    rating = rating_of(Answer("a" * 32, text=text), 1, criteria=on(scale))
    assert (rating.status, rating.overall, rating.rarity) == ("ok", kept, kept)
    value = float(json.loads(said))
    assert kept == scale.rating(value)  # as of an imported score


@pytest.mark.parametrize(
    ("scale", "said", "kind"),
    [
        (TENTHS, "0.75", "not on the scale"),
        (TENTHS, "0.30000000000000004", "not on the scale"),
        (TENTHS, "1.1", "out of range"),
        (TENTHS, "7", "out of range"),
        (TENTHS, "1e400", "not a number"),
        (TENTHS, "true", "not a number"),
        (TENTHS, '"7/10"', "not a number"),
        (QUARTERS, "1.1", "not on the scale"),
        (Scale(lowest=0, highest=100, step=10), "55", "not on the scale"),
    ],
)
def test_what_is_between_the_scores_of_a_scale_is_none(scale: Scale, said: str, kind: str) -> None:
    text = "{" + ", ".join(f'"{key}": {said}' for key in KEYS) + "}"
    rating = rating_of(Answer("a" * 32, text=text), 1, criteria=on(scale))
    assert (rating.status, (rating.error or "").partition(":")[0]) == ("unparsable", kind)


def test_the_form_of_a_scale_with_decimals_is_written_and_described_as_it_is_read() -> None:
    form = on(TENTHS).form
    assert (
        form.write([0, 7, 10, 5]) == '{"Rarity": 0.0, "Complexity": 0.7, "Informativeness": 1.0, "Overall rating": 0.5}'
    )
    assert form.read(form.write([0, 7, 10, 5])) == ((0, 7, 10, 5), (), None)
    assert form.schema["properties"][KEYS[0]] == {"type": "number", "enum": [n / 10 for n in range(11)]}


def test_the_mean_of_decimals_is_known_only_where_one_token_tells_them_apart() -> None:
    """A tokenizer of characters: 0.0 to 0.9 differ in one, 1.0 in another place."""
    below = Scale(lowest=0, highest=0.9, step=0.1)

    def characters(text: str) -> list[int]:
        return [ord(one) for one in text]

    skeleton = Skeleton(characters, on(below).form)
    assert {slot.ahead for slot in skeleton.slots} == {()}
    assert skeleton.tokens([0, 3, 9, 5]) == characters(on(below).form.write([0, 3, 9, 5]))
    with pytest.raises(ModelError) as error:
        Skeleton(characters, on(TENTHS).form)
    assert "structured: false" in error.value.action
    shares = (0.0,) * 8 + (0.5, 0.5)
    assert rating_of(
        Answer("a" * 32, text=on(below).form.write([9] * 4), probabilities=(shares,)), 1, criteria=on(below)
    ).expected
    answer = on(TENTHS).form.write([7] * 4)
    tokens = [{"token": one, "logprob": -0.1, "top_logprobs": []} for one in answer]
    assert key_probabilities(on(TENTHS).form, answer, tokens) is None


@pytest.mark.parametrize(
    ("scale", "ratings"),
    [
        (Scale(), tuple(range(1, 11))),
        (FIVE, tuple(range(1, 11))),  # nothing is said of its steps
        (FIVE.in_steps_of(1), (1, 3, 6, 8, 10)),
        (Scale(lowest=0, highest=1, step=0.5), (1, 6, 10)),
        (Scale(lowest=0.5, highest=2).in_steps_of(1), tuple(range(1, 11))),  # such steps do not lead to its end
    ],
)
def test_which_ratings_a_scale_comes_to(scale: Scale, ratings: tuple[int, ...]) -> None:
    assert scale.ratings() == ratings


@pytest.mark.parametrize("logprobs", [True, False])
def test_a_service_is_asked_for_tenths(logprobs: bool, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    pool = make_pool(tmp_path / "pool", [conversation(f"What is {n}?", f"{n}.") for n in range(4)])
    prompt = prompt_on(tmp_path, "{lowest: 0, highest: 1, step: 0.1}")
    text = "{" + ", ".join(f'"{key}": 0.7' for key in KEYS) + "}"
    said = {"logprobs": [{"token": one, "logprob": -0.1, "top_logprobs": []} for one in text]} if logprobs else {}
    with Server(lambda _: Reaction(completion(text, **said))) as server:
        backend = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None}
        settings = parse(RatingSettings, {"name": "mini", "prompt": prompt, "backend": backend}, where="test")
        facts = run(settings, pool=pool, out=tmp_path / "out").facts
    assert (facts["ok"], facts["overall_mean"], facts["scale"]) == (4, 7, "0 to 1 by 0.1")
    assert facts["possible_ratings"] == list(range(1, 11))
    assert "expected_mean" not in facts


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
