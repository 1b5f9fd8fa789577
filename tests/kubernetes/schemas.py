"""Validation of objects against the schemas of Kubernetes and of custom resources."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

VERSIONS = [f"1.{minor}" for minor in range(28, 38)]
CRDS = "TAMIS_TEST_CRDS"  # folder with the CustomResourceDefinitions of Kueue, JobSet and Kubeflow Trainer
_seen: set[str] = set()


def is_custom(document: dict[str, Any]) -> bool:
    """Whether an object is of a kind that Kubernetes itself does not have."""
    group = document["apiVersion"].rpartition("/")[0]
    return ("." in group and not group.endswith(".k8s.io")) or group.startswith("kueue.") or group.startswith("jobset.")


def check_builtin(document: dict[str, Any]) -> None:
    """Check an object of Kubernetes itself against every version's schema; unknown fields are errors."""
    import kubernetes_validate

    text = json.dumps(document, sort_keys=True)
    if text in _seen:
        return
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)
    _seen.add(text)


@lru_cache
def custom_schemas() -> dict[tuple[str, str], dict[str, Any]]:
    """JSON Schemas of the custom resources by apiVersion and kind; skips the test where there are none."""
    folder = os.environ.get(CRDS)
    if not folder:
        pytest.skip(f"{CRDS} names no folder with CustomResourceDefinitions")
    found = {}
    for file in sorted(Path(folder).glob("*.yaml")):
        for definition in yaml.load_all(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if definition is None:
                continue
            spec = definition["spec"]
            for version in spec["versions"]:
                key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                found[key] = _as_json_schema(version["schema"]["openAPIV3Schema"], top=True)
    return found


def _as_json_schema(structural: dict[str, Any], top: bool = False) -> dict[str, Any]:
    """A structural schema as JSON Schema: unknown fields refused, null where nullable, numbers and strings as one."""
    schema: dict[str, Any] = {k: v for k, v in structural.items() if not k.startswith("x-") and k != "nullable"}
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            schema[key] = [_as_json_schema(inner) | {} for inner in schema[key]]
            for inner in schema[key]:
                inner.pop("additionalProperties", None)
    if "properties" in schema:
        schema["properties"] = {k: _as_json_schema(v) for k, v in schema["properties"].items()}
        if top:
            schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
        if not structural.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = _as_json_schema(schema["additionalProperties"])
    if "items" in schema:
        schema["items"] = _as_json_schema(schema["items"])
    if structural.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
        schema.pop("anyOf", None)
        schema["type"] = ["integer", "string"]
    if structural.get("nullable") and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    return schema


def errors_of_custom(document: dict[str, Any]) -> Iterator[str]:
    """What a custom resource's schema has against an object."""
    from jsonschema import Draft202012Validator

    schema = custom_schemas().get((document["apiVersion"], document["kind"]))
    if schema is None:
        yield f"no schema of {document['apiVersion']} {document['kind']}"
        return
    for error in Draft202012Validator(schema).iter_errors(document):
        yield f"{error.json_path}: {error.message}"
