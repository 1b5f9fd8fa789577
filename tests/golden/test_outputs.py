"""Every stage still makes what its revision says: finished results of users pass for current by that number.

Where a stage's output is meant to change, raise `OUTPUT_REVISION` in its `settings.py`, then write what it makes now:

    make golden
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.golden.cases import CASES, CHAOTIC, Models
from tests.golden.digests import differences, digest

_EXPECTED = Path(__file__).parent / "expected"
_ALL = [(stage, name) for stage, cases in CASES.items() for name in cases]


def expected_of(stage: str) -> dict[str, Any]:
    """`revision` of the stage's output and the digest of each of its `cases`."""
    file = _EXPECTED / f"{stage}.json"
    known: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"revision": 0, "cases": {}}
    return known


def write(stage: str, name: str, revision: int, seen: dict[str, Any]) -> None:
    """Make `seen` what is expected; a known case changes only where the revision was raised."""
    known = expected_of(stage)
    changed = known["cases"].get(name) not in (None, seen)
    assert revision > known["revision"] or not changed, f"raise OUTPUT_REVISION of {stage} first"
    cases = known["cases"] if revision == known["revision"] else {}
    cases = {case: cases[case] for case in CASES[stage] if case in cases} | {name: seen}
    text = json.dumps({"revision": revision, "cases": cases}, indent=1, sort_keys=True)
    _EXPECTED.mkdir(exist_ok=True)
    (_EXPECTED / f"{stage}.json").write_text(text + "\n")


@pytest.mark.parametrize(("stage", "name"), _ALL, ids=[f"{stage}: {name}" for stage, name in _ALL])
def test_outputs_are_those_of_the_stage_s_revision(
    stage: str, name: str, models: Path, tiny: Path, tmp_path: Path
) -> None:
    folders = Models(str(models / "minilm"), str(models / "smollm2"), str(tiny))
    manifest = CASES[stage][name](tmp_path, folders)
    seen = digest(tmp_path / "out", manifest, [str(tmp_path), *vars(folders).values()])
    known = expected_of(stage)
    if os.environ.get("TAMIS_WRITE_GOLDEN"):
        if differences(seen, known["cases"].get(name, {})) or manifest.revision != known["revision"]:
            write(stage, name, manifest.revision, seen)
        return
    assert manifest.revision == known["revision"], "the revision was raised: run `make golden`"
    told = differences(seen, known["cases"].get(name, {}), chaotic=(stage, name) in CHAOTIC)
    assert not told, "\n".join(["the output has changed: raise OUTPUT_REVISION, then `make golden`", *told])


def test_every_stage_has_a_case() -> None:
    from tamis.core.settings import StageSettings

    stages = {
        kind.__module__.split(".")[1] for kind in StageSettings.__subclasses__() if kind.__module__[:6] == "tamis."
    }
    assert stages <= CASES.keys()


def test_nothing_is_expected_of_cases_that_are_gone() -> None:
    for file in _EXPECTED.glob("*.json"):
        assert json.loads(file.read_text())["cases"].keys() == CASES[file.stem].keys()
