"""What settings refer to beyond themselves: models, data, folders to write to, files that ship with Tamis.

A setting that holds one has a type of this module. `walk` finds them with their values, for whoever has to look at
them before a run: checks, pods that must reach them, steps whose results depend on them.
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

MOUNTED = "/cache/"  # the only local paths that pods share with others: claims are mounted below
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
_OF_THE_HUB = ("model", "tokenizer", "dataset")

To: TypeAlias = Literal["model", "tokenizer", "dataset", "data", "folder", "store", "work", "shipped"]


@dataclass(frozen=True)
class Reference:
    """Marks a setting whose text refers to something outside the settings.

    Attributes:
        to: "model", "tokenizer", "dataset": a name on the hub, or a folder of this machine; "data": files that are
            read, local or in object storage; "folder": a folder of this machine that is read; "store": a folder or
            prefix that is written; "work": a folder of this machine that is written; "shipped": a name of a file that
            ships with Tamis, or a path of the user's own.
        read: of a shipped or own file: reads it as the stage will and returns in a few words what it holds. It takes
            the settings that hold the field, and raises a `TamisError` for a file that is missing or wrong.
        trained: of a model: it is trained, which takes more memory than to load it.
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
    """One plain value of settings.

    Attributes:
        where: its dotted place, as in "raters.llama.backend.model"; items of a list go by their name or number.
        value: text, number, mapping of plain values, None.
        reference: what it refers to; None for plain values.
        owner: the settings that hold it.
    """

    where: str
    value: object
    reference: Reference | None
    owner: BaseModel


def walk(settings: BaseModel, where: str = "") -> Iterator[Setting]:
    """Every plain value of `settings`, in the order of the fields; `where` is the place of the settings themselves."""
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
    """The fields of `model` that refer to something, those inside of other models not among them.

    Raises:
        TypeError: when the type of a field says two different things.
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
    """What `Annotated` says anywhere within an annotation."""
    yield from getattr(annotation, "__metadata__", ())
    for inner in get_args(annotation):
        yield from _inside(inner)


def folders_in(settings: BaseModel, *kinds: To) -> dict[str, str]:
    """Fingerprints of the folders of this machine to which settings of these kinds refer, by their dotted places.

    For the key of a step; of a name on the hub the settings themselves tell all that is known.
    """
    return {
        field.where: fingerprint(str(field.value))
        for field in walk(settings)
        if field.reference is not None and field.reference.to in kinds and Path(str(field.value)).is_dir()
    }


def reaches_pods(reference: Reference, value: str) -> bool:
    """Whether pods on a cluster can use what a setting refers to, as far as its text tells."""
    if reference.to == "work" or value.startswith(MOUNTED):
        return True
    if reference.to in ("data", "store"):
        return is_remote(value)
    if reference.to in _OF_THE_HUB:  # a folder of this machine counts before the hub when its name could be either
        return _HUB_NAME.fullmatch(value) is not None and not Path(value).is_dir()
    return reference.to == "shipped" and "/" not in value and not value.endswith((".yaml", ".yml", ".json"))
