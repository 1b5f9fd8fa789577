"""A subset as token ids and labels on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tamis.core.conversations import IGNORED, Encoder, Tokens, Unusable
from tamis.core.errors import InputError, ModelError
from tamis.core.leftout import BEYOND, check_left_out, cure_of
from tamis.core.models import vocabulary_of
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
        `with_words_of_control_tokens` (which are plain text in them), `tokens` and `learnt_tokens` of one epoch.

    Raises:
        ModelError: when the tokenizer has no end token, or the model does not know it or the one that fills up.
        InputError: when more samples than `max_left_out_share` cannot be trained on, or a line cannot be read.
    """
    target, counted = folder / "tokens.arrow", folder / "tokens.json"
    if counted.exists():
        counts: dict[str, Any] = json.loads(counted.read_text(encoding="utf-8"))
        return counts
    vocabulary = vocabulary_of(settings.model, settings.revision)
    check_tokenizer(tokenizer, settings.model, vocabulary)
    encoder, dropped = Encoder(tokenizer, settings.max_tokens, vocabulary), Counter[str]()
    samples = shortened = unended = broken = all_tokens = learnt = 0
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
            broken += tokens.broken
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
        "with_words_of_control_tokens": broken,
        "tokens": all_tokens,
        "learnt_tokens": learnt,
    }
    temporary = counted.with_suffix(".tmp")
    temporary.write_text(json.dumps(counts), encoding="utf-8")
    temporary.replace(counted)
    return counts


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, model: str, vocabulary: int) -> None:
    """Find out whether samples can be ended, and filled up, with tokens that the model knows.

    Raises:
        ModelError: when they cannot.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of '{model}' has no end token, so the model could not learn to stop",
            allowed="a tokenizer with eos_token in its tokenizer_config.json",
            action="name its end token there",
        )
    for name in ("eos_token", "pad_token"):
        number = getattr(tokenizer, f"{name}_id")
        if number >= vocabulary:
            raise ModelError(
                f"the tokenizer's {name} {getattr(tokenizer, name)!r} is token {number}, but '{model}' knows "
                f"{vocabulary} tokens",
                allowed=f"a token below {vocabulary}",
                action=cure_of(BEYOND, "finetuning") + f"; or name another {name} in tokenizer_config.json",
            )


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
