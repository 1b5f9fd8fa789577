"""A subset as token ids and labels on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tamis.core.conversations import IGNORED, Encoder, Tokens, Unusable
from tamis.core.errors import InputError
from tamis.core.leftout import check_left_out
from tamis.core.samples import Message
from tamis.finetuning.settings import FinetuningSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENS = pa.schema([pa.field("input_ids", pa.list_(pa.int32())), pa.field("labels", pa.list_(pa.int32()))])
_ROWS_PER_BATCH = 1000


def write_tokens(
    subset: Path, tokenizer: PreTrainedTokenizerBase, settings: FinetuningSettings, folder: Path
) -> dict[str, Any]:
    """Tokenise `subset` ({"id", "source", "messages"} a line) into `folder`/tokens.arrow, in order.

    What an earlier run had finished is kept.

    Returns:
        Counts: `samples` written, `shortened` at max_tokens, `dropped` with reasons, `turns_without_end_token`,
        `tokens` and `learnt_tokens` of one epoch.

    Raises:
        InputError: when more samples than `max_left_out_share` cannot be trained on, or a line cannot be read.
    """
    target, counted = folder / "tokens.arrow", folder / "tokens.json"
    if counted.exists():
        counts: dict[str, Any] = json.loads(counted.read_text(encoding="utf-8"))
        return counts
    encoder, dropped = Encoder(tokenizer, settings.max_tokens), Counter[str]()
    samples = shortened = unended = all_tokens = learnt = 0
    rows: list[Tokens] = []
    with pa.OSFile(str(target), "wb") as file, pa.ipc.new_stream(file, TOKENS) as stream:
        for messages in _messages(subset):
            try:
                tokens = encoder.encode(messages)
            except Unusable as reason:
                dropped[str(reason)] += 1
                continue
            samples += 1
            shortened += tokens.shortened
            unended += tokens.unended
            all_tokens += len(tokens.input_ids)
            learnt += sum(label != IGNORED for label in tokens.labels)
            rows.append(tokens)
            if len(rows) == _ROWS_PER_BATCH:
                stream.write_batch(_batch(rows))
                rows = []
        if rows:
            stream.write_batch(_batch(rows))
    if not samples and not dropped:
        raise InputError(f"{subset} is empty", action="make the selection again")
    check_left_out(dropped, samples + dropped.total(), settings.max_left_out_share, stage="finetuning")
    counts = {
        "samples": samples,
        "shortened": shortened,
        "dropped": dict(sorted(dropped.items())),
        "turns_without_end_token": unended,
        "tokens": all_tokens,
        "learnt_tokens": learnt,
    }
    temporary = counted.with_suffix(".tmp")
    temporary.write_text(json.dumps(counts), encoding="utf-8")
    temporary.replace(counted)
    return counts


def _messages(subset: Path) -> Iterator[list[Message]]:
    with subset.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)["messages"]
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f'{subset}, line {number}: no JSON object with "messages"', action="make the selection again"
                ) from None


def _batch(rows: list[Tokens]) -> pa.RecordBatch:
    return pa.record_batch([[row.input_ids for row in rows], [row.labels for row in rows]], schema=TOKENS)
