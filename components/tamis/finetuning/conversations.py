"""Tokenising a subset: token ids and labels on disk."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tamis.core.conversations import IGNORED, Encoder, Tokens, Unusable
from tamis.core.errors import InputError, ModelError
from tamis.core.leftout import BEYOND, action_for, check_left_out
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
    """Tokenise `subset` (one {"id", "source", "messages"} per line) into `folder`/tokens.arrow, in order.

    Does nothing if an earlier run has finished the file.

    Returns:
        Counts: `samples` written, `shortened` at max_tokens, `dropped` by reason, `turns_without_end_token`,
        `with_words_of_control_tokens` (samples in which such words are read as plain text), `tokens` and
        `learnt_tokens` of one epoch.

    Raises:
        ModelError: when the tokenizer has no end token, or its end or padding token is not in the model's vocabulary.
        InputError: when a larger share of samples than `max_left_out_share` cannot be trained on, or a line cannot be
            read.
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
        raise InputError(f"{subset} is empty", action="run the selection again")
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
    """Check that the model's vocabulary of `vocabulary` tokens contains the tokenizer's end and padding tokens.

    Raises:
        ModelError: when it does not, or when there is no end token.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of '{model}' has no end token, so the model cannot learn when to stop",
            allowed="a tokenizer whose tokenizer_config.json sets eos_token",
            action="set eos_token in that file",
        )
    for name in ("eos_token", "pad_token"):
        number = getattr(tokenizer, f"{name}_id")
        if number >= vocabulary:
            raise ModelError(
                f"the tokenizer's {name} {getattr(tokenizer, name)!r} has id {number}, but '{model}' has only "
                f"{vocabulary} tokens",
                allowed=f"a token with an id below {vocabulary}",
                action=action_for(BEYOND, "finetuning") + f"; or set another {name} in tokenizer_config.json",
            )


def _messages(subset: Path) -> Iterator[list[Message]]:
    with subset.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)["messages"]
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f'{subset}, line {number}: not a JSON object with "messages"', action="run the selection again"
                ) from None


def _batch(rows: list[Tokens]) -> pa.RecordBatch:
    return pa.record_batch([[row.input_ids for row in rows], [row.labels for row in rows]], schema=TOKENS)
