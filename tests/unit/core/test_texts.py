"""Texts of others, for a terminal and for files of a limited size."""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.core.last_words import REASON_FILE, leave_reason
from tamis.core.secrets import shown
from tamis.core.texts import cut_to_bytes, printable


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("a\tb\nc\r\nd é 資料 😀", "a\tb\nc\nd é 資料 😀"),
        ("\x1b[31mred\x1b[0m\x1b[2J", "red"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\rb\x08\x9b", "a\\rb\\x08\\x9b"),
        ("\u202eabc\ud800", "\\u202eabc\\ud800"),
    ],
)
def test_what_would_change_a_terminal_is_left_out_or_escaped(text: str, seen: str) -> None:
    assert printable(text) == seen


def test_a_reason_keeps_its_beginning_within_the_bytes_that_kubernetes_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "reason"
    file.touch()
    monkeypatch.setenv(REASON_FILE, str(file))
    leave_reason(f"begin \udcff {'資' * 4_000}")
    assert file.stat().st_size <= 4_096, "of a longer file Kubernetes keeps the end"
    assert file.read_text(encoding="utf-8").startswith("begin ? 資")


def test_a_cut_text_has_whole_characters() -> None:
    assert cut_to_bytes("資資", 5) == "資"
    assert cut_to_bytes("ab", 5) == "ab"


def test_what_is_shown_can_be_written() -> None:
    assert shown("é \ud800").encode() == "é ?".encode()
