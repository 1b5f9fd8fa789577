"""What engines do for answers that are no ratings: other forms, free text, rows that end early."""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.core.errors import UnparsableError
from tamis.llm.backends.skeleton import Skeleton
from tamis.llm.forms import Form

VERDICT = Form.alike(("Better answer",), 0, 2)


def by_characters(text: str) -> list[int]:
    return [ord(character) for character in text]


def test_a_form_of_one_number_is_written_read_and_guided() -> None:
    assert VERDICT.write([2]) == '{"Better answer": 2}'
    assert VERDICT.read('```json\n{"Better answer": 0}\n```') == ((0,), ("code fence",), None)
    skeleton = Skeleton(by_characters, VERDICT)
    assert [skeleton.tokens([value]) for value in range(3)] == [by_characters(VERDICT.write([v])) for v in range(3)]
    assert skeleton.slots[0].ahead == ()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ('{"Better answer": 3}', "out of range: Better answer is 3"),
        ('{"Better answer": "one"}', "not an integer"),
        ('{"Which": 1, "Why": "x"}', "wrong keys"),
        ("Answer 1 is better.", "not a JSON object"),
    ],
)
def test_an_answer_of_another_form_is_none(answer: str, reason: str) -> None:
    with pytest.raises(UnparsableError, match=reason):
        VERDICT.read(answer)


def test_rows_that_have_ended_can_be_left_out_and_the_others_go_on_as_before(tiny: Path) -> None:
    torch = pytest.importorskip("torch")
    from tamis.core.models import load_causal_lm
    from tamis.llm.backends.sequences import Sequences, head_cache

    model = load_causal_lm(str(tiny))
    first, then = [[5, 6, 7], [8], [9, 10]], [[11], [12], [13]]

    def logits(*kept: bool) -> torch.Tensor:
        rows = Sequences(model, head_cache(model, [1, 2, 3]), 3)
        rows.feed(first, keep=1)
        rows.select(kept)
        return rows.feed([chunk for chunk, there in zip(then, kept, strict=True) if there], keep=1)

    whole, part = logits(True, True, True), logits(True, False, True)
    torch.testing.assert_close(part, whole[[0, 2]], rtol=1e-4, atol=1e-5)
