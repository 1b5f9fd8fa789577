"""Mapping rows of different schemas to conversations, by the names of their fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tamis.core.errors import InputError
from tamis.core.jsonrows import json_of
from tamis.core.samples import FIELDS, FIELDS_OF_A_MESSAGE, Message, fault_of
from tamis.core.side import OF_ANSWERS
from tamis.pool.openings import Fields
from tamis.pool.rejects import Reject
from tamis.pool.settings import Source, candidates

# Names of the roles in other data sets, in lower case.
ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
# Fields that a row must have. The others of `FIELDS` are inside messages or may be missing.
_REQUIRED = {
    "messages": ("messages",),
    "conversations": ("conversations",),
    "instruction": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
}
OPTIONAL = ("system", "input")  # fields that may be missing in some rows, in formats whose rows may differ
_USUAL = (("role", "content"), ("from", "value"))  # OpenAI's and ShareGPT's names; each occurs in the other's schema


@dataclass(frozen=True)
class Mapping:
    """How the rows of a source become conversations. `fields` maps the schema's fields to their names in the source."""

    schema: str
    fields: dict[str, str]

    @property
    def columns(self) -> list[str]:
        """The names of the fields that are read."""
        return [name for field, name in self.fields.items() if field not in FIELDS_OF_A_MESSAGE]

    def fits(self, columns: Sequence[str]) -> bool:
        """Whether rows with the fields `columns` have those that the schema needs."""
        return {self.fields[name] for name in _REQUIRED[self.schema]} <= set(columns)

    def messages(self, row: Fields) -> list[Message]:
        """The conversation in `row`.

        Raises:
            Reject: when the row has no usable conversation.
        """
        return self.conversation(row)[0]

    def conversation(self, row: Fields) -> tuple[list[Message], dict[str, list[Any]]]:
        """The conversation in `row`, and the other fields of its turns: values by "field.name".

        Raises:
            Reject: when the row has no usable conversation.
        """
        beside: dict[str, list[Any]] = {}
        messages = self._mapped(row, beside)
        if self.fields.get("system") in row and not (messages and messages[0]["role"] == "system"):
            system = _text(row, self.fields["system"])
            if system.strip():
                messages = [Message(role="system", content=system), *messages]
        fault = fault_of(messages)
        if fault is not None:
            raise Reject(_kind_of(fault), fault)
        return messages, beside

    def _mapped(self, row: Fields, beside: dict[str, list[Any]]) -> list[Message]:
        fields = self.fields
        for schema, role, content in (("messages", "role", "content"), ("conversations", "from", "value")):
            if self.schema == schema:
                field = fields[schema]
                return _turns(_value(row, field), _Names(field, fields[role], fields[content]), beside)
        if self.schema == "instruction":
            instruction, output = _text(row, fields["instruction"]), _text(row, fields["output"])
            more = _text(row, fields["input"]) if fields["input"] in row else ""
            return [
                Message(role="user", content="\n\n".join(part for part in (instruction, more) if part.strip())),
                Message(role="assistant", content=output),
            ]
        prompt, completion = _value(row, fields["prompt"]), _value(row, fields["completion"])
        return [
            *_side(prompt, "user", fields["prompt"], beside),
            *_side(completion, "assistant", fields["completion"], beside),
        ]


def mapping_of(source: Source, columns: Sequence[str], where: str, before: Mapping | None = None) -> Mapping:
    """The mapping for rows of the file `where`, which have the fields `columns`.

    `before`, the mapping of the source's file before, is used again if it fits.

    Raises:
        InputError: when the fields fit no schema.
    """
    if before is not None and before.fits(columns):
        return before
    possible = candidates(source.schema_, source.fields)
    for schema in possible:
        fields = {name: name for name in FIELDS[schema] if name != "system"} | source.fields
        mapping = Mapping(schema, fields)
        if len(possible) == 1 or mapping.fits(columns):
            return mapping
    known = "; ".join(" and ".join(names) for names in _REQUIRED.values())
    raise InputError(
        f"source '{source.name}': cannot tell the schema of {where} from its fields: {_listed(columns)}",
        allowed=known,
        action="set the source's `schema` and `fields`, for example schema: prompt_completion, "
        "fields: {prompt: question, completion: answer}",
    )


def check_columns(source: Source, mapping: Mapping, columns: Sequence[str], uniform: bool, where: str) -> None:
    """Make sure that rows with the fields `columns` have the fields that the mapping and `source` read.

    Raises:
        InputError: naming the missing and the existing fields. In formats whose rows may differ, fields of `keep` and
            `OPTIONAL` may be missing.
    """
    required = [mapping.fields[name] for name in _REQUIRED[mapping.schema]]
    elsewhere = FIELDS_OF_A_MESSAGE if uniform else {*FIELDS_OF_A_MESSAGE, *OPTIONAL}
    named = [name for field, name in source.fields.items() if field not in elsewhere]
    wanted = [*required, *named, *source.where, *(source.keep if uniform else ())]
    missing = [name for name in dict.fromkeys(wanted) if name not in columns]
    if missing:
        raise InputError(
            f"source '{source.name}': {where} has no field {_listed(missing)}",
            allowed=_listed(columns),
            action="correct the source's `fields`, `where`, `keep` or `schema`; files with another layout need a "
            "source of their own",
        )


