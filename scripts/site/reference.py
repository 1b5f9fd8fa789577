"""The reference, generated from settings classes, the command line, error classes and docstrings."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [path for name in ("components", "pipelines") if (path := str(ROOT / name)) not in sys.path]

from pydantic import BaseModel  # noqa: E402
from pydantic.fields import FieldInfo  # noqa: E402

from tamis.core.settings import all_fields, models_in  # noqa: E402

_PYTHON = {
    "tamis": ("load",),
    "tamis.curation": ("curate",),
    "tamis.curation.honest": ("honest_error", "predictions"),
}
_BOUNDS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "multiple_of": "a multiple of {}"}
_BOUNDS |= {"min_length": "length ≥ {}", "max_length": "length ≤ {}", "pattern": "matches `{}`"}


@functools.cache
def pages() -> dict[str, str]:
    """The Markdown of every generated page, by its path in the site."""
    return {
        **dict(_settings()),
        "reference/commands.md": _commands(),
        "reference/errors.md": _errors(),
        "reference/python.md": _python(),
    }


def _settings() -> Iterator[tuple[str, str]]:
    """A page for the settings file, and one for each section."""
    from tamis_pipelines.settings import RunSettings

    fields = RunSettings.model_fields
    sections = {name: field for name, field in fields.items() if models_in(field.annotation)}
    links = {name: f"[{name}]({name}.md)" for name in sections}
    top = ["# The settings file", _doc(RunSettings), _table(fields, links)]
    top.append(
        "The file may also have a section `variables`. Its values replace `${name}` anywhere in the file. "
        "`--set section.name=value` overrides a setting; the value is YAML."
    )
    yield "reference/settings/file.md", "\n\n".join(top) + "\n"
    for name, field in sections.items():
        text = [f"# {name}", _sentence(field.description)]
        for model in models_in(field.annotation):
            text += _model(model, name, 2)
        yield f"reference/settings/{name}.md", "\n\n".join(filter(None, text)) + "\n"


def _model(model: type[BaseModel], where: str, level: int) -> Iterator[str]:
    """Heading, docstring and table of a settings class, then of the classes inside it."""
    kind = model.model_fields.get("kind")
    kinds = get_args(kind.annotation) if kind is not None else ()
    yield f"{'#' * min(level, 5)} {where}" + (f", kind {' or '.join(kinds)}" if kinds else "")
    yield _doc(model)
    yield _table(all_fields(model), {})
    for name, field in all_fields(model).items():
        for inner in models_in(field.annotation):
            yield from _model(inner, f"{where}.{field.alias or name}", level + 1)


def _table(fields: dict[str, FieldInfo], links: dict[str, str]) -> str:
    rows = ["| setting | type | default | range | meaning |", "| --- | --- | --- | --- | --- |"]
    for plain, field in fields.items():
        name = field.alias or plain
        cells = (links.get(name, f"`{name}`"), _type(field.annotation), _default(field), _range(field))
        rows.append(f"| {' | '.join(map(_cell, cells))} | {_cell(field.description or '')} |")
    return "\n".join(rows)


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return ", ".join(f"`{word}`" for word in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_type, inner)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if origin in (list, tuple, set, frozenset):
        return f"list of {_type(inner[0])}" if inner else "list"
    if origin is dict:
        return f"mapping of {_type(inner[0])} to {_type(inner[1])}"
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", Any: "any"}
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)  # type: ignore[call-arg]
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if str(value) else "empty"


def _range(field: FieldInfo) -> str:
    limits = [item for item in field.metadata if not callable(item)]
    found = [
        text.format(value)
        for item in limits
        for name, text in _BOUNDS.items()
        if (value := getattr(item, name, None)) is not None
    ]
    return ", ".join(dict.fromkeys(found))


def _commands() -> str:
    from tamis.cli import main

    text = ["# Commands", _help(main), _options(main)]
    for name, command in main.commands.items():
        text += _command(command, f"tamis {name}", 2)
    return "\n\n".join(filter(None, text)) + "\n"


def _command(command: click.Command, name: str, level: int) -> Iterator[str]:
    with click.Context(command, info_name=name) as context:
        pieces = " ".join(command.collect_usage_pieces(context))
    yield f"{'#' * level} {name}"
    yield f"```text\n{name} {pieces}\n```"
    yield _help(command)
    yield _options(command)
    examples = (command.epilog or "").replace("\b\n", "")
    if examples:
        yield f"```text\n{inspect.cleandoc(examples)}\n```"
    if isinstance(command, click.Group):
        for inner, one in command.commands.items():
            yield from _command(one, f"{name} {inner}", level + 1)


def _help(command: click.Command) -> str:
    return inspect.cleandoc(command.help or "").replace("\b\n", "")


def _options(command: click.Command) -> str:
    rows = ["| option | meaning |", "| --- | --- |"]
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            with click.Context(command) as context:
                shown, meaning = option.get_help_record(context) or ("", "")
            rows.append(f"| `{shown.replace('|', ' ')}` | {_cell(meaning)} |")
    return "\n".join(rows) if len(rows) > 2 else ""


def _errors() -> str:
    """Every error class with its code. They are found in the source, because importing it would need every extra."""
    rows = {}
    for folder in (ROOT / "components/tamis", ROOT / "pipelines/tamis_pipelines"):
        for file in sorted(folder.rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and (code := _code_of(node)):
                    rows[code] = (node.name, _first(ast.get_docstring(node) or ""))
    rows.pop("error", None)  # the base class, which is never raised
    text = [
        "# Error codes",
        "Every error that Tamis raises on purpose has a code. The command line prints it below the message. Texts may "
        "change, codes do not. In Python, errors are subclasses of `tamis.core.errors.TamisError` with the attributes "
        "`problem`, `allowed`, `action` and `code`.",
        "| code | class | meaning |\n| --- | --- | --- |\n"
        + "\n".join(f"| `{code}` | `{name}` | {_cell(doc)} |" for code, (name, doc) in sorted(rows.items())),
        "For messages and what to do about them, see [troubleshooting](../troubleshooting.md).",
    ]
    return "\n\n".join(text) + "\n"


def _code_of(node: ast.ClassDef) -> str | None:
    if not any(isinstance(base, ast.Name) and base.id.endswith("Error") for base in node.bases):
        return None if node.name != "TamisError" else "error"
    for item in node.body:
        target = item.targets[0] if isinstance(item, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id == "code" and isinstance(item, ast.Assign):
            return ast.literal_eval(item.value)  # type: ignore[no-any-return]
    return None


def _python() -> str:
    text = [
        "# Python",
        "These functions are for notebooks. Every stage also has a function "
        "`tamis.STAGE.stage.run(settings, *, …, out)`.",
    ]
    for module, names in _PYTHON.items():
        for name in names:
            function = getattr(importlib.import_module(module), name)
            signature = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", str(inspect.signature(function)))
            text += [
                f"## {module}.{name}",
                f"```python\n{name}{signature}\n```",
                f"```text\n{inspect.getdoc(function)}\n```",
            ]
    return "\n\n".join(text) + "\n"


def _doc(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "")


def _first(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


def _sentence(text: str | None) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
