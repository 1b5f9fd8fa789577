"""The script of most of a sample's letters."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tamis.reporting.scripts import SCRIPTS, dominant_scripts

TEXTS = {
    "Plain English, with 12 numbers.": "Latin",
    "Émile préfère l'été à Zürich — naïvement…": "Latin",
    "Почему небо голубое? Because.": "Cyrillic",
    "天空为什么是蓝色的": "Han",
    "空はなぜ青いのですか": "Japanese",
    "하늘은 왜 파란가요": "Hangul",
    "لماذا السماء زرقاء؟": "Arabic",
    "Ουρανός": "Greek",
    "आकाश नीला क्यों है": "Devanagari",
    "🙂 → 1 + 1 = ٢": "(no letters)",
    "𠀀𠀁𠀂": "Han",
    "": "Latin",
}


@pytest.mark.parametrize(("text", "script"), TEXTS.items())
def test_a_text_alone(text: str, script: str) -> None:
    assert SCRIPTS[dominant_scripts(pa.array([text]), np.array([0]))[0]] == script


def test_many_texts_at_once_are_each_what_they_are_alone() -> None:
    found = dominant_scripts(pa.array(list(TEXTS)), np.arange(len(TEXTS)))
    assert [SCRIPTS[code] for code in found] == list(TEXTS.values())


def test_the_messages_of_a_sample_count_together() -> None:
    texts = pa.array(["Why?", "Потому что небо голубое.", "Translate: голубое", "It means light blue in Russian."])
    assert [SCRIPTS[code] for code in dominant_scripts(texts, np.array([0, 0, 1, 1]))] == ["Cyrillic", "Latin"]


def test_no_sample_has_no_script() -> None:
    assert len(dominant_scripts(pa.array([], pa.string()), np.array([], int))) == 0
