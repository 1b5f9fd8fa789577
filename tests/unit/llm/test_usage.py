"""The forms in which services say what an answer took."""

from __future__ import annotations

from typing import Any

import pytest

from tamis.llm.usage import Usage, usage_of

PLAIN = {"prompt_tokens": 100, "completion_tokens": 30}


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (PLAIN, Usage(100, 30)),
        (PLAIN | {"total_tokens": 130}, Usage(100, 30)),
        ({"prompt_tokens": 100.0, "completion_tokens": 30.0}, Usage(100, 30)),
        ({"input_tokens": 100, "output_tokens": 30}, Usage(100, 30)),
        # cached
        (PLAIN | {"prompt_tokens_details": {"cached_tokens": 80}}, Usage(100, 30, 80)),
        (PLAIN | {"cached_tokens": 80}, Usage(100, 30, 80)),
        (PLAIN | {"prompt_cache_hit_tokens": 80, "prompt_cache_miss_tokens": 20}, Usage(100, 30, 80)),
        (PLAIN | {"prompt_tokens_details": {"cached_tokens": 800}}, Usage(100, 30, 100)),
        (PLAIN | {"prompt_tokens_details": None}, Usage(100, 30)),
        # reasoning, as a part of the answer
        (PLAIN | {"completion_tokens_details": {"reasoning_tokens": 20}}, Usage(100, 30, 0, 20)),
        (PLAIN | {"completion_tokens_details": {"reasoning_tokens": 20}, "total_tokens": 130}, Usage(100, 30, 0, 20)),
        # and beside it
        (PLAIN | {"completion_tokens_details": {"reasoning_tokens": 1000}}, Usage(100, 1030, 0, 1000)),
        (PLAIN | {"completion_tokens_details": {"reasoning_tokens": 20}, "total_tokens": 150}, Usage(100, 50, 0, 20)),
        (PLAIN | {"reasoning_tokens": 1000, "total_tokens": 130}, Usage(100, 1030, 0, 1000)),
        (PLAIN | {"total_tokens": 1130}, Usage(100, 1030, 0, 1000)),
        # of no use
        (None, Usage()),
        ([100, 30], Usage()),
        ({"tokens": 130}, Usage()),
        ({"prompt_tokens": "100", "completion_tokens": "thirty"}, Usage(100)),
        ({"prompt_tokens": 3_000_000_000, "completion_tokens": 30}, Usage(None, 30)),
        ({"prompt_tokens": -1, "completion_tokens": True}, Usage()),
        ({"prompt_tokens": float("inf"), "completion_tokens": 1.5}, Usage()),
    ],
)  # fmt: skip
def test_usage_is_read_for_what_it_means(said: Any, meant: Usage) -> None:
    assert usage_of(said) == meant
