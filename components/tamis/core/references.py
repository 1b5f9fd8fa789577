"""Settings that refer to something else: models, data, folders to write to, files that ship with Tamis.

Such a setting has a type from this module. `walk` finds these settings and their values for `doctor`, for the check
that pods can reach them, and for the keys of steps.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BaseModel

from tamis.core.storage import fingerprint, is_remote

MOUNTED = "/cache/"  # volumes are mounted below it; these are the only local paths that pods share
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
_OF_THE_HUB = ("model", "tokenizer", "dataset")

To: TypeAlias = Literal["model", "tokenizer", "dataset", "data", "folder", "store", "work", "shipped"]


@dataclass(frozen=True)
class Reference:
    """Marks a setting whose text refers to something outside the settings.

    Attributes:
        to: "model", "tokenizer", "dataset": a name on the hub, or a local folder; "data": files to read, local or in
            object storage; "folder": a local folder to read; "store": a local folder or a prefix in object storage to
            write to; "work": a local folder to write to; "shipped": the name of a file that ships with Tamis, or the
            path of the user's own file.
        read: for "shipped": reads the file as the stage will and returns a short description of its content. It takes
            the settings that have the field, and raises a `TamisError` for a file that is missing or wrong.
        trained: for "model": the model is trained, which takes more memory than loading it.
    """

    to: To
    read: Callable[[Any], str] | None = None
    trained: bool = False


HubModel = Annotated[str, Reference("model")]
TrainedModel = Annotated[str, Reference("model", trained=True)]
HubTokenizer = Annotated[str, Reference("tokenizer")]
HubDataset = Annotated[str, Reference("dataset")]
DataPath = Annotated[str, Reference("data")]
LocalFolder = Annotated[str, Reference("folder")]
StoreUri = Annotated[str, Reference("store")]
WorkFolder = Annotated[Path, Reference("work")]


@dataclass(frozen=True)
class Setting:
    """One plain value in settings.

    Attributes:
        where: its dotted name, as in "raters.llama.backend.model"; list items are named by their name or number.
        value: text, number, mapping of plain values, None.
        reference: what it refers to; None for plain values.
        owner: the settings that have it.
    """

    where: str
    value: object
    reference: Reference | None
    owner: BaseModel


def walk(settings: BaseModel, where: str = "") -> Iterator[Setting]:
    """Every plain value in `settings`, in the order of the fields; `where` is the dotted name of the settings."""
    marks = references_of(type(settings))
    for name in type(settings).model_fields:
        place = f"{where}.{name}" if where else name
        yield from _within(getattr(settings, name), place, marks.get(name), settings)


def _within(value: object, where: str, reference: Reference | None, owner: BaseModel) -> Iterator[Setting]:
    if isinstance(value, BaseModel):
        yield from walk(value, where)
    elif isinstance(value, Mapping) and any(isinstance(inner, BaseModel) for inner in value.values()):
        for name, inner in value.items():
            yield from _within(inner, f"{where}.{name}", reference, owner)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _within(item, f"{where}.{getattr(item, 'name', number)}", reference, owner)
    else:
        yield Setting(where, value, reference, owner)


@functools.cache
def references_of(model: type[BaseModel]) -> Mapping[str, Reference]:
    """The fields of `model` that refer to something, without those of nested models.

    Raises:
        TypeError: when a field has two different references.
    """
    found: dict[str, Reference] = {}
    for name, field in model.model_fields.items():
        marks = {mark for mark in (*field.metadata, *_inside(field.annotation)) if isinstance(mark, Reference)}
        if len(marks) > 1:
            raise TypeError(f"{model.__name__}.{name} refers to several kinds of things")
        if marks:
            found[name] = marks.pop()
    return found


def _inside(annotation: Any) -> Iterator[Any]:
    """The metadata of every `Annotated` within an annotation."""
    yield from getattr(annotation, "__metadata__", ())
    for inner in get_args(annotation):
        yield from _inside(inner)


def folders_in(settings: BaseModel, *kinds: To) -> dict[str, str]:
    """Fingerprints of the local folders to which settings of these kinds refer, by dotted name.

    They are part of a step's key. For a name on the hub, the settings alone are in the key.
    """
    return {
        field.where: fingerprint(str(field.value))
        for field in walk(settings)
        if field.reference is not None and field.reference.to in kinds and Path(str(field.value)).is_dir()
    }


def reaches_pods(reference: Reference, value: str) -> bool:
    """Whether pods on a cluster can use what a setting refers to, judging by its text."""
    if reference.to == "work" or value.startswith(MOUNTED):
        return True
    if reference.to in ("data", "store"):
        return is_remote(value)
    if reference.to in _OF_THE_HUB:  # if the name could be either, a local folder takes precedence over the hub
        return _HUB_NAME.fullmatch(value) is not None and not Path(value).is_dir()
    return reference.to == "shipped" and "/" not in value and not value.endswith((".yaml", ".yml", ".json"))
