"""Matches for tests: prompts and answers in files, and a judge on a real socket that judges by a rule."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tamis.core.settings import parse
from tamis.judging.settings import JudgingSettings
from tests.llm_server import Asked, Reaction, Server, completion

_SHOWN = re.compile(
    r"\[Question\]\n(.*?)\n\[End of the question\].*\[Answer 1\]\n(.*?)\n\[End of answer 1\].*"
    r"\[Answer 2\]\n(.*?)\n\[End of answer 2\]",
    re.DOTALL,
)


def shown(asked: Asked) -> tuple[str, str, str] | None:
    """Question and both answers that a judge was asked about; None where a contestant was asked."""
    found = _SHOWN.search(asked.prompt)
    return (found[1], found[2], found[3]) if found else None


def judge_by(rule: Callable[[str, str, str], tuple[int, int]]) -> Callable[[Asked], Reaction]:
    """A service that scores two answers to a question by `rule`, and answers any other prompt with its own words."""

    def behave(asked: Asked) -> Reaction:
        seen = shown(asked)
        if seen is None:
            return Reaction(completion(f"I heard: {asked.prompt}"))
        first, second = rule(*seen)
        return Reaction(completion(json.dumps({"Answer 1": first, "Answer 2": second})))

    return behave


def number_in(text: str) -> int:
    """The number that an answer of these tests ends with."""
    return int(text.rsplit(" ", 1)[-1])


def by_number(question: str, first: str, second: str) -> tuple[int, int]:
    """Scores are the numbers at the answers' ends: this judge is of no bias."""
    return number_in(first), number_in(second)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    """A JSONL file; returns its path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def given(folder: Path, name: str, answers: Mapping[str, str]) -> dict[str, Any]:
    """A contestant whose answers lie in a file."""
    rows = [{"prompt": prompt, "answer": answer} for prompt, answer in answers.items()]
    return {"kind": "answers", "name": name, "path": write_lines(folder / f"{name}.jsonl", rows)}


def settings(folder: Path, server: Server | None, pairs: Mapping[str, tuple[str, str]], **own: Any) -> JudgingSettings:
    """Settings of a match on the prompts of `pairs`, with the answers of "ours" and "theirs"; `own` overrides."""
    url = server.url if server else "http://127.0.0.1:9/v1"
    backend = {"kind": "openai", "model": "m", "base_url": url, "api_key_env": None}
    values: dict[str, Any] = {
        "prompts": [
            {"name": "set", "path": write_lines(folder / "prompts.jsonl", [{"prompt": prompt} for prompt in pairs])}
        ],
        "model": given(folder, "ours", {prompt: one for prompt, (one, _) in pairs.items()}),
        "against": given(folder, "theirs", {prompt: other for prompt, (_, other) in pairs.items()}),
        "judge": {"backend": backend | own.pop("backend", {})} | own.pop("judge", {}),
    }
    return parse(JudgingSettings, values | own, where="here")
