"""Subsets of the finetuning tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.core.samples import Message
from tests.artifacts import conversation, make_selection

ANSWERS = (
    ("Name a metal.", "Copper is a metal."),
    ("What do owls eat?", "Owls eat mice, voles and insects, and they hunt mostly at night."),
    ("Where does the Nile end?", "In the Mediterranean Sea."),
    ("What is glass made of?", "Sand, soda and lime, molten together and cooled."),
    ("Why is bread dough kneaded?", "Kneading lines up the gluten, so that the dough holds the gas of the yeast."),
    ("How far is the Moon?", "About 384,000 kilometres."),
)


def samples(count: int) -> list[list[Message]]:
    """Return `count` different short conversations of one turn."""
    return [
        conversation(f"{ANSWERS[i % 6][0]} ({i})", " ".join([ANSWERS[i % 6][1]] * (1 + i // 6 % 3)))
        for i in range(count)
    ]


@pytest.fixture
def selection(tmp_path: Path) -> Path:
    """A finished subset of twelve samples, called "dozen"."""
    return make_selection(tmp_path / "selection", samples(12), name="dozen")
