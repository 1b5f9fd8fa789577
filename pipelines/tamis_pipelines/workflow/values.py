"""The values of a compiled pipeline's inputs, as Kubeflow's drivers compute them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Ir = dict[str, Any]
_ELEMENT = re.compile(r'parseJson\(string_value\)\["([^"]+)"\]')


def parameters_of(ir: Ir, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a pipeline's parameters in a run with `arguments`."""
    declared = ir["root"].get("inputDefinitions", {}).get("parameters", {})
    defaults = {name: one["defaultValue"] for name, one in declared.items() if "defaultValue" in one}
    return defaults | {name: value for name, value in arguments.items() if name in declared}


def inputs_of(task: Ir, given: Mapping[str, Any], outputs: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """The values of a task's parameters.

    Args:
        task: the task.
        given: parameters of the DAG that it is in.
        outputs: output parameters of that DAG's tasks, by task and name.
    """
    sources = task.get("inputs", {}).get("parameters", {})
    return {name: _value(source, given, outputs) for name, source in sources.items()}


def _value(source: Ir, given: Mapping[str, Any], outputs: Mapping[tuple[str, str], Any]) -> Any:
    if "runtimeValue" in source:
        return source["runtimeValue"]["constant"]
    if "taskOutputParameter" in source:
        made = source["taskOutputParameter"]
        value = outputs[made["producerTask"], made["outputParameterKey"]]
    elif "componentInputParameter" in source:
        value = given[source["componentInputParameter"]]
    else:  # the run's final status
        return ""
    element = _ELEMENT.fullmatch(source.get("parameterExpressionSelector", ""))
    return value[element[1]] if element else value


def outputs_of(name: str, component: Ir, inputs: Mapping[str, Any]) -> dict[tuple[str, str], Any]:
    """The output parameters of a step: Tamis' steps only hand on inputs of the same names, with little changed."""
    return {(name, key): inputs.get(key, []) for key in component.get("outputDefinitions", {}).get("parameters", {})}


def items_of(task: Ir, inputs: Mapping[str, Any]) -> list[Any] | None:
    """The items of a loop; None if the task is no loop."""
    loop = task.get("parameterIterator")
    if loop is None:
        return None
    items: list[Any] = inputs[loop["items"]["inputParameter"]]
    return items
