"""Fields next to a conversation that Tamis does not read, and which of them change what a model learns from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tamis.core.samples import Message

# Input to a model, or its output, in the layouts of OpenAI, TRL, LLaMA-Factory, axolotl and others. All other fields
# (an id, a category, a score) describe a sample and do not change what a model learns.
_SPOKEN = frozenset(
    [
        "system",
        "system_prompt",
        "system_message",
        "history",
        "context",
        "documents",
        "tools",
        "functions",
        "tool_calls",
        "function_call",
        "thinking",
        "reasoning",
        "reasoning_content",
        "image",
        "images",
        "video",
        "videos",
        "audio",
        "audios",
        "train_detail",
        "training_detail",
    ]
)
# Weights of the loss, and switches that turn it off.
_WEIGHTS = frozenset(("weight", "loss_weight"))
_SWITCHES = frozenset(("train", "training", "trainable", "loss", "label"))
OF_ANSWERS = _WEIGHTS | _SWITCHES  # only answers are in the loss, so these have no meaning on other turns
TAUGHT = _SPOKEN | OF_ANSWERS
_LONG = 12  # characters from which on a text is not part of another one by chance
_MOST_NAMES, _OTHERS = 200, "others"  # number of names that are counted, and the name for all others
_NOTHING = frozenset(("", "[]", "{}", "null", "none", "nan"))  # texts for an empty value


@dataclass
class Side:
    """Counts, over the samples of a source, of fields that are not read.

    Attributes:
        named: fields of the row that the settings name, so the user knows of them.
        fields: number of samples with each of the other fields; fields of turns are named as in "messages.weight".
        lost: number of samples in which such a field changes what a model learns.
        samples: number of samples with any such field.
        most_names: number of names in `fields` that are counted; other fields are counted together.
    """

    named: frozenset[str]
    fields: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    samples: int = 0
    most_names: int = _MOST_NAMES
    _split: dict[tuple[str, ...], tuple[list[str], list[str]]] = field(default_factory=dict)  # by columns

    def add(
        self,
        row: Mapping[str, Any],
        columns: tuple[str, ...],
        read: Collection[str],
        turns: Mapping[str, list[Any]],
        said: Sequence[Message],
    ) -> None:
        """Count one sample.

        Args:
            row: its fields, at least those that change what a model learns.
            columns: names of all its fields.
            read: the fields from which the conversation is made; the same for all rows with these columns.
            turns: other fields of its turns, with their values.
            said: the conversation.
        """
        split = self._split.get(columns)
        if split is None:
            names = [name for name in columns if name not in self.named and name not in read]
            split = names, [name for name in names if name in TAUGHT]
            if len(self._split) < _MOST_NAMES:
                self._split[columns] = split
        names, taught = split
        if not names and not turns:
            return
        for name in map(_writable, (*names, *turns)):
            self._count(name, 1)
        lost = [name for name in taught if _says(name, row.get(name), said)]
        for name, values in turns.items():
            kind = name.rpartition(".")[2]
            if kind in TAUGHT and any(_says(kind, value, said) for value in values):
                lost.append(name)
        if lost:
            self.lost.update(lost)
            self.samples += 1

    def merge(self, other: Side) -> None:
        """Add the counts of the samples that follow."""
        for name, count in other.fields.items():
            self._count(name, count)
        self.lost.update(other.lost)
        self.samples += other.samples

    def _count(self, name: str, count: int) -> None:
        self.fields[name if len(self.fields) < self.most_names or name in self.fields else _OTHERS] += count

    def as_facts(self) -> dict[str, Any]:
        """The counts for a manifest; empty if every field is read."""
        facts: dict[str, Any] = {"fields_not_read": dict(sorted(self.fields.items()))} if self.fields else {}
        return facts | ({"fields_lost": dict(sorted(self.lost.items()))} if self.lost else {})


def _writable(name: str) -> str:
    """`name` as valid UTF-8 for a manifest, with "?" for lone surrogates and for bytes that are not UTF-8."""
    return name if name.isascii() else name.encode("utf-8", "replace").decode()


def counts_in_words(counts: Mapping[str, int]) -> str:
    """Names with their counts, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} ({count:,})" for name, count in ordered)


def _says(name: str, value: Any, said: Sequence[Message]) -> bool:
    """Whether a field of `TAUGHT` adds something to the conversation `said`."""
    if value is None or value != value:  # pandas writes NaN for an empty value
        return False
    if name in _SPOKEN:
        texts = [text.strip() for text in _texts(value)]
        return any(text.lower() not in _NOTHING and not _is_said(text, said) for text in texts)
    text = str(value).strip().lower()
    if name in _SWITCHES:
        return text == "false" or (name != "label" and text in ("0", "0.0"))
    try:
        return float(text or 1) != 1
    except ValueError:
        return text not in ("true", *_NOTHING)


def _is_said(text: str, said: Sequence[Message]) -> bool:
    contents = [message["content"] for message in said]
    return text in contents or (len(text) >= _LONG and any(text in content for content in contents))


def _texts(value: Any) -> Iterator[str]:
    """The texts in a value, with `repr` of values that are not text; none in empty lists and objects."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        yield value if isinstance(value, str) else repr(value)
        return
    for inner in value:
        if inner is not None:
            yield from _texts(inner)
