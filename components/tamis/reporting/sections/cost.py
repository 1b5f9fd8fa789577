"""Time, memory and money of the run, its models and versions, and what is needed to reproduce it."""

from __future__ import annotations

import json

from tamis.reporting.blocks import Cell, Details, Section, Table, Text
from tamis.reporting.evidence import Evidence
from tamis.reporting.numbers import count, decimal, duration, known, listed, memory

ANCHOR = "cost"
_DIGITS = 16  # of a hash, in a table; the settings below it have all


def build(evidence: Evidence) -> Section:
    """Seconds, memory and money by artifact, models and versions, hashes and settings."""
    section = Section(ANCHOR, "Cost and reproduction")
    manifests = [artifact.manifest for artifact in evidence.artifacts]
    total = sum(manifest.execution.seconds for manifest in manifests)
    peak = max(manifest.execution.peak_memory_bytes for manifest in manifests)
    costs = [cost if known(cost := manifest.facts.get("cost")) else None for manifest in manifests]
    paid = sum(cost for cost in costs if cost is not None)
    services = f" Services cost {decimal(paid)} at the prices in the settings." if any(costs) else ""
    section.add(
        Text(
            f"The stages that made this report's inputs took {duration(total)} in total; none used more than "
            f"{memory(peak)} of memory. Embedding and neighbour search are not inputs of the report and are not "
            f"included.{services}",
            lead=True,
        )
    )
    titles = [_title(manifest.kind, manifest.name) for manifest in manifests]
    section.add(
        Table(
            "Time and memory",
            ["artifact", "rows", "time", "peak memory", *(["money"] if services else []), "started (UTC)"],
            [
                [
                    title,
                    count(manifest.rows),
                    duration(manifest.execution.seconds),
                    memory(manifest.execution.peak_memory_bytes),
                    *([decimal(cost)] if services else []),
                    manifest.execution.started.replace("T", " ").removesuffix("+00:00"),
                ]
                for title, manifest, cost in zip(titles, manifests, costs, strict=True)
            ],
            note="For a stage that was reused, the time is that of the run that made it.",
        )
    )
    models = [
        [title, role, revision]
        for title, manifest in zip(titles, manifests, strict=True)
        for role, revision in sorted(manifest.models.items())
    ]
    if models:
        section.add(Table("Models", ["artifact", "role", "revision"], models, words=("role", "revision")))
    section.add(_versions(evidence))
    section.add(
        Table(
            "Hashes",
            ["artifact", "settings", "content"],
            [
                [title, *(Cell(text[:_DIGITS], title=text) for text in (manifest.config_hash, manifest.content_hash))]
                for title, manifest in zip(titles, manifests, strict=True)
            ],
            words=("settings", "content"),
            note="The same settings and inputs give the same content. Each manifest.json has the full hashes.",
        )
    )
    for title, manifest in zip(titles, manifests, strict=True):
        text = json.dumps(manifest.config, indent=2, ensure_ascii=False, sort_keys=True)
        section.add(Details(f"Settings of {title}", text))
    return section


def _title(kind: str, name: str) -> str:
    return f"{kind} {name}" if name else kind


def _versions(evidence: Evidence) -> Table:
    """Package versions; a package with different versions in different stages is listed with all of them."""
    seen: dict[str, list[str]] = {}
    for artifact in evidence.artifacts:
        for package, version in artifact.manifest.versions.items():
            seen.setdefault(package, [])
            if version not in seen[package]:
                seen[package].append(version)
    rows: list[list[Cell | str]] = [
        [package, Cell(listed(versions), "bad" if len(versions) > 1 else "")]
        for package, versions in sorted(seen.items())
    ]
    mixed = any(len(versions) > 1 for versions in seen.values())
    note = "More than one version: stages ran in different environments." if mixed else ""
    return Table("Versions", ["package", "version"], rows, words=("version",), note=note)
