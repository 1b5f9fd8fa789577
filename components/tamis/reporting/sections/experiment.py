"""The experiment: strategies and tasks over seeds, scores by subset size, failed cells."""

from __future__ import annotations

from statistics import fmean

from tamis.reporting import reference
from tamis.reporting.blocks import Cell, Figure, Figures, KeyFigure, Section, Table, Text, Warnings
from tamis.reporting.charts import Curve, curves
from tamis.reporting.evidence import Evidence
from tamis.reporting.experiment import Group, Spread
from tamis.reporting.numbers import DASH, clipped, count, listed, plural, slugs
from tamis.reporting.outcomes import Evaluations
from tamis.reporting.sections.shared import Scale, scale_of

_REASON = 300  # characters of a failure's reason on the page
_PLOTS = 8  # tasks with a plot of their own
_UNTRAINED = "no training"


def build(evidence: Evidence) -> Section:
    """Main table, curves over sizes, published figures next to ours, cells without a result."""
    section = Section("experiment", "Experiment")
    trained = [group for group in evidence.groups if group.model or any(cell.scores for cell in group.cells)]
    evaluations = evidence.evaluations
    if not trained or evaluations is None or not evaluations.scores:
        if evidence.failed:
            section.add(Text("There is nothing to compare.", lead=True))
    else:
        _compare(trained, evaluations, evidence, section)
    if evidence.failed:
        section.add(*_failures(evidence))
    return section


def _compare(groups: list[Group], evaluations: Evaluations, evidence: Evidence, section: Section) -> None:
    scale = scale_of(evaluations)
    tasks = evaluations.averaged if scale.shares else []
    section.add(Text(_lead(groups, tasks, scale, evidence, section), lead=True))
    lost = sum(cell.failure is not None for group in groups for cell in group.cells)
    if lost:
        cells = sum(len(group.cells) for group in groups)
        section.add(
            Warnings([f"{count(lost)} of {plural(cells, 'cell')} failed and are in no mean; the reasons are below."])
        )
    section.add(*_main(groups, evaluations, tasks, scale))
    figures = _scales(groups, evaluations, tasks, scale)
    if figures:
        section.add(Figures(figures))
    published = _published(groups, evaluations, tasks, scale, evidence)
    if published is not None:
        section.add(published)
    for group in groups:
        for task in evaluations.tasks:
            _measured(section, group, f"{task} {evaluations.metric[task]}", group.value(task))
        if tasks:
            _measured(section, group, "mean over tasks", group.mean(tasks))


def _measured(section: Section, group: Group, what: str, spread: Spread | None) -> None:
    subject = _title(group)
    section.measured(
        subject, f"{what}, mean over seeds", spread.mean if spread else None, n=spread.seeds if spread else 0
    )
    if spread and spread.deviation is not None:
        section.measured(subject, f"{what}, standard deviation over seeds", spread.deviation, n=spread.seeds)


def _lead(groups: list[Group], tasks: list[str], scale: Scale, evidence: Evidence, section: Section) -> str:
    """The number of cells and the group with the highest mean, with the spread of the seeds."""
    strategies = len({(group.strategy, group.variant) for group in groups})
    seeds = {cell.seed for group in groups for cell in group.cells}
    cells = sum(len(group.cells) for group in groups)
    said = f"{plural(cells, 'cell')}: {plural(strategies, 'strategy', 'strategies')}, {plural(len(seeds), 'seed')}."
    means = [(mean, group) for group in groups if (mean := group.mean(tasks)) is not None]
    if not means:
        return said
    means.sort(key=lambda pair: -pair[0].mean)
    best, first = means[0]
    text = scale.with_error(best.mean, best.deviation)
    over = f"over {plural(best.seeds, 'seed')}" if best.seeds > 1 else "with one seed"
    over_tasks, whose = f"mean over {plural(len(tasks), 'task')}", _title(first)
    sentence = f"The best {over_tasks} is that of {whose}: {text} {over}"
    if len(means) > 1 and len({mean.mean for mean, _ in means}) == 1:
        whose = "all strategies"
        sentence = f"All strategies have the same {over_tasks}: {text} {over}"
    elif len(means) > 1:
        second, other = means[1]
        sentence += f"; next is {_title(other)} with {scale.with_error(second.mean, second.deviation)}"
        if best.deviation is not None and second.deviation is not None:
            apart = best.mean - second.mean > best.deviation + second.deviation
            sentence += "" if apart else ", within the spread of the seeds"
    sentence += "."
    if len(seeds) > 1:
        section.sentence = sentence
        section.key_figures.append(KeyFigure(text, f"mean over tasks, {whose}"))
    return f"{said} {sentence}"


