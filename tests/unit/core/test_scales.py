"""Scales: their texts are read back, and which of their scores come to which score class is said."""

from __future__ import annotations

import pytest

from tamis.core.scales import Scale, classes_in_words, scale_of

FIVE = Scale(lowest=1, highest=5)


@pytest.mark.parametrize("scale", [Scale(), FIVE, Scale(lowest=-0.5, highest=2, step=0.5), Scale(lowest=0, highest=1)])
def test_the_text_of_a_scale_is_read_back(scale: Scale) -> None:
    assert scale_of(str(scale)) == scale


@pytest.mark.parametrize("text", ["classes", "", "1 to many", "5 to 1"])
def test_other_texts_are_no_scale(text: str) -> None:
    assert scale_of(text) is None


def test_whole_scores_are_named_with_their_classes_and_the_classes_that_none_comes_to() -> None:
    whole = FIVE.in_steps_of(1.0).ratings()
    assert classes_in_words(FIVE, whole, 4, 9) == (
        "1 and 2 are class 0, 3 is class 2, 4 is class 4, 5 is class 5; classes 1 and 3 cannot occur"
    )


def test_of_many_scores_and_of_fractions_the_ends_are_named() -> None:
    assert classes_in_words(FIVE, FIVE.ratings(), 4, 9) == "1 is class 0, 5 is class 5"
    assert classes_in_words(FIVE, None, 4, 9) == "1 is class 0, 5 is class 5"
    hundred = Scale(lowest=0, highest=100, step=1)
    assert classes_in_words(hundred, hundred.ratings(), 4, 9) == "0 is class 0, 100 is class 5"
    eleven = Scale(lowest=0, highest=10, step=1)
    assert classes_in_words(eleven, eleven.ratings(), 4, 9).startswith("0, 1, 2 and 3 are class 0, ")
    assert classes_in_words(Scale(lowest=0, highest=1, step=1), (1, 10), 4, 9) == (
        "0 is class 0, 1 is class 5; classes 1, 2, 3 and 4 cannot occur"
    )
