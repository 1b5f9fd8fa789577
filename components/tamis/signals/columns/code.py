"""code: how much of the answers is program code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tamis.signals.columns.base import Column, Signal
from tamis.signals.conversations import Conversations

_FENCED = re.compile(r"^\s*```[^\n]*\n(.*?)(?:^\s*```|\Z)", re.MULTILINE | re.DOTALL)
_CODE = re.compile(
    r"""
    ^\s*(?:(?:async\s+)?def\s+\w+\s*\(|class\s+\w+[\s(:{]|import\s+[\w.]+(?:\s+as\s+\w+|\s*,|;?\s*$)|from\s+[\w.]+\s+import\b|
        \#\s*include\b|\#!/|using\s+[\w.]+;|package\s+[\w.]+;|@\w+(?:\(.*\))?\s*$|
        (?:public|private|protected|static)\s+\w+|(?:const|let|var)\s+[\w{\[]|
        (?:for|while|if|elif|switch|catch)\s*\(.*\)\s*\{?\s*$|(?:for|while|if|elif|with|try|else|except)\b[^.?!]*:\s*$|
        return\b[^.?!]*[;\w)\]'"]\s*$|function\s+\w*\s*\(|fn\s+\w+|func\s+\w+|
        (?:SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM|CREATE\s+(?:TABLE|VIEW)|ALTER\s+TABLE)\b.*|
        (?:FROM|WHERE|GROUP\s+BY|ORDER\s+BY|LEFT\s+JOIN|INNER\s+JOIN)\s+\S+|
        </?\w+[^<>]*/?>|\#\w[\w-]*\s*\{|\.[\w-]+\s*\{|//|/\*|\*/)
    | [;{}]\s*(?:(?://|/\*|\#).*)?$ | ^\s*[})\]]+[;,]?\s*$
    | ^\s*[\w.\[\]"']+(?:\s*,\s*[\w.]+)*\s*(?:[-+*/%|&]?=|:=|\+\+|--)\s*\S
    | ^\s*[\w.]+\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\);?\s*$
    | ^\s*(?:[a-z-]+)\s*:\s*[^.?!\s][^.?!]*;\s*$
    | ^\s*(?:>>>|\$)\s+\S
    """,
    re.VERBOSE,
)
_INDENTED = re.compile(r"^(?: {4}|\t)\s*\S")


def is_code(line: str) -> bool:
    """Whether a line looks like code: by its keywords, its punctuation or an assignment."""
    return _CODE.search(line) is not None


def code_share(text: str) -> float:
    """The share of characters in fenced code blocks and in lines that look like code; 0 for an empty text."""
    fenced = 0

    def drop(block: re.Match[str]) -> str:
        nonlocal fenced
        fenced += len(block[0])
        return "\n"

    rest = _FENCED.sub(drop, text) if "```" in text else text
    lines = rest.splitlines()
    code, previous, prose = fenced, False, 0
    for line in lines:
        if not line.strip():
            continue
        # An indented line belongs to the code before it.
        previous = is_code(line) or (previous and _INDENTED.match(line) is not None)
        if previous:
            code += len(line)
        else:
            prose += len(line)
    return code / (code + prose) if code else 0.0


def _measure(samples: Conversations, settings: object) -> Mapping[str, Any]:
    return {"code_share": [*map(code_share, samples.answers)]}


SIGNAL = Signal(
    "code",
    {"code_share": Column(pa.float32(), "share", "characters of the answers in code blocks or lines of code")},
    _measure,
)
