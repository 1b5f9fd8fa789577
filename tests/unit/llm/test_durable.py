"""Durable asking: what is stored, what is asked again, and what holds when a run ends early."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tamis.llm.budget import Allowance, FailuresError, Words
from tamis.llm.durable import DurableAsking, Earlier
from tamis.llm.store import Store
from tamis.llm.tally import Tally
from tests.paper_prompt import RECORDS, Rating, rating_of
from tests.unit.rating.test_asking import GOOD, A, B, Scripted


def asked(place: Path, backend: Scripted, *, fail: bool = False) -> Tally[Rating]:
    """Ask about all samples of the script; with `fail`, raise at the first records."""
    store, tally = Store(place, {"rater": "r"}, RECORDS), Tally[Rating]()
    words = Words("rater 'r'", "samples", "rating", "rated")
    with DurableAsking[Rating](backend, store, words, scope="0" * 64) as asking:
        ids = [*backend.script]
        stored = dict(zip(ids, store.read().find(pa.array(ids)), strict=True))
        final = [one for one in stored.values() if one is not None and one.status == "ok"]
        left = iter([[(one, one, stored[one]) for one in ids if stored[one] not in final]])
        earlier = Earlier(len(ids), len(final), tokens={}, read=len(final), unread=0)
        for _ in asking.ask(
            earlier,
            lambda: next(left, []),
            read=rating_of,
            max_attempts=2,
            allowance=Allowance(0.0),
            tally=tally,
        ):
            if fail:
                raise KeyError("the caller's own fault")
    return tally


def test_what_is_stored_is_not_asked_again(tmp_path: Path) -> None:
    assert asked(tmp_path, Scripted({A: [GOOD], B: [GOOD]})).statuses == {"ok": 2}
    again = Scripted({A: [], B: []})
    assert asked(tmp_path, again).total == 0
    assert again.asked == []


def test_records_that_came_before_an_error_of_the_caller_are_stored(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        asked(tmp_path, Scripted({A: [GOOD]}), fail=True)
    assert asked(tmp_path, Scripted({A: []})).total == 0


def test_limits_are_checked_when_all_records_are_stored(tmp_path: Path) -> None:
    with pytest.raises(FailuresError) as raised:
        asked(tmp_path, Scripted({A: ["hm", "hm"], B: [GOOD]}))
    assert raised.value.code == "failures"
    found = Store(tmp_path, {"rater": "r"}, RECORDS).read().find(pa.array([A, B]))
    assert [one.status for one in found if one is not None] == ["unparsable", "ok"]
