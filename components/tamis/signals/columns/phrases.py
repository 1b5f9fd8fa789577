"""phrases: refusals, and sentences that assistants add to any answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tamis.signals.columns.base import Column, Signal
from tamis.signals.conversations import Conversations

_BEGINNING = 250  # characters; a later "I cannot" is seldom a refusal
_CANNOT = r"(?:can['’]t|cannot|can\ not|unable|not\ able|won['’]t|don['’]t|do\ not)"
_REFUSALS = re.compile(
    rf"""
    \bI(?:['’]m|\ am)\ (?:so\ |very\ |really\ )?(?:sorry|afraid)\b[^.!?\n]{{0,60}}?\b{_CANNOT}
    | \b(?:sorry|unfortunately|however)\b[^.!?\n]{{0,30}}\bI\ (?:can['’]t|cannot|am\ (?:unable|not\ able)|won['’]t)
    | \bI\ (?:can['’]t|cannot|won['’]t|will\ not|must\ decline\ to|am\ (?:unable|not\ able)\ to)\ (?:\w+\ ){{0,3}}?
        (?:help|assist|provide|fulfil|fulfill|comply|answer|create|generate|write|support|engage|discuss|share|do\ that|
        complete|process|access|browse|perform|display|play|show|offer|give)\b
    | \bI(?:['’]m|\ am)\ (?:unable|not\ able)\ to\b
    | \bI\ (?:do\ not|don['’]t)\ have\ (?:the\ ability|access|the\ capability|enough\ (?:information|context))\b
    | \bas\ an?\ (?:AI|artificial\ intelligence|large\ language|language)\b[^.!?\n]{{0,60}}\b{_CANNOT}
    | \b(?:Es\ tut\ mir\ leid|Leider)\b[^.!?\n]{{0,60}}\b(?:kann|darf)\ ich\b[^.!?\n]{{0,60}}\bnicht\b
    | \b(?:Es\ tut\ mir\ leid|Leider)\b[^.!?\n]{{0,60}}\bich\b[^.!?\n]{{0,60}}\bnicht\b[^.!?\n]{{0,30}}\b(?:kann|darf)\b
    | \bJe\ (?:suis\ désolée?|regrette)\b[^.!?\n]{{0,60}}\bne\ (?:peux|puis)\ pas\b
    | \bLo\ siento\b[^.!?\n]{{0,60}}\bno\ puedo\b
    | \b(?:Desculpe|Sinto\ muito)\b[^.!?\n]{{0,60}}\bnão\ posso\b
    | \bMi\ dispiace\b[^.!?\n]{{0,60}}\bnon\ posso\b
    | К\ сожалению[^.!?\n]{{0,40}}\bне\ могу\b
    | (?:抱歉|对不起|對不起|很遗憾)[^。！？\n]{{0,20}}(?:不能|无法|無法)
    | 申し訳(?:ありません|ございません)[^。\n]{{0,30}}(?:できません|お答えできま)
    """,
    re.IGNORECASE | re.VERBOSE,
)
_BOILERPLATE = re.compile(
    r"""
    \bas\ an?\ (?:AI|artificial\ intelligence|large\ language|language)\ (?:language\ )?(?:model|assistant)\b
    | \bas\ an\ AI\b
    | \bI(?:['’]m|\ am)\ (?:just\ |only\ )?an\ AI\b
    | \bmy\ (?:knowledge|training)\ (?:cut-?\ ?off|data)\b
    | \bI\ hope\ (?:this|that)\ helps\b
    | \b(?:feel\ free|don['’]t\ hesitate|do\ not\ hesitate)\ to\ (?:ask|reach\ out|let\ me\ know)\b
    | \blet\ me\ know\ if\ (?:you\ (?:have|need|would)|there(?:['’]s|\ is)\ anything)\b
    | \bis\ there\ anything\ else\ (?:I\ can|you)\b
    | \bI(?:['’]d|['’]ll|\ would|\ will|\ am|['’]m)\ (?:be\ )?happy\ to\ (?:help|assist)\b
    | \bgreat\ question\b
    | \bals\ (?:KI|Sprachmodell)\b
    | \ben\ tant\ qu['’]IA\b
    | \bcomo\ (?:un\ )?modelo\ de\ lengua(?:je)?\b
    | 作为一[个名](?:人工智能|AI|语言模型)
    """,
    re.IGNORECASE | re.VERBOSE,
)
# A text without any of these cannot match, and to look for them is ten times as fast.
_IN_REFUSALS = (
    *("can't", "can’t", "cannot", "unable", "not able", "won't", "won’t", "will not", "decline", "don't", "don’t"),
    *("do not", "tut mir leid", "leider", "désolé", "regrette", "siento", "desculpe", "sinto", "dispiace"),
    *("сожалению", "抱歉", "对不起", "對不起", "遗憾", "申し訳"),
)
_IN_BOILERPLATE = (
    *("as a", "an ai", "knowledge", "training", "helps", "feel free", "hesitate", "let me know", "anything else"),
    *("happy to", "great question", "als ki", "als sprachmodell", "en tant", "como ", "作为"),
)


def _refuses(text: str) -> bool:
    beginning = text[:_BEGINNING].lower()
    return any(hint in beginning for hint in _IN_REFUSALS) and _REFUSALS.search(text[:_BEGINNING]) is not None


def _phrases(text: str) -> int:
    lowered = text.lower()
    return len(_BOILERPLATE.findall(text)) if any(hint in lowered for hint in _IN_BOILERPLATE) else 0


def _measure(samples: Conversations, settings: object) -> Mapping[str, Any]:
    return {
        "refusal": [*map(_refuses, samples.last_answers)],
        "boilerplate": [*map(_phrases, samples.answers)],
    }


SIGNAL = Signal(
    "phrases",
    {
        "refusal": Column(
            pa.bool_(), "yes or no", "the last answer begins with a refusal, in one of nine languages", "lower", True
        ),
        "boilerplate": Column(
            pa.int32(), "phrases", "phrases such as “As an AI language model” in the answers", "lower", True
        ),
    },
    _measure,
)