def _title(group: Group) -> str:
    """A name of the group that is unique in the run."""
    parts = [group.label]
    if group.rater:
        parts.append(f"rated by {group.rater}")
    if group.size is not None:
        parts.append(f"{count(group.size)} samples")
    return ", ".join(parts) + (f", on {_short(group.model)}" if group.base != "base" else "")


def _short(model: str) -> str:
    return model.rstrip("/").rsplit("/", 1)[-1]


def _main(groups: list[Group], evaluations: Evaluations, tasks: list[str], scale: Scale) -> list[Table]:
    """A table for each base model."""
    models = list(dict.fromkeys(group.model for group in groups))
    columns = ["strategy", "rater", "samples", "seeds", *evaluations.tasks, *(["mean"] if tasks else [])]
    note = (
        f"{'In percent' if scale.shares else 'Values'}: mean over the seeds, ± their standard deviation if there are "
        "two or more. Seeds without a result are excluded."
    )
    left_out = [task for task in evaluations.tasks if task not in tasks]
    if tasks and left_out:
        note += f" The mean over tasks excludes {listed(left_out)}."
    tables = []
    for model in models:
        of_model = [group for group in groups if group.model == model]
        rows = [_base_row(of_model[0].base, evaluations, tasks, scale)]
        for group in of_model:
            row: list[Cell | str] = [group.label, group.rater or DASH, count(group.size), _seeds(group)]
            row += [_cell(group, group.value(task), scale) for task in evaluations.tasks]
            rows.append([*row, *([_cell(group, group.mean(tasks), scale)] if tasks else [])])
        caption = "Strategies and tasks" + (f", {_short(model)}" if len(models) > 1 else "")
        tables.append(Table(caption, columns, rows, words=("rater",), note=note))
    return tables


def _base_row(base: str, evaluations: Evaluations, tasks: list[str], scale: Scale) -> list[Cell | str]:
    row: list[Cell | str] = [_UNTRAINED, DASH, DASH, DASH]
    row += [scale.text(_value(evaluations, base, task)) for task in evaluations.tasks]
    return [*row, *([scale.text(_mean([_value(evaluations, base, task) for task in tasks]))] if tasks else [])]


def _value(evaluations: Evaluations, model: str, task: str) -> float | None:
    score = evaluations.scores.get((model, task))
    return score.value if score else None


