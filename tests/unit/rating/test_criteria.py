"""Prompts with criteria, scales and a rationale of one's own: what is asked, read, stored and passed on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from tamis.core.artifacts import Artifact
from tamis.core.errors import SettingsError, UnparsableError
from tamis.core.settings import parse
from tamis.llm.backend import Answer, Request
from tamis.llm.backends.sampling import Sampling
from tamis.llm.backends.transformers import TransformersBackend, TransformersSettings
from tamis.rating.merging import run as merge
from tamis.rating.prompts import Prompt, load_prompt
from tamis.rating.records import rating_of
from tamis.rating.settings import MergeSettings, RatingSettings
from tamis.rating.stage import run
from tests.artifacts import conversation, make_pool
from tests.llm_server import Reaction, Server, completion

OWN: dict[str, Any] = {
    "version": 1,
    "description": "facts",
    "scale": {"lowest": 1, "highest": 5},
    "criteria": {
        "Factual correctness": "whether it is true",
        "Brevity": {"meaning": "how short it is", "scale": {"lowest": 0, "highest": 1, "step": 0.5}},
    },
    "score": "Factual correctness",
    "rationale": {"max_tokens": 16, "max_characters": 40},
    "template": "Judge.\n{criteria}\nReply: {format}\nSample:\n{sample}\nScores:",
    "marker": "[...]",
}
SAID = '{"Rationale": "Copper is a metal.", "Factual correctness": 4, "Brevity": 0.5}'


def prompt(**values: Any) -> Prompt:
    return Prompt.model_validate(OWN | values)


def written(folder: Path, **values: Any) -> str:
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump(OWN | values, sort_keys=False))
    return str(file)


def read(text: str, **values: Any) -> Any:
    return rating_of(Answer("a" * 32, text), 1, criteria=prompt(**values).scores)


def test_the_prompt_shows_names_and_scales() -> None:
    before = prompt().before
    assert "- Factual correctness: whether it is true\n- Brevity: how short it is\n" in before
    assert '{"Rationale": "...", "Factual correctness": <1-5>, "Brevity": <0-1, 0.5>}' in before


def test_scores_stay_as_given_and_the_overall_rating_is_mapped() -> None:
    rating = read(SAID)
    assert (rating.factual_correctness, rating.brevity, rating.overall) == (4, 0.5, 8)
    assert (rating.status, rating.rationale, rating.lenient) == ("ok", "Copper is a metal.", None)


def test_the_score_may_be_a_weighted_mean() -> None:
    # 4 of 1..5 is 7.75 of 1..10, 0.5 of 0..1 is 5.5: (3 x 7.75 + 5.5) / 4 = 7.19
    weights = {"Factual correctness": 3, "Brevity": 1}
    assert read(SAID, score=weights).overall == 7
    scores = prompt(score=weights).scores
    assert scores.expected([[0, 0, 0, 1, 0], [0, 1, 0]]) == pytest.approx(7.1875)
    assert set(scores.possible) <= set(range(1, 11))
    assert str(scores.scale) == "1 to 10"


def test_the_expected_score_is_that_of_the_score() -> None:
    assert prompt().form.told == (0,)
    assert prompt().scores.expected([[0, 0, 0, 0.5, 0.5]]) == pytest.approx(8.875)


@pytest.mark.parametrize(
    ("text", "leniency", "rationale"),
    [
        ('{"Factual correctness": 4, "Brevity": 0.5}', "no text", None),
        ('{"Factual correctness": 4, "Brevity": 0.5, "rationale": "So."}', "text after numbers", "So."),
        (SAID.replace("Copper", "Copper " * 20), "long text", ("Copper " * 20)[:40]),
        (SAID.replace('"Copper is a metal."', "7"), "no text", None),
    ],
)
def test_an_answer_with_another_rationale_is_accepted_and_counted(
    text: str, leniency: str, rationale: str | None
) -> None:
    rating = read(text)
    assert (rating.overall, rating.lenient, rating.rationale) == (8, leniency, rationale)


@pytest.mark.parametrize(
    "text", [SAID.replace("4,", "6,"), SAID.replace("0.5", "0.7"), SAID.replace("4,", "4.5,"), '{"Brevity": 1}']
)
def test_each_criterion_is_held_to_its_own_scale(text: str) -> None:
    with pytest.raises(UnparsableError):
        prompt().scores.read(text)


def test_the_json_schema_has_the_rationale_first_and_each_scale() -> None:
    schema = prompt().form.schema
    assert list(schema["properties"]) == ["Rationale", "Factual correctness", "Brevity"]
    assert schema["properties"]["Rationale"] == {"type": "string", "maxLength": 40}
    assert schema["properties"]["Factual correctness"]["enum"] == [1, 2, 3, 4, 5]
    assert schema["properties"]["Brevity"]["enum"] == [0, 0.5, 1]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"score": None}, "which criterion is the score"),
        ({"score": "Truth"}, "not a criterion"),
        ({"score": {"Brevity": 0}}, "above 0"),
        ({"criteria": {"Status": "s"}, "score": "Status"}, "taken"),
        ({"criteria": {"A b": "s", "a-b": "t"}, "score": "A b"}, "same column"),
        ({"criteria": {"7": "s"}, "score": "7"}, "begin with a letter"),
        ({"rationale": {"key": "brevity"}}, "key of a criterion"),
        ({"scale": {"lowest": 0, "highest": 1.5}}, "step: 0.1"),
        ({"template": "{criteria} {sample} {format}"}, "after"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused(values: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        load_prompt(written(tmp_path, **values))
    assert why in str(error.value)


def test_what_changes_ratings_changes_the_hash_and_nothing_else_does() -> None:
    assert prompt(description="other").hash == prompt().hash
    assert prompt(rationale={"max_tokens": 16, "max_characters": 40, "keep": False}).hash == prompt().hash
    changed = [{"score": "Brevity"}, {"scale": {"lowest": 1, "highest": 7}}, {"rationale": {"max_tokens": 17}}]
    assert len({prompt(**values).hash for values in [{}, *changed]}) == 4


def test_the_papers_prompt_keeps_its_hash_and_its_columns() -> None:
    shipped = load_prompt("ds2-v1")
    assert shipped.hash == "5b78c6862e77dd6e7ce26f4965b9760190bc7dc53e616a37756f677cf308c550"
    assert [field.name for field in shipped.scores.fields] == ["rarity", "complexity", "informativeness"]


@pytest.mark.parametrize("name", ["code-v1", "reasoning-v1", "tool-use-v1", "multilingual-chat-v1"])
def test_shipped_prompts_read_the_answers_that_they_ask_for(name: str) -> None:
    scores = load_prompt(name).scores
    read = scores.read(scores.form.write([5] * len(scores.criteria), "No fault."))
    assert (read.overall, read.rationale, read.leniencies) == (10, "No fault.", ())


def test_a_local_model_writes_a_rationale_within_its_bounds_before_it_scores(models: Path) -> None:
    steps = {"meaning": "how short it is", "scale": {"lowest": 1, "highest": 3}}
    asked = prompt(criteria=OWN["criteria"] | {"Brevity": steps})
    settings = TransformersSettings(model=str(models / "smollm2"))
    texts = ["### user: Name a metal.\n### assistant: Copper.", "### user: Hi\n### assistant: Hello! " + "So. " * 30]
    requests = [Request(f"{number:032x}", text) for number, text in enumerate(texts)]
    for sampling in (Sampling(), Sampling(temperature=1.5)):
        backend = TransformersBackend(settings, asked, sampling)
        answers = [answer for group in backend.answer(iter([requests])) for answer in group]
        assert len(answers) == len(texts)
        for answer in answers:
            found = asked.scores.read(answer.text)
            assert found.leniencies in ((), ("no text",))
            assert len(found.rationale or "") <= 40
            assert "\\" not in answer.text
            assert 1 <= found.scores["factual_correctness"] <= 5
            (shares,) = answer.probabilities or ()
            assert sum(shares) == pytest.approx(1)
    alone = [one for group in backend.answer(iter([requests[:1]])) for one in group]
    assert alone[0].text == next(answer for answer in answers if answer.id == requests[0].id).text


@pytest.mark.parametrize("keep", [True, False])
def test_a_service_rates_by_own_criteria_and_its_answers_are_reused(keep: bool, tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", [conversation(f"q{n}", f"a{n}") for n in range(20)])
    file = written(tmp_path, rationale={"max_tokens": 16, "max_characters": 40, "keep": keep})
    with Server(lambda asked: Reaction(completion(SAID))) as server:
        settings = {
            "name": "own",
            "prompt": file,
            "store": str(tmp_path / "store"),
            "backend": {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None},
        }
        parts = []
        for shard in ("1/2", "2/2"):
            parts.append(tmp_path / f"part-{shard[0]}")
            run(parse(RatingSettings, settings | {"shard": shard}, where="rater"), pool=pool, out=parts[-1])
        body = server.asked[0].body
        asked = len(server.asked)
        run(parse(RatingSettings, settings, where="rater"), pool=pool, out=tmp_path / "out")
        assert len(server.asked) == asked == 20
    assert body["response_format"]["json_schema"]["schema"] == prompt().form.schema
    merged = merge(MergeSettings(), pool=pool, ratings=parts, out=tmp_path / "merged")
    table, whole = (Artifact.open(tmp_path / name).table() for name in ("merged", "out"))
    assert table.equals(whole)
    row = table.to_pylist()[0]
    assert (row["factual_correctness"], row["brevity"], row["overall"]) == (4, 0.5, 8)
    assert row.get("rationale") == ("Copper is a metal." if keep else None)
    assert merged.facts["criteria"]["factual_correctness"] == {
        "key": "Factual correctness",
        "scale": "1 to 5",
        "weight": 1.0,
    }
    assert pq.read_schema(Artifact.open(tmp_path / "out").parts()[0]).field("factual_correctness").type == "int8"
    assert json.loads(SAID)["Brevity"] == row["brevity"]
