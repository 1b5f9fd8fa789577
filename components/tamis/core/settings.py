"""Settings: YAML in, validated pydantic models out, errors that teach."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeAlias, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from tamis.core.errors import InputError, SettingsError
from tamis.core.registry import yaml_files
from tamis.core.secrets import know_setting, shown, shown_input
from tamis.core.storage import looked_for
from tamis.core.texts import text_of

if TYPE_CHECKING:
    import yaml

Model = TypeVar("Model", bound=BaseModel)
_LIMIT = "limit"
MoneyLimit: TypeAlias = Annotated[float | None, _LIMIT]
"""A setting that may end a step early and changes nothing of its result: it is no part of the step's key."""
Pace: TypeAlias = Annotated[bool, _LIMIT]
"""A setting of how soon a step may ask for all answers, which changes nothing of its result: no part of the key."""
_NULL = "<null>"  # in a parameter of a pipeline, for which kfp knows no null
# Of pydantic's own words, those that only a programmer understands.
_SECTION = "a section is wanted, as in {setting: value}"
_WORDS = {"list_type": "a list is wanted, as in [first, second]", "dict_type": _SECTION, "model_type": _SECTION}
_PATTERNS = {
    r"^[a-z0-9][a-z0-9._-]*$": "lower case letters, digits, '.', '_' and '-' are allowed, the first a letter or digit",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "letters, digits, '.', '_' and '-' are allowed, the first a letter or digit",
}


class Settings(BaseModel):
    """Base of every settings model: frozen; an unknown field, infinity and what is not a number are errors.

    `VARIANTS` lists the classes that a class without instances of its own stands for.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, serialize_by_alias=True, allow_inf_nan=False
    )

    VARIANTS: ClassVar[tuple[type[BaseModel], ...]] = ()

    @model_validator(mode="after")
    def _secrets_known(self) -> Self:
        for name in self.model_fields_set:
            know_setting(name, getattr(self, name))
        return self


class StageSettings(Settings):
    """Base of the settings of a whole stage.

    `OUTPUT_REVISION` is a part of every key that stands for the stage's output. Raise it by one whenever equal settings
    and inputs give another output than before, so that no earlier result passes for a current one; `tests/golden` fails
    where that was forgotten.
    """

    OUTPUT_REVISION: ClassVar[int]

    def for_key(self) -> dict[str, Any]:
        """The settings as JSON values for the key of a step: limits of money and paces are as if they were not set."""
        return _without_limits(self).model_dump(mode="json")


def _without_limits(settings: Model) -> Model:
    """A copy with the default of every setting that is no part of a key, in sections too."""
    unset: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if _LIMIT in field.metadata:
            unset[name] = field.default
        elif isinstance(value, Settings):
            unset[name] = _without_limits(value)
    return settings.model_copy(update=unset)


def canonical_json(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text; `default` converts what JSON has not."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=default)


def hash_of(value: Any) -> str:
    """SHA-256, as 64 hex digits, of a JSON-like value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def parse(model: type[Model], values: Mapping[str, Any], *, where: str) -> Model:
    """Validate `values` as `model`.

    Args:
        model: a pydantic model.
        values: field names to values, as read from YAML or a pipeline parameter. Text that begins with "~/" is a path
            below the user's home.
        where: what the values are called in an error, as in "settings.yaml".

    Raises:
        SettingsError: naming each wrong field, the value seen and what is allowed.
    """
    try:
        return model.model_validate(_at_home(dict(values)))
    except ValidationError as error:
        raise SettingsError(_explain(error, model, where), action="correct the settings and start again") from None


