"""Settings: from YAML to validated pydantic models, with errors that say what is allowed."""

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
"""A setting that may stop a step early but does not change its result. It is not part of the step's key."""
Pace: TypeAlias = Annotated[bool, _LIMIT]
"""A setting for how soon a step requests its answers, which does not change its result. It is not part of the key."""
Processes: TypeAlias = Annotated[int | None, _LIMIT]
"""A number of processes, which does not change the result. It is not part of the key."""
_NULL = "<null>"  # stands for null in a pipeline's parameters, because kfp has no null
# Replacements for messages of pydantic that only programmers understand.
_SECTION = "it must be a section, as in {setting: value}"
_MESSAGES = {"list_type": "it must be a list, as in [first, second]", "dict_type": _SECTION, "model_type": _SECTION}
_PATTERNS = {
    r"^[a-z0-9][a-z0-9._-]*$": "allowed: lower case letters, digits, '.', '_', '-'; a letter or digit first",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "allowed: letters, digits, '.', '_', '-'; a letter or digit first",
}


class Settings(BaseModel):
    """Base of every settings model. It is frozen; unknown fields, infinity and NaN are errors.

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

    `OUTPUT_REVISION` is part of the key of the stage's output. Raise it by one whenever equal settings and inputs give
    a different output than before, so that no outdated result is reused. `tests/golden` fails if that was forgotten.
    """

    OUTPUT_REVISION: ClassVar[int]

    def for_key(self) -> dict[str, Any]:
        """The settings as JSON values for a step's key, without money limits and paces."""
        return _without_limits(self).model_dump(mode="json")


def _without_limits(settings: Model) -> Model:
    """A copy in which every setting that is not part of a key has its default, also in sections."""
    unset: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if _LIMIT in field.metadata:
            unset[name] = field.default
        elif isinstance(value, Settings):
            unset[name] = _without_limits(value)
    return settings.model_copy(update=unset)