def _mean(values: list[float | None]) -> float | None:
    """Unweighted mean; None where a value is missing."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def _seeds(group: Group) -> Cell:
    done = sum(bool(cell.scores) for cell in group.cells)
    seeds = ", ".join(str(cell.seed) for cell in group.cells)
    if done == len(group.cells):
        return Cell(count(done), title=f"seeds {seeds}")
    return Cell(f"{count(done)} of {count(len(group.cells))}", "bad", f"seeds {seeds}")


def _cell(group: Group, spread: Spread | None, scale: Scale) -> Cell:
    if spread is None:
        failed = all(cell.failure is not None for cell in group.cells)
        return Cell("failed", "bad") if failed else Cell(DASH, "muted", "no seed has a value")
    return Cell(scale.with_error(spread.mean, spread.deviation), title=plural(spread.seeds, "seed"))


def _scales(groups: list[Group], evaluations: Evaluations, tasks: list[str], scale: Scale) -> list[Figure]:
    """Score against the number of samples, for every base model: the mean over tasks, then each task."""
    figures = []
    models = list(dict.fromkeys(group.model for group in groups))
    measures: dict[str, list[str]] = {"Mean over tasks": tasks} if tasks else {}
    measures |= {task: [task] for task in evaluations.tasks[:_PLOTS]}
    slug = slugs([*models, *measures])
    for model in models:
        for measure, over in measures.items():
            series = _curves([group for group in groups if group.model == model], over)
            if any(len(curve.x) > 1 for curve in series):
                caption, name = f"{measure} by number of samples", f"scale-{slug[measure]}"
                if len(models) > 1:
                    caption, name = f"{caption}, {_short(model)}", f"{name}-{slug[model]}"
                figures.append(_scale(caption, name, series, scale))
    return figures


def _curves(groups: list[Group], tasks: list[str]) -> list[Curve]:
    lines: dict[str, list[tuple[int, Spread]]] = {}
    for group in groups:
        spread = group.mean(tasks)
        if group.size is not None and spread is not None:
            name = f"{group.label}, {group.rater}" if group.rater else group.label
            lines.setdefault(name, []).append((group.size, spread))
    made = []
    for name, points in lines.items():
        points.sort(key=lambda point: point[0])
        reach = [spread.deviation for _, spread in points]
        made.append(Curve(name, [size for size, _ in points], [spread.mean for _, spread in points], reach))
    return made


def _scale(caption: str, name: str, series: list[Curve], scale: Scale) -> Figure:
    said = "; ".join(
        f"{curve.name} " + ", ".join(f"{scale.text(y)} at {count(x)}" for x, y in zip(curve.x, curve.y, strict=True))
        for curve in series
    )
    unit = "percent" if scale.shares else "value"
    draw = curves(series, x="samples", y=unit, percent=scale.shares)
    alt, height = f"Lines over the number of samples: {said}.", 220 + 16 * len(series)
    return Figure(name, caption, alt, draw, height=height)


def _published(
    groups: list[Group], evaluations: Evaluations, tasks: list[str], scale: Scale, evidence: Evidence
) -> Table | None:
    """The paper's figures next to ours, for cells that the run and the paper have in common."""
    raters = {ratings.rater: _model_of(ratings.artifact.manifest.config) for ratings in evidence.ratings}
    shown = [task for task in reference.published_tasks() if task in evaluations.tasks]
    rows: list[list[Cell | str]] = []

    def add(names: list[str], ours: list[str], theirs: dict[str, float]) -> None:
        if theirs:
            published = [scale.text(theirs.get(task)) for task in shown]
            published.append(scale.with_error(theirs.get(reference.MEAN), theirs.get(reference.DEVIATION)))
            pairs = zip(ours, published, strict=True)
            rows.append([*names, *(cell for one, other in pairs for cell in (Cell(one), Cell(other, "muted")))])

    for base, model in dict.fromkeys((group.base, group.model) for group in groups):
        untrained = [_value(evaluations, base, task) for task in shown]
        whole = _mean([_value(evaluations, base, task) for task in tasks])
        ours = [scale.text(value) for value in (*untrained, whole)]
        add([_UNTRAINED, DASH, DASH], ours, reference.published_base(model))
        for group in (group for group in groups if group.model == model):
            spreads = [*(group.value(task) for task in shown), group.mean(tasks)]
            names = [group.label, group.rater or DASH, count(group.size)]
            ours = [scale.with_error(spread.mean, spread.deviation) if spread else DASH for spread in spreads]
            add(names, ours, reference.published(group, raters))
    if not scale.shares or not rows:
        return None
    return Table(
        "Compared with the paper's figures",
        ["strategy", "rater", "samples", *(name for task in (*shown, "mean") for name in (task, f"{task}, paper"))],
        rows,
        words=("rater",),
        note=f"Columns marked “paper” are figures from {reference.paper()} for the same base model, rater, strategy "
        "and size, not results of this run. The paper did not use lm-eval (for the differences see How the benchmarks "
        "were run). Its figures for single tasks are from one seed, and the ± of its means is over three. Its mean "
        "includes TruthfulQA as the share of answers that two judges find true and informative, so the means are the "
        f"least comparable figures. Its pool has {count(reference.pool_size())} samples; this one has "
        f"{count(len(evidence.samples))}.",
    )


def _model_of(config: dict[str, object]) -> str:
    backend = config.get("backend")
    return str(backend.get("model") or "") if isinstance(backend, dict) else ""


def _failures(evidence: Evidence) -> list[Table]:
    """Every cell without a result, with its error message."""
    of_cell = {cell.name: (group, cell) for group in evidence.groups for cell in group.cells}
    rows: list[list[Cell | str]] = []
    for failure in evidence.failed:
        group, cell = of_cell.get(failure.name, (None, None))
        seed = DASH if cell is None or cell.seed is None else str(cell.seed)
        words = "; ".join(line.strip() for line in failure.reason.splitlines())
        reason = Cell(clipped(words, _REASON), title=failure.reason)
        rows.append([failure.name, reason, Cell(failure.stage, "bad"), group.label if group else DASH, seed])
    return [
        Table(
            "Cells without a result",
            ["cell", "reason", "failed making", "strategy", "seed"],  # on a phone only the first two are seen at once
            rows,
            words=("reason", "failed making", "strategy"),
            note="A failed cell has no value: it is in no mean and is never counted as zero.",
        )
    ]
