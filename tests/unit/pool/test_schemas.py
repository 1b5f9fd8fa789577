"""Rows of every schema become conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tamis.core.errors import InputError
from tamis.core.samples import fault_of, sample_id
from tamis.pool.mapping import Mapping, mapping_of
from tamis.pool.settings import Source
from tests.unit.pool.making import make, turns, write_csv, write_jsonl, write_parquet


@pytest.mark.parametrize(
    ("row", "source", "expected"),
    [
        (
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho", "weight": 1}]},
            {},
            "user: Hi | assistant: Ho",
        ),
        (
            {"chat": [{"who": "User", "text": "Hi"}, {"who": "Assistant", "text": "Ho"}]},
            {"fields": {"messages": "chat", "role": "who", "content": "text"}},
            "user: Hi | assistant: Ho",
        ),
        ({"messages": {"role": ["user", "assistant"], "content": ["Hi", "Ho"]}}, {}, "user: Hi | assistant: Ho"),
        (
            {"conversations": [{"from": f, "value": v} for f, v in (("system", "S"), ("human", "Hi"), ("gpt", "Ho"))]},
            {},
            "system: S | user: Hi | assistant: Ho",
        ),
        (
            {"messages": [{"from": f, "value": v} for f, v in (("human", "Hi"), ("gpt", "Ho"))]},
            {},
            "user: Hi | assistant: Ho",
        ),
        ({"messages": {"from": ["human", "gpt"], "value": ["Hi", "Ho"]}}, {}, "user: Hi | assistant: Ho"),
        (
            {"conversations": [{"role": r, "content": c} for r, c in (("user", "Hi"), ("assistant", "Ho"))]},
            {},
            "user: Hi | assistant: Ho",
        ),
        ({"conversations": ["Hi", "Ho", "So?", "No"]}, {}, "user: Hi | assistant: Ho | user: So? | assistant: No"),
        ({"prompt": "Q", "completion": " A\n"}, {}, "user: Q | assistant:  A\n"),
        (
            {"question": "Q", "answer": "A"},
            {"fields": {"prompt": "question", "completion": "answer"}},
            "user: Q | assistant: A",
        ),
        (
            {"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "assistant", "content": "A"}]},
            {},
            "user: Q | assistant: A",
        ),
        ({"instruction": "Add.", "input": "1, 2", "output": "3"}, {}, "user: Add.\n\n1, 2 | assistant: 3"),
        ({"instruction": "Sing.", "input": "", "output": "La"}, {}, "user: Sing. | assistant: La"),
        ({"instruction": "", "input": "abc", "output": "d"}, {}, "user: abc | assistant: d"),
        ({"instruction": "Sing.", "output": "La"}, {}, "user: Sing. | assistant: La"),
        ({"instruction": "Sing.", "input": None, "output": "La"}, {}, "user: Sing. | assistant: La"),
        (
            {"instruction": "Read.", "context": "It is.", "response": "Yes"},
            {"fields": {"input": "context", "output": "response"}},
            "user: Read.\n\nIt is. | assistant: Yes",
        ),
        (
            {"prompt": "Q", "completion": "A", "persona": "Be brief."},
            {"fields": {"system": "persona"}},
            "system: Be brief. | user: Q | assistant: A",
        ),
        (
            {"prompt": "Q", "completion": "A", "persona": ""},
            {"fields": {"system": "persona"}},
            "user: Q | assistant: A",
        ),
    ],
)
def test_a_row_becomes_a_conversation(
    tmp_path: Path, row: dict[str, Any], source: dict[str, Any], expected: str
) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [row])
    _, rows = make(tmp_path / "pool", {"path": str(path)} | source)
    assert [" | ".join(": ".join(turn) for turn in turns(row)) for row in rows] == [expected]


@pytest.mark.parametrize(
    ("columns", "schema"),
    [
        (["id", "messages", "prompt", "completion"], "messages"),
        (["conversations", "id"], "conversations"),
        (["instruction", "input", "output", "prompt"], "instruction"),
        (["completion", "prompt"], "prompt_completion"),
    ],
)
def test_auto_tells_the_schema_from_the_columns(columns: list[str], schema: str) -> None:
    assert mapping_of(Source(name="s", path="p"), columns, "f").schema == schema


def test_auto_says_what_it_saw_when_it_cannot_tell(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"frage": "?", "antwort": "!"}])
    with pytest.raises(InputError, match=r"rows\.jsonl .*'frage', 'antwort'") as error:
        make(tmp_path / "pool", {"path": str(path)})
    assert "prompt and completion" in error.value.allowed
    assert "fields: {prompt: question" in error.value.action


def test_each_source_has_its_own_schema(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"prompt": "Q1", "completion": "A1"}])
    write_jsonl(tmp_path / "b.jsonl", [{"instruction": "Q2", "output": "A2"}])
    manifest, rows = make(tmp_path / "pool", {"path": str(tmp_path / "a.jsonl")}, {"path": str(tmp_path / "b.jsonl")})
    assert [row["source"] for row in rows] == ["s0", "s1"]
    assert [facts["schema"] for facts in manifest.facts["sources"].values()] == ["prompt_completion", "instruction"]


@pytest.mark.parametrize(
    ("source", "missing"),
    [
        ({"schema": "messages"}, "'messages'"),
        ({"schema": "prompt_completion"}, "'completion'"),
        ({"fields": {"prompt": "q", "completion": "a"}}, "'q', 'a'"),
        ({"schema": "prompt_completion", "fields": {"completion": "answer"}, "where": {"lang": "en"}}, "'lang'"),
    ],
)
@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet])
def test_a_missing_field_names_those_that_exist(
    tmp_path: Path, write: Any, source: dict[str, Any], missing: str
) -> None:
    suffix = write.__name__.removeprefix("write_")
    path = write(tmp_path / f"rows.{suffix}", [{"prompt": "Q", "answer": "A"}])
    with pytest.raises(InputError, match=rf"rows\.{suffix} .*{missing}") as error:
        make(tmp_path / "pool", {"path": str(path)} | source)
    assert error.value.allowed == "'prompt', 'answer'"


def test_messages_as_json_text_in_csv_are_read(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Hi, you"}, {"role": "assistant", "content": 'Say "hello"'}]
    path = write_csv(tmp_path / "rows.csv", [{"id": 1, "messages": json.dumps(messages)}])
    _, rows = make(tmp_path / "pool", {"path": str(path)})
    assert rows[0]["messages"] == messages


def test_a_systems_message_of_the_conversation_goes_before_the_field(tmp_path: Path) -> None:
    row = {
        "messages": [{"role": r, "content": c} for r, c in (("system", "own"), ("user", "Q"), ("assistant", "A"))],
        "persona": "other",
    }
    _, rows = make(
        tmp_path / "pool", {"path": str(write_jsonl(tmp_path / "r.jsonl", [row])), "fields": {"system": "persona"}}
    )
    assert turns(rows[0])[0] == ("system", "own")
    assert len(turns(rows[0])) == 3


PLAIN_ROLES = ("system", "user", "assistant")
text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40).filter(str.strip)
conversations = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content}, st.sampled_from(("system", "user", "assistant")), text
    ),
    max_size=6,
).filter(lambda messages: fault_of(messages) is None)


@given(messages=conversations)
def test_a_valid_conversation_is_not_changed(messages: list[dict[str, str]]) -> None:
    mapping = Mapping("messages", {"messages": "messages", "role": "role", "content": "content"})
    assert mapping.messages({"messages": messages}) == messages
    shared = Mapping("conversations", {"conversations": "c", "from": "from", "value": "value"})
    back = {"user": "human", "assistant": "gpt", "system": "system"}
    assert shared.messages({"c": [{"from": back[m["role"]], "value": m["content"]} for m in messages]}) == messages


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(samples=st.lists(conversations, min_size=1, max_size=20, unique_by=sample_id))
def test_valid_conversations_come_back_from_every_format(
    tmp_path_factory: pytest.TempPathFactory, samples: list[list[dict[str, str]]]
) -> None:
    folder = tmp_path_factory.mktemp("roundtrip")
    rows = [{"messages": messages} for messages in samples]
    write_jsonl(folder / "a.jsonl", rows)
    write_parquet(folder / "a.parquet", rows)
    write_csv(folder / "a.csv", [{"messages": json.dumps(messages)} for messages in samples])
    for suffix in ("jsonl", "parquet", "csv"):
        _, read = make(folder / f"pool-{suffix}", {"path": str(folder / f"a.{suffix}")})
        assert [row["messages"] for row in read] == samples
        assert [row["id"] for row in read] == [sample_id(messages) for messages in samples]


def test_kept_fields_become_json(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Q1", "completion": "A1", "tags": ["b", "ä"], "score": float("nan")},
        {"prompt": "Q2", "completion": "A2", "score": 3, "other": 1},
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    _, kept = make(tmp_path / "pool", {"path": str(path), "keep": ["tags", "score"]})
    assert [row["metadata"] for row in kept] == ['{"score": null, "tags": ["b", "ä"]}', '{"score": 3}']
    _, none = make(tmp_path / "without", {"path": str(path)})
    assert [row["metadata"] for row in none] == [None, None]


def test_dates_are_kept_as_text(tmp_path: Path) -> None:
    from datetime import UTC, date, datetime
    from decimal import Decimal

    row = {"day": date(2024, 2, 29), "time": datetime(2024, 2, 29, 12, tzinfo=UTC), "price": Decimal("1.50")}
    path = write_parquet(tmp_path / "rows.parquet", [{"prompt": "Q", "completion": "A"} | row])
    _, rows = make(tmp_path / "pool", {"path": str(path), "keep": list(row)})
    assert json.loads(rows[0]["metadata"]) == {
        "day": "2024-02-29",
        "time": "2024-02-29T12:00:00+00:00",
        "price": "1.50",
    }


def test_a_field_to_keep_that_no_row_has_is_an_error(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "completion": "A"}, {"prompt": "Q2", "completion": "A2", "near": 1}]
    jsonl = str(write_jsonl(tmp_path / "rows.jsonl", rows))
    with pytest.raises(InputError, match=r"'s0'.* gradee\n"):
        make(tmp_path / "pool", {"path": jsonl, "keep": ["near", "gradee"]})
    parquet = str(write_parquet(tmp_path / "rows.parquet", rows))
    with pytest.raises(InputError, match=r"rows\.parquet .*'gradee'"):
        make(tmp_path / "pool", {"path": parquet, "keep": ["gradee"]})


def test_a_field_to_keep_may_come_after_the_limit(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "completion": "A"}, {"prompt": "Q2", "completion": "A2", "near": 1}]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    manifest, _ = make(tmp_path / "pool", {"path": str(path), "keep": ["near"], "limit": 1})
    assert manifest.rows == 1


def test_where_takes_the_rows_that_match(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i}", "completion": "A", "set": "ab"[i % 2], "level": i} for i in range(6)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    manifest, kept = make(tmp_path / "pool", {"path": str(path), "where": {"set": "b"}})
    assert [row["origin"] for row in kept] == [1, 3, 5]
    assert manifest.facts["left_out"] == 3
    _, both = make(tmp_path / "both", {"path": str(path), "where": {"set": "b", "level": 3}})
    assert [row["origin"] for row in both] == [3]
    _, text = make(tmp_path / "csv", {"path": str(write_csv(tmp_path / "rows.csv", rows)), "where": {"level": 3}})
    assert [row["origin"] for row in text] == [3]


@pytest.mark.parametrize(
    ("wanted", "texts", "taken"),
    [
        (True, ["True", "true", "TRUE", "False", "1", "yes"], [0, 1, 2]),
        (False, ["False", "false", "", "0", "True"], [0, 1]),
        (1, ["1", "1.0", "01", "10", "one", "True", ""], [0, 1, 2]),
        (1.0, ["1", "1.0", "1.5", "x"], [0, 1]),  # as Kubeflow hands whole numbers over
        (0.1, ["0.1", "0.10", "1e-1", "0.11", "nan", "sNaN"], [0, 1, 2]),
        (2**53 + 1, [str(2**53), str(2**53 + 1)], [1]),
        ("true", ["true", "True"], [0]),
        ("1", ["1", "1.0"], [0]),
    ],
)
def test_where_reads_numbers_and_truth_values_in_the_text_of_csv(
    tmp_path: Path, wanted: str | float, texts: list[str], taken: list[int]
) -> None:
    rows = [{"prompt": f"Q{i}", "completion": "A", "value": text} for i, text in enumerate(texts)]
    path = write_csv(tmp_path / "rows.csv", rows)
    _, kept = make(tmp_path / "pool", {"path": str(path), "where": {"value": wanted}})
    assert [row["origin"] for row in kept] == taken


def test_where_that_nothing_matches_shows_what_there_is(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{i}", "completion": "A", "set": f"set{i}"} for i in range(9)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(InputError, match=r"'s0'.*\{'set': 'x'\}") as error:
        make(tmp_path / "pool", {"path": str(path), "where": {"set": "x"}})
    assert error.value.allowed.endswith("set: 'set0', 'set1', 'set2', 'set3', 'set4'")
