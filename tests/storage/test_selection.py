"""Selection and comparison with every input and output in object storage."""

from __future__ import annotations

from pathlib import Path

from tamis.comparison.subsets import compare_report
from tamis.core.artifacts import Artifact
from tamis.core.settings import parse
from tamis.core.storage import exists, locate, read_bytes, upload, write_bytes
from tamis.rating.drawing import draw
from tamis.rating.settings import RatingSettings
from tamis.selection.settings import SelectionSettings
from tamis.selection.stage import run
from tamis.selection.to_rate import next_ratings
from tests.artifacts import conversation, make_curation, make_pool
from tests.unit.selection.test_to_rate import make_run, rate, rows_of


def test_subsets_are_made_and_compared_in_object_storage(remote: str, tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", [conversation(f"Question {i}", f"Answer {i}") for i in range(12)])
    ids = Artifact.open(pool).table(["id"])["id"].to_pylist()
    make_curation(tmp_path / "curation", [{"id": i, "score": n % 6, "diversity": 0.5} for n, i in enumerate(ids)])
    for kind in ("pool", "curation"):
        for file in (tmp_path / kind).iterdir():
            upload(file, locate(f"{remote}/{kind}/{file.name}"))
    write_bytes(locate(f"{remote}/no.txt"), f"{ids[5]}\n".encode())

    for strategy in ("ds2", "random"):
        settings = SelectionSettings(name=strategy, strategy=strategy, size=4, exclude=(f"{remote}/no.txt",))
        inputs = {"pool": f"{remote}/pool", "curation": f"{remote}/curation"}
        there = run(settings, **inputs, out=f"{remote}/{strategy}")
        assert there.facts["not_eligible"] == {"excluded": 1}
    # Classes 5 and 4 have two samples each; one of class 5 is excluded, so one of class 3 comes in.
    assert there.rows == 4
    picked = Artifact.open(f"{remote}/ds2", "selection", cache=tmp_path / "cache").manifest.facts["score_classes"]
    assert picked == {"0": 0, "1": 0, "2": 0, "3": 1, "4": 2, "5": 1}

    text = compare_report([f"{remote}/ds2", f"{remote}/random"], **inputs, out=f"{remote}/compared")
    assert read_bytes(locate(f"{remote}/compared/comparison.md")).decode() == text
    assert exists(locate(f"{remote}/compared/comparison.png"))


def test_samples_to_rate_are_named_and_taken_in_object_storage(remote: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", rows_of())
    rate(folder, cost=1.0)
    for file in folder.rglob("*"):
        if file.is_file():
            upload(file, locate(f"{remote}/run/{file.relative_to(folder).as_posix()}"))
    said = [next_ratings(f"{remote}/run", subset="best", size=2) for _ in range(2)]
    assert [text.splitlines()[-1] for text in said] == [f"to rate: {remote}/run/to-rate-{n}.txt" for n in (1, 2)]
    backend = {"kind": "openai", "model": "m", "api_key_env": None}
    values = {"name": "r", "backend": backend, "sample": 2, "also": f"{remote}/run/to-rate-1.txt"}
    drawn = draw(parse(RatingSettings, values, where="here"), Artifact.open(folder / "pool"))
    assert drawn is not None
    assert drawn.mask[[30, 31]].all()