def metadata_of(row: Fields, keep: Sequence[str]) -> str | None:
    """The fields of `row` in `keep`, as a JSON object; None if `keep` is empty. Dates become text, NaN becomes null.

    Raises:
        Reject: when JSON cannot represent a value.
    """
    if not keep:
        return None
    kept = {name: row[name] for name in keep if name in row}
    try:
        text = _json(kept)
        text.encode()
    except UnicodeEncodeError:
        raise Reject("invalid Unicode", "a field to keep is not valid Unicode") from None
    return text


def _json(value: Any) -> str:
    try:
        return json.dumps(value, default=_as_text, allow_nan=False, sort_keys=True, ensure_ascii=False)
    except ValueError:  # NaN or infinity, which JSON does not have
        return _json(json.loads(json.dumps(value, default=_as_text), parse_constant=lambda _: None))


class _Names(NamedTuple):
    """The names of the list of turns, and of the two fields of each turn."""

    turns: str
    role: str
    content: str

    def in_turn(self, turn: Fields) -> tuple[str, str]:
        """The names of the two fields in a turn. If they are a usual pair, the other usual pair is accepted, too."""
        own = (self.role, self.content)
        usual = _USUAL if own in _USUAL else ()
        return next((pair for pair in (own, *usual) if pair[0] in turn and pair[1] in turn), own)


def _turns(value: Any, names: _Names, beside: dict[str, list[Any]]) -> list[Message]:
    """Messages from a list of objects, a list of alternating texts, an object of lists, or the JSON of any of these.

    Other fields of the turns are added to `beside`.
    """
    if isinstance(value, str):
        try:
            value = json_of(value)
        except ValueError as error:
            raise Reject("wrong type", f"the messages are text that is not JSON: {error}") from None
    if isinstance(value, dict):
        role, content = names.in_turn(value)
        if isinstance(value.get(role), list) and isinstance(value.get(content), list):
            value = _turned(value, role, content)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Reject("wrong type", f"the messages are of type {type(value).__name__}, not a list")
    if value and isinstance(value[0], str):
        value = [{names.role: ("user", "assistant")[i % 2], names.content: text} for i, text in enumerate(value)]
    return [_message(number, turn, names, beside) for number, turn in enumerate(value, 1)]


def _turned(lists: Fields, role: str, content: str) -> list[Fields]:
    """The turns in an object of lists."""
    turns = len(lists[role])
    if turns != len(lists[content]):
        raise Reject("wrong type", f"the messages have {turns} roles and {len(lists[content])} contents")
    whole = {name: values for name, values in lists.items() if isinstance(values, list) and len(values) == turns}
    return [dict(zip(whole, turn, strict=True)) for turn in zip(*whole.values(), strict=True)]


def _message(number: int, turn: Any, names: _Names, beside: dict[str, list[Any]]) -> Message:
    if not isinstance(turn, dict):
        raise Reject("wrong type", f"message {number} is of type {type(turn).__name__}, not an object")
    role, content = names.role, names.content
    if role not in turn or content not in turn:
        role, content = names.in_turn(turn)
    if role not in turn or content not in turn:
        raise Reject("missing field", f"message {number} has no '{role if role not in turn else content}'")
    called, text = turn[role], turn[content]
    known = ROLES.get(called.lower()) if isinstance(called, str) else None
    if known is None:
        raise Reject("unknown role", f"message {number} has the role {called!r}; allowed: {', '.join(ROLES)}")
    if text is not None and not isinstance(text, str):
        raise Reject("wrong type", f"message {number}: its '{content}' is of type {type(text).__name__}, not text")
    for name, other in turn.items() if len(turn) > 2 else ():  # most turns have only these two fields
        if name not in (role, content) and other is not None:
            values = beside.setdefault(f"{names.turns}.{name}", [])
            if known == "assistant" or name not in OF_ANSWERS:
                values.append(other)
    return Message(role=known, content=text or "")


def _side(value: Any, role: str, field: str, beside: dict[str, list[Any]]) -> list[Message]:
    """The prompt or the completion as messages: each is a text, or a list of messages."""
    if isinstance(value, list):
        return _turns(value, _Names(field, "role", "content"), beside)
    return [Message(role=role, content=_as_message_text(value, field))]


def _text(row: Fields, field: str) -> str:
    return _as_message_text(_value(row, field), field)


def _as_message_text(value: Any, field: str) -> str:
    if value is not None and not isinstance(value, str):
        raise Reject("wrong type", f"the field '{field}' is of type {type(value).__name__}, not text")
    return value or ""


def _value(row: Fields, field: str) -> Any:
    if field not in row:
        raise Reject("missing field", f"no field '{field}'")
    return row[field]


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        raise Reject("wrong type", "a field to keep contains bytes, which JSON cannot represent")
    return str(value.isoformat() if hasattr(value, "isoformat") else value)


def _kind_of(fault: str) -> str:
    """The kind under which a reason is counted."""
    if fault.endswith("is empty"):
        return "empty message"
    if fault.endswith("is not valid Unicode"):
        return "invalid Unicode"
    return fault


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
