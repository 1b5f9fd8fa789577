"""The Kubeflow component on a real run."""

from __future__ import annotations

from pathlib import Path

from kfp import dsl

from tamis.reporting.component import report
from tests.unit.reporting.example import make_run


def test_the_component_writes_report_page_and_metrics(tmp_path: Path) -> None:
    run = make_run(tmp_path)

    def given(kind: type[dsl.Artifact], path: Path) -> dsl.Artifact:
        return kind(name=path.name, uri=str(path), metadata={})

    made = given(dsl.Artifact, tmp_path / "report")
    page, metrics = given(dsl.HTML, tmp_path / "page.html"), given(dsl.Metrics, tmp_path / "metrics")
    base, *others = run.evaluations
    report.python_func(
        pool=given(dsl.Dataset, run.pool),
        ratings=[given(dsl.Dataset, path) for path in run.ratings],
        curation=given(dsl.Dataset, run.curation),
        selections=[given(dsl.Dataset, path) for path in run.selections],
        settings={"title": "From Kubeflow", "examples": 3.0, "truth": "grade"},
        report=made,
        page=page,
        metrics=metrics,
        models=[given(dsl.Model, path) for path in run.models],
        evaluations=[given(dsl.Artifact, path) for path in others],
        base_evaluations=[given(dsl.Artifact, base)],
    )
    assert Path(page.path).read_bytes() == (tmp_path / "report" / "report.html").read_bytes()
    assert made.metadata["kind"] == "report"
    assert metrics.metadata["plots"] > 15
    assert "the base model 34.2" in Path(page.path).read_text(encoding="utf-8")
