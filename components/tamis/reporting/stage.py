"""The reporting stage: writes a page with tables and plots from a run's artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import tamis
from tamis.core.artifacts import Manifest
from tamis.core.failures import Failure
from tamis.core.progress import Progress, load_packages, timed
from tamis.core.secrets import masked
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.reporting.settings import ReportingSettings


def run(
    settings: ReportingSettings,
    *,
    pool: Uri,
    ratings: Sequence[Uri] = (),
    curation: Uri | None = None,
    selections: Sequence[Uri] = (),
    models: Sequence[Uri] = (),
    evaluations: Sequence[Uri] = (),
    judgements: Sequence[Uri] = (),
    signals: Uri | None = None,
    failed: Sequence[Failure] = (),
    out: Uri,
) -> Manifest:
    """Write the report of a run; `out` holds `report.html`, `results.csv`, `results.md` and `plots/`.

    A section without input is left out. `failed` are the cells without a result, which the page lists with their
    reasons. `facts["headline"]` is the report in a few sentences, `facts["failed"]` has the failed cells.

    Raises:
        InputError: when an artifact was made from another pool, or the pool has no field `truth` or `group`.
    """
    inputs = {
        "pool": Input(pool, "pool"),
        "ratings": Input(ratings, "ratings"),
        "curation": Input(curation, "curation"),
        "selections": Input(selections, "selection"),
        "models": Input(models, "model"),
        "evaluations": Input(evaluations, "evaluation"),
        "judgements": Input(judgements, "judgement"),
    }
    if signals is not None:  # so that the keys of reports without signals do not change
        inputs["signals"] = Input(signals, "signals")
    body = partial(_report, failed=list(failed))
    files = {f"failed {failure.name} {failure.stage}": failure.model_dump_json() for failure in failed}
    return run_step("reporting", "report", settings, body, out=out, inputs=inputs, files=files, tells_origins=True)


def _report(step: Step[ReportingSettings], *, failed: list[Failure]) -> None:
    load_packages("matplotlib.figure")
    from tamis.reporting import render
    from tamis.reporting.evidence import read_evidence
    from tamis.reporting.headline import headline
    from tamis.reporting.numbers import without_controls
    from tamis.reporting.sections import (
        bias,
        cost,
        curation,
        evaluation,
        experiment,
        judging,
        pool,
        ratings,
        signals,
        subsets,
        truth,
    )
    from tamis.reporting.style import save

    with timed("comparing the run's artifacts", "compared the run's artifacts", at_once=False):
        evidence = read_evidence(step, failed)
        parts = (pool, signals, ratings, curation, truth, bias, subsets, experiment, evaluation, judging, cost)
        sections = [section for part in parts if (section := part.build(evidence)).blocks]
    folder = step.out / "plots"
    folder.mkdir()
    plots, figures = {}, [figure for section in sections for figure in section.figures]
    with Progress("report", len(figures), unit="plots") as drawn:
        for figure in figures:
            plots[figure.name] = save(figure, folder)
            drawn.advance()
    said = headline(sections)
    texts = {
        "report.html": render.page(step.settings, sections, plots, tamis.__version__),
        "results.csv": render.results_csv(sections),
        # Times differ from run to run, so they are only on the page: equal runs have equal results.
        "results.md": render.results_markdown(step.settings, said, [s for s in sections if s.anchor != cost.ANCHOR]),
    }
    for name, text in texts.items():
        # Artifacts of an older version may contain a secret.
        (step.out / name).write_text(without_controls(masked(text)), encoding="utf-8")
    step.rows = sum(len(section.results) for section in sections)
    step.facts.update(headline=said, sections=[section.anchor for section in sections], plots=len(plots))
    step.facts["failed"] = [failure.model_dump(mode="json", exclude={"settings"}) for failure in failed]