def canonical_json(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """JSON with sorted keys and no spaces, so that equal values give equal text.

    `default` converts values that JSON cannot represent.
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=default)


def hash_of(value: Any) -> str:
    """SHA-256, as 64 hex digits, of a JSON-like value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def parse(model: type[Model], values: Mapping[str, Any], *, where: str) -> Model:
    """Validate `values` as `model`.

    Args:
        model: a pydantic model.
        values: field names to values, as read from YAML or a pipeline parameter. Text that begins with "~/" is a path
            in the user's home.
        where: the source of the values, for errors, as in "settings.yaml".

    Raises:
        SettingsError: naming each wrong field, its value and what is allowed.
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
    """Read a YAML file that contains one mapping.

    Raises:
        SettingsError: when the file is missing, is not YAML, repeats a name in a mapping, or is not a mapping.
    """
    import yaml

    if not path.is_file():
        raise SettingsError(
            f"there is no settings file {looked_for(path)}", action="check the path; `examples/` has example files"
        )
    try:
        values = yaml.load(text_of(path.read_bytes(), str(path)), _loader())
    except InputError as error:
        raise SettingsError(error.problem, allowed=error.allowed, action=error.action) from None
    except yaml.composer.ComposerError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise SettingsError(f"{path}, line {line}: {error.problem}", action="correct the file") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}", action=_action_for(error)) from None
    except RecursionError:
        raise SettingsError(f"{path} is nested too deeply", action="correct the file") from None
    if not isinstance(values, dict):
        raise SettingsError(f"{path} contains a {type(values).__name__}", allowed="a mapping of settings")
    return values


def _action_for(error: Exception) -> str:
    """What to do about YAML that cannot be read."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None and mark.buffer is not None and mark.buffer[: mark.pointer + 1].endswith("${"):
        return 'put text with a variable in quotes inside {} and []: {path: "${name}/file"}'
    return "correct the file"


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    """PyYAML's safe loader with dates and names read as text (2024-10-21 is a version of an API).

    A repeated name in a mapping is an error, where PyYAML would use the last value. So is a value that contains itself
    through an alias.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def __init__(self, stream: Any) -> None:
            super().__init__(stream)
            self._around: list[str | None] = []  # anchors of the nodes around the current one

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]
            if isinstance(event, yaml.AliasEvent) and event.anchor in self._around:
                problem = f"'*{event.anchor}' is inside the value that it names"
                mark: Any = event.start_mark
                raise yaml.composer.ComposerError(None, None, problem, mark)
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
                    problem = f"'{name.value}' is already set on line {lines[name.value]}"
                    raise yaml.composer.ComposerError(None, None, problem, name.start_mark)
                lines[name.value] = line
            return node

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            self.flatten_mapping(node)  # resolves `<<`, so that the merged names are in this node
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
    """Names of the YAML files in a package's `folder`, without the ending."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def shipped_or_own(folder: Path, name: str, *, kind: str, where: str, group: str = "") -> Path:
    """The YAML file that ships in `folder` as `name`, or the user's own file at the path `name`.

    Args:
        folder: a package's folder.
        name: the value of the setting.
        kind: the kind of file, as in "prompt".
        where: the setting, as in "judge.prompt".
        group: group of entry points with which installed packages add such files.

    Raises:
        SettingsError: when neither exists.
    """
    names = shipped(folder)
    path = folder / f"{name}.yaml" if name in names else Path(name)
    if not path.is_file() and group:
        names = [*(files := yaml_files(folder, group))]
        path = files.get(name, path)
    if not path.is_file():
        raise SettingsError(
            f"{where}: there is neither a {kind} '{name}' nor a file {looked_for(name)}",
            allowed=f"{', '.join(names)}, or the path of a YAML file",
        )
    return path


def said(settings: BaseModel) -> dict[str, Any]:
    """Settings as a pipeline parameter: JSON values, without defaults. `understood` reads it."""
    given = settings.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    if type(settings).model_validate(given) == settings:
        return given
    with_nulls: dict[str, Any] = _replaced(settings.model_dump(mode="json", exclude_unset=True), None, _NULL)
    return with_nulls


def understood(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings' values in a parameter that `said` made."""
    values: dict[str, Any] = _replaced(settings, _NULL, None)
    return values


def _replaced(value: Any, old: Any, new: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(inner, old, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, old, new) for inner in value]
    return new if value == old else value


def with_overrides(values: Mapping[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Apply overrides `a.b=value` of `--set` to a mapping. Values are YAML.

    Raises:
        SettingsError: when an override has no `=`, or its path leads through a value that is not a mapping.
    """
    import yaml

    merged: dict[str, Any] = _unshared(values)
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals:
            raise SettingsError(
                f"--set {override}: there is no '='", allowed="--set name=value, or --set section.name=value"
            )
        place = merged
        *parents, last = dotted.split(".")
        for parent in parents:
            if place.get(parent) is None:  # an empty section
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
    """Replace `${name}` in all texts by the values of the section `variables`, and remove that section.

    Args:
        values: the content of a settings file, with or without the section.
        where: the source of the values, for errors, as in "settings.yaml".

    Raises:
        SettingsError: when the section is not a mapping, or a variable is not defined.
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
    """A deep copy without shared parts, so that an override changes one place and not all aliases in the YAML."""
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
            text = f"unknown setting{_suggestion(model, location)}"
        elif problem["type"] == "missing":
            text = "missing"
        elif problem["type"] == "union_tag_not_found":
            field, text = f"{field}.{kind}", f"missing; allowed: {', '.join(_kinds(here, kind))}"
        elif problem["type"] == "union_tag_invalid":
            field, text = (
                f"{field}.{kind}",
                f"seen {shown_input(kind, seen[kind])}; allowed: {', '.join(_kinds(here, kind))}",
            )
        else:
            message = problem["msg"].removeprefix("Value error, ")
            message = _MESSAGES.get(problem["type"], message[0].lower() + message[1:])
            message = _PATTERNS.get(problem.get("ctx", {}).get("pattern", ""), message)
            # The message of a validator of several fields names their values itself.
            of_fields = problem["type"] == "value_error" and isinstance(seen, Mapping)
            text = message if of_fields else f"seen {shown_input(names[-1] if names else '', seen)}; {message}"
        lines.append(f"  {field}: {text}" if field else f"  {text}")
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
    """The models possible at a location, and its names without the kinds that pydantic inserts."""
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
    """The allowed values of the field that distinguishes the members of a union."""
    return [kind for model in models for kind in get_args(model.model_fields[field].annotation)]


def _suggestion(model: type[BaseModel], location: Sequence[int | str]) -> str:
    """A suggestion for an unknown setting: a similar name here or in an outer section, otherwise all names."""
    for depth in range(len(location) - 1, -1, -1):
        here, names = _at(model, location[:depth])
        if close := difflib.get_close_matches(str(location[-1]), _settings_of(here), n=1, cutoff=0.75):
            return f"; did you mean '{'.'.join([*(names if depth < len(location) - 1 else []), close[0]])}'?"
    known = _settings_of(_at(model, location[:-1])[0])
    return f"; allowed: {', '.join(known)}" if known else ""


def _settings_of(models: Iterable[type[BaseModel]]) -> list[str]:
    return list(dict.fromkeys(field.alias or name for model in models for name, field in all_fields(model).items()))
