"""A dry run as text: what would be sent to Kubeflow, and a summary at the end, where a terminal shows it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tamis_pipelines.remote import Order

_WIDTH = 120
_MOUNTED = {"model_cache": "model_cache", "work": "work_volume"}  # claims, with the field that mounts them


def as_text(order: Order, **more: str) -> str:
    """Return what `order` sends, then its summary.

    Args:
        order: the run.
        more: lines of the summary that only some commands have.
    """
    objects = {
        name: value for name, value in order.constants.items() if name not in _MOUNTED or order.compiled[_MOUNTED[name]]
    }
    title = "the uploaded package must have" if order.version else "compiled in, kubeflow.compiled"
    sections = {"parameters": order.arguments, "compiled in, pods": objects, title: order.compiled}
    lines = [line for title, values in sections.items() if values for line in (f"{title}:", _yaml(values), "")]
    return "\n".join([*lines, *_groups(order), *_summary(order, more)])


def _summary(order: Order, more: Mapping[str, str]) -> Iterator[str]:
    what = f"version {order.version}" if order.version else "compiled now"
    lines = {"pipeline": f"{order.pipeline} ({what})", "run": f"{order.name} in {order.experiment}", **more}
    if order.version:
        lines["upload"] = f"{order.upload} makes the version that this run needs; it is compared when you submit"
    parallelism = order.compiled["parallelism"]
    lines |= {
        "workflow": order.workflow,
        "at once": f"{parallelism} raters or groups of cells (parallelism)"
        if parallelism
        else "no limit (parallelism)",
        "costs": order.costs,
        "root": order.root or "the server's",
        "account": order.service_account or "the server's",
    }
    for name, value in lines.items():
        if value:
            yield f"{name + ':':<11} {value}"


def _groups(order: Order) -> Iterator[str]:
    """Yield a line for each group of cells that share pods."""
    groups = order.arguments.get("cells", ())
    if all(len(group["subset"]) == 1 for group in groups):
        return
    for number, group in enumerate(groups, start=1):
        names = ", ".join(subset["name"] for subset in group["subset"])
        yield textwrap.fill(f"group {number}: {names}", _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    yield ""


def _yaml(values: Mapping[str, Any]) -> str:
    """Return YAML with the innermost mappings and lists in one line each."""
    shown = yaml.safe_dump(dict(values), sort_keys=True, allow_unicode=True, default_flow_style=None, width=_WIDTH)
    return textwrap.indent(shown.rstrip("\n"), "  ")