def _at_home(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _at_home(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_at_home(inner) for inner in value]
    return os.path.expanduser(value) if isinstance(value, str) and (value == "~" or value.startswith("~/")) else value


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping.

    Raises:
        SettingsError: when the file is missing, is not YAML, has a name twice in one mapping, or holds something else.
    """
    import yaml

    if not path.is_file():
        raise SettingsError(
            f"no settings file at {looked_for(path)}", action="check the path; `examples/` holds files to start from"
        )
    try:
        values = yaml.load(text_of(path.read_bytes(), str(path)), _loader())
    except InputError as error:
        raise SettingsError(error.problem, allowed=error.allowed, action=error.action) from None
    except yaml.composer.ComposerError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise SettingsError(f"{path}, line {line}: {error.problem}", action="correct the file") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}", action=_cure(error)) from None
    except RecursionError:
        raise SettingsError(f"{path} nests deeper than can be read", action="correct the file") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path} holds a {type(values).__name__}", allowed="a mapping of settings")
    return values


def _cure(error: Exception) -> str:
    """What to do about YAML that cannot be read."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None and mark.buffer is not None and mark.buffer[: mark.pointer + 1].endswith("${"):
        return 'put text with a variable in quotes where it stands within {} or []: {path: "${name}/file"}'
    return "correct the file"


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    """PyYAML's safe loader, to which a date is text (2024-10-21 is a version of an API), and so is every name.

    A name that stands twice in a mapping is an error: PyYAML takes the last one. So is what holds itself by an alias.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def __init__(self, stream: Any) -> None:
            super().__init__(stream)
            self._around: list[str | None] = []  # anchors of what is being read

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            if isinstance(event, yaml.AliasEvent) and event.anchor in self._around:
                said = f"'*{event.anchor}' stands within what it names"
                mark: Any = event.start_mark
                raise yaml.composer.ComposerError(None, None, said, mark)
            self._around.append(event.anchor)
            node = super().compose_node(parent, index)
            self._around.pop()
            return node

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            lines: dict[str, int] = {}
            for name, _ in node.value:
                if not isinstance(name, yaml.ScalarNode) or name.tag == "tag:yaml.org,2002:merge":
                    continue
                line = name.start_mark.line + 1
                if name.value in lines:
                    said = f"'{name.value}' is set again, first on line {lines[name.value]}"
                    raise yaml.composer.ComposerError(None, None, said, name.start_mark)
                lines[name.value] = line
            return node

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            self.flatten_mapping(node)  # what `<<` merges; its names are then here
            for name, _ in node.value:
                if isinstance(name, yaml.ScalarNode):
                    name.tag = "tag:yaml.org,2002:str"
            return super().construct_mapping(node, deep)

    Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: str(node.value))
    return Loader


def load(model: type[Model], path: Path) -> Model:
    """Read and validate the YAML file at `path` as `model`."""
    return parse(model, load_yaml(path), where=str(path))


def shipped(folder: Path) -> list[str]:
    """Names of the YAML files in `folder`, a package's own, without their endings."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def shipped_or_own(folder: Path, name: str, *, kind: str, where: str, group: str = "") -> Path:
    """The YAML file that ships in `folder` as `name`, or the user's own at the path `name`.

    Args:
        folder: a package's own folder.
        name: what the user chose.
        kind: what the file holds, as in "prompt".
        where: the setting that names it, as in "judge.prompt".
        group: entry points by which installed packages add such files.

    Raises:
        SettingsError: when there is neither.
    """
    names = shipped(folder)
    path = folder / f"{name}.yaml" if name in names else Path(name)
    if not path.is_file() and group:
        names = [*(files := yaml_files(folder, group))]
        path = files.get(name, path)
    if not path.is_file():
        raise SettingsError(
            f"{where}: there is no {kind} '{name}', and no file {looked_for(name)}",
            allowed=f"{', '.join(names)}, or the path of a YAML file",
        )
    return path


def said(settings: BaseModel) -> dict[str, Any]:
    """Settings as a pipeline's parameter: what was set, without the defaults, as JSON values; `understood` reads it."""
    given = settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    if type(settings).model_validate(given) == settings:
        return given
    with_nulls: dict[str, Any] = _replaced(settings.model_dump(mode="json", exclude_unset=True), None, _NULL)
    return with_nulls


def understood(settings: dict[str, Any]) -> dict[str, Any]:
    """The values of settings that `said` made a parameter of."""
    values: dict[str, Any] = _replaced(settings, _NULL, None)
    return values


def _replaced(value: Any, old: Any, new: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(inner, old, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, old, new) for inner in value]
    return new if value == old else value


def with_overrides(values: Mapping[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Apply `a.b=value` overrides (values are YAML) to a mapping, as `--set` gives them.

    Raises:
        SettingsError: when an override has no `=` or passes through something that is no mapping.
    """
    import yaml

    merged: dict[str, Any] = _unshared(values)
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals:
            raise SettingsError(
                f"--set {override}: no '=' in it", allowed="--set name=value, or --set section.name=value"
            )
        place = merged
        *parents, last = dotted.split(".")
        for parent in parents:
            if place.get(parent) is None:  # a section without anything in it
                place[parent] = {}
            place = place[parent]
            if not isinstance(place, dict):
                raise SettingsError(f"--set {override}: '{parent}' is not a section", allowed="section.name=value")
        try:
            place[last] = yaml.load(text, _loader())
        except (yaml.YAMLError, RecursionError):
            raise SettingsError(f"--set {override}: '{text}' is not a YAML value") from None
    return merged


def filled(values: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Settings with their section `variables` put in: its values stand in for `${name}` in any other text.

    Args:
        values: the content of a settings file, which may have the section.
        where: what the values are called in an error, as in "settings.yaml".

    Raises:
        SettingsError: when the section is no mapping, or a variable is not defined.
    """
    others = dict(values)
    variables = others.pop("variables", None) or {}
    if not isinstance(variables, Mapping):
        raise SettingsError(f"{where}: variables: seen {variables!r}", allowed="a mapping of names to values")
    made: dict[str, Any] = _filled(others, variables, where)
    return made


def _filled(value: Any, variables: Mapping[str, Any], where: str) -> Any:
    def replacement(match: re.Match[str]) -> str:
        if match[1] not in variables:
            allowed = ", ".join(variables) or "none: the file has no section `variables`"
            raise SettingsError(f"{where}: the variable ${{{match[1]}}} is not defined", allowed=allowed)
        return str(variables[match[1]])

    if isinstance(value, Mapping):
        return {key: _filled(inner, variables, where) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, variables, where) for inner in value]
    return re.sub(r"\$\{(\w+)\}", replacement, value) if isinstance(value, str) else value


def _unshared(value: Any) -> Any:
    """A copy of which no two places are one: what YAML's aliases name twice is changed in one place by an override."""
    if isinstance(value, Mapping):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    problems = error.errors(include_url=False)
    lines = [f"{where}: {len(problems)} wrong setting{'s' if len(problems) > 1 else ''}"]
    for problem in problems:
        location, seen = problem["loc"], problem["input"]
        here, names = _at(model, location)
        field, kind = ".".join(names), str(problem.get("ctx", {}).get("discriminator", "")).strip("'")
        if problem["type"] == "extra_forbidden":
            told = f"unknown setting{_suggestion(model, location)}"
        elif problem["type"] == "missing":
            told = "missing"
        elif problem["type"] == "union_tag_not_found":
            field, told = f"{field}.{kind}", f"missing; allowed: {', '.join(_kinds(here, kind))}"
        elif problem["type"] == "union_tag_invalid":
            field, told = (
                f"{field}.{kind}",
                f"seen {shown_input(kind, seen[kind])}; allowed: {', '.join(_kinds(here, kind))}",
            )
        else:
            message = problem["msg"].removeprefix("Value error, ")
            message = _WORDS.get(problem["type"], message[0].lower() + message[1:])
            message = _PATTERNS.get(problem.get("ctx", {}).get("pattern", ""), message)
            # What a validator says of several fields together names their values itself.
            of_fields = problem["type"] == "value_error" and isinstance(seen, Mapping)
            told = message if of_fields else f"seen {shown_input(names[-1] if names else '', seen)}; {message}"
        lines.append(f"  {field}: {told}" if field else f"  {told}")
    return shown("\n".join(lines))


def all_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a settings class; of one that stands for several (`VARIANTS`), also those that only some have."""
    fields = dict(model.model_fields)
    for variant in vars(model).get("VARIANTS", ()):
        fields |= {name: field for name, field in variant.model_fields.items() if name not in fields}
    return fields


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models inside an annotation such as `X`, `list[X]`, `X | None` or a union of several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_in(inner)]


def _at(model: type[BaseModel], location: Iterable[int | str]) -> tuple[list[type[BaseModel]], list[str]]:
    """The models that may stand at a place, and its names without the kinds that pydantic puts between them."""
    here, names = [model], []
    for part in location:
        fields = [
            field.annotation
            for candidate in here
            for name, field in all_fields(candidate).items()
            if part in (name, field.alias)
        ]
        of_kind = [c for c in here if any(part in get_args(field.annotation) for field in c.model_fields.values())]
        if not fields and of_kind:
            here = of_kind
            continue
        names.append(str(part))
        here = [inner for annotation in fields for inner in models_in(annotation)] if fields else here
    return here, names


def _kinds(models: Iterable[type[BaseModel]], field: str) -> list[str]:
    """What the field that tells the members of a union apart may say."""
    return [kind for model in models for kind in get_args(model.model_fields[field].annotation)]


def _suggestion(model: type[BaseModel], location: Sequence[int | str]) -> str:
    """What the author of an unknown setting may have meant: a close name, here or in a section around, or all names."""
    for depth in range(len(location) - 1, -1, -1):
        here, names = _at(model, location[:depth])
        if close := difflib.get_close_matches(str(location[-1]), _settings_of(here), n=1, cutoff=0.75):
            return f"; did you mean '{'.'.join([*(names if depth < len(location) - 1 else []), close[0]])}'?"
    known = _settings_of(_at(model, location[:-1])[0])
    return f"; allowed: {', '.join(known)}" if known else ""


def _settings_of(models: Iterable[type[BaseModel]]) -> list[str]:
    return list(dict.fromkeys(field.alias or name for model in models for name, field in all_fields(model).items()))
