"""The models' benchmark scores, compared with the base model's as far as the standard errors allow."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from statistics import NormalDist

from tamis.core.artifacts import Artifact
from tamis.core.leftout import reasons_in_words
from tamis.reporting.blocks import Cell, Figure, Figures, KeyFigure, Section, Table, Text, Warnings
from tamis.reporting.charts import dots
from tamis.reporting.evidence import Evidence
from tamis.reporting.numbers import DASH, count, listed, plural, slugs
from tamis.reporting.outcomes import Evaluations, Score
from tamis.reporting.sections.shared import LESS_IS_BETTER, Scale, number, scalars, scale_of

_Z = NormalDist().inv_cdf(0.975)
_PLOTS = 8  # tasks with a plot of their own
_NOT_RUN, _FAILED = Cell("not run", "bad"), Cell("failed", "bad")


def build(evidence: Evidence) -> Section:
    """Models x tasks with standard errors, base first, difference to the base, means."""
    section = Section("evaluation", "Evaluation")
    evaluations = evidence.evaluations
    if evaluations is None or not evaluations.scores:
        if evidence.models:
            section.add(Text("No model was evaluated in this run.", lead=True))
    else:
        _compare(evaluations, evidence.base_of, section)
    if evidence.models:
        if left_out := list(_left_out(evidence.models)):
            section.add(Warnings(left_out))
        section.add(_finetuning(evidence.models))
    return section


def _left_out(models: list[Artifact]) -> Iterator[str]:
    """Samples of the subsets that were not trained on."""
    for artifact in models:
        facts = artifact.manifest.facts
        if dropped := facts.get("dropped"):
            left_out = sum(dropped.values())
            whole = plural(facts["samples"] + left_out, "sample")
            yield f"{artifact.name} was not trained on {count(left_out)} of its {whole}: {reasons_in_words(dropped)}."


def _compare(evaluations: Evaluations, base_of: dict[str, str], section: Section) -> None:
    scale = scale_of(evaluations)
    averaged = scale.shares and evaluations.averaged
    means = {model: _mean(evaluations, model) for model in evaluations.models} if averaged else {}
    verdict = _verdict(evaluations, base_of, means, scale, section)
    section.add(Text(verdict, lead=True))
    if section.sentence:
        section.add(
            Text(
                "Lines in the plots are 95 % intervals. Like all margins here, they cover the choice of test items, "
                "but not the training seed; for that, train on each subset with several seeds."
            )
        )
    gaps = _gaps(evaluations)
    if gaps:
        section.add(Warnings(gaps))
    if not scale.shares:
        section.add(
            Text("Not every metric is a share from 0 to 1 with higher values better, so there is no mean over tasks.")
        )
    section.add(Figures(_figures(evaluations, base_of, means, scale)), _scores(evaluations, means, scale))
    if evaluations.benchmarks:
        section.add(_benchmarks(evaluations))
    if _known_bases(evaluations, base_of):
        section.add(_differences(evaluations, base_of, means, scale))
    for (model, task), score in evaluations.scores.items():
        section.measured(model, f"{task} {evaluations.metric[task]}", score.value, stderr=score.stderr, n=score.n)
    for model, task, metric, score in evaluations.others:
        section.measured(model, f"{task} {metric}", score.value, stderr=score.stderr, n=score.n)
    for model, mean in means.items():
        section.measured(model, "mean over tasks", mean.value if mean else None, stderr=mean.stderr if mean else None)


def _mean(evaluations: Evaluations, model: str) -> Score | None:
    """Unweighted mean over the tasks; None if one is missing, since means over different tasks are not comparable."""
    scores = [evaluations.scores.get((model, task)) for task in evaluations.averaged]
    values = [score.value for score in scores if score is not None and score.value is not None]
    if len(values) < len(scores):
        return None
    errors = [score.stderr for score in scores if score is not None and score.stderr is not None]
    whole = len(errors) == len(values)
    stderr = sqrt(sum(error**2 for error in errors)) / len(values) if whole else None
    return Score(sum(values) / len(values), stderr, sum(score.n for score in scores if score is not None))


def _difference(score: Score | None, base: Score | None) -> tuple[float | None, float | None]:
    """Difference and its standard error, taking the two as independent."""
    if score is None or base is None or score.value is None or base.value is None:
        return None, None
    known = score.stderr is not None and base.stderr is not None
    stderr = sqrt((score.stderr or 0) ** 2 + (base.stderr or 0) ** 2) if known else None
    return score.value - base.value, stderr


def _verdict(
    evaluations: Evaluations,
    base_of: dict[str, str],
    means: dict[str, Score | None],
    scale: Scale,
    section: Section,
) -> str:
    """How the best subset's model compares with the base, with a margin that allows for the choice of the best."""
    others = list(base_of)
    whole = {model: mean for model in others if (mean := means.get(model)) is not None}
    tasks = plural(len(evaluations.tasks), "task")
    if not others:
        return f"Only the base model was evaluated, on {tasks}."
    subjects = plural(len(others), "finetuned model")
    if not means:
        beside = " and the base model" if _known_bases(evaluations, base_of) else ""
        return f"{subjects}{beside} on {tasks}."
    if not whole:
        return f"{subjects} on {tasks}; none has a value for every task, so no means are compared."
    tasks = plural(len(evaluations.averaged), "task")
    best = max(whole, key=lambda model: (whole[model].value or 0.0, model))
    alike = len(whole) > 1 and len({(mean.value, base_of[model]) for model, mean in whole.items()}) == 1
    who, short = (f"each of {len(whole)} subsets", "each subset") if alike else (f"the best subset, {best},", best)
    said = f"Over {tasks}, {who} reached {scale.text(whole[best].value)} on average"
    base = means.get(base_of[best])
    if base is None:
        why = "lacks a value for some task" if base_of[best] in evaluations.models else "was not evaluated"
        return f"{said}; the base model {why}, so there is nothing to compare it with."
    gain, stderr = _difference(whole[best], base)
    said = f"{said}, the base model {scale.text(base.value)}: {scale.difference(gain)} points"
    label = f"points, {short} against the base model"
    if gain is None or stderr is None:
        section.key_figures.append(KeyFigure(scale.difference(gain), f"{label}, error unknown"))
        section.sentence = f"{said}, without a standard error, so chance cannot be ruled out."
        return section.sentence
    # The best of several models was chosen afterwards, so each gets its share of the 5 % (Bonferroni).
    margin = NormalDist().inv_cdf(1 - 0.025 / len(whole)) * stderr
    among = f", allowing for the choice among {len(whole)}" if len(whole) > 1 else ""
    interval = f"(95 % margin ± {scale.text(margin)}{among})"
    section.key_figures.append(KeyFigure(f"{scale.difference(gain)} ± {scale.text(margin)}", label))
    if abs(gain) <= margin:
        section.sentence = f"{said} {interval}, so no difference from the base model is shown."
    else:
        change = "a gain" if gain > 0 else "a loss"
        section.sentence = f"{said} {interval}, {change} that the choice of test items does not explain."
    return section.sentence


def _known_bases(evaluations: Evaluations, base_of: dict[str, str]) -> set[str]:
    """The base models of the trained models that were evaluated."""
    return set(base_of.values()) & set(evaluations.models)


def _gaps(evaluations: Evaluations) -> list[str]:
    gaps = []
    for model in evaluations.models:
        absent = [task for task in evaluations.tasks if (model, task) not in evaluations.scores]
        failed = [t for t in evaluations.tasks if (s := evaluations.scores.get((model, t))) and s.value is None]
        for tasks, what in ((absent, "was not run on"), (failed, "has no value for")):
            if tasks:
                gaps.append(f"{model} {what} {listed(tasks)}; it is left out of the means, not counted as zero.")
    return gaps


def _cell(score: Score | None, scale: Scale) -> Cell:
    if score is None:
        return _NOT_RUN
    if score.value is None:
        return _FAILED
    return Cell(scale.with_error(score.value, score.stderr), title=f"{count(score.n)} items")


def _scores(evaluations: Evaluations, means: dict[str, Score | None], scale: Scale) -> Table:
    rows: list[list[Cell | str]] = []
    for model in evaluations.models:
        row: list[Cell | str] = [model]
        row += [_cell(evaluations.scores.get((model, task)), scale) for task in evaluations.tasks]
        if means:
            mean = means[model]
            row.append(Cell(DASH, "muted", "a task is missing") if mean is None else _cell(mean, scale))
        rows.append(row)
    columns = ["model", *(f"{task} ({evaluations.metric[task]})" for task in evaluations.tasks)]
    note = f"{'In percent' if scale.shares else 'Values'}, ± one standard error where known."
    left_out = [task for task in evaluations.tasks if task not in evaluations.averaged]
    if means and left_out:
        note += f" The mean excludes {listed(left_out)}."
    return Table("Scores", [*columns, *(["mean"] if means else [])], rows, note=note)


def _benchmarks(evaluations: Evaluations) -> Table:
    """How each task was run, and how that differs from the published benchmark."""
    asked = {task: evaluations.benchmarks[task] for task in evaluations.tasks if task in evaluations.benchmarks}
    questions = {
        task: max(score.n for (_, scored), score in evaluations.scores.items() if scored == task) for task in asked
    }
    rows = [
        [task, count(questions[task]), count(benchmark.examples), benchmark.differs or DASH]
        for task, benchmark in asked.items()
    ]
    suites = {benchmark.suite: benchmark.notes for benchmark in asked.values()}
    return Table(
        "How the benchmarks were run",
        ["task", "questions", "examples in the prompt", "what differs from the published benchmark"],
        rows,
        words=("what differs from the published benchmark",),
        note=" ".join(f"From the suite {name}. {notes}".strip() for name, notes in suites.items()),
    )


def _differences(
    evaluations: Evaluations, base_of: dict[str, str], means: dict[str, Score | None], scale: Scale
) -> Table:
    rows: list[list[Cell | str]] = []
    for model, base in base_of.items():
        row: list[Cell | str] = [model]
        pairs = [(evaluations.scores.get((model, t)), evaluations.scores.get((base, t))) for t in evaluations.tasks]
        if means:
            pairs.append((means[model], means.get(base)))
        better = [-1 if evaluations.metric[task] in LESS_IS_BETTER else 1 for task in evaluations.tasks] + [1] * bool(
            means
        )
        for (score, start), sign in zip(pairs, better, strict=True):
            gain, stderr = _difference(score, start)
            clear = gain is not None and stderr is not None and abs(gain) > _Z * stderr
            row.append(
                Cell(
                    scale.with_error(gain, stderr, difference=True),
                    "" if not clear else "good" if gain is not None and gain * sign > 0 else "bad",
                )
            )
        rows.append(row)
    note = (
        "± one standard error of the difference, assuming that the two models are independent. Both answered the same "
        "items, so the true error is usually smaller. Coloured: more than 1.96 standard errors, cell by cell; about "
        "one cell in twenty is coloured by chance."
    )
    columns = ["model", *evaluations.tasks, *(["mean"] if means else [])]
    return Table("Difference from the base model", columns, rows, note=note)


def _figures(
    evaluations: Evaluations, base_of: dict[str, str], means: dict[str, Score | None], scale: Scale
) -> list[Figure]:
    columns: list[tuple[str, str, dict[str, Score | None]]] = []
    if means and len(evaluations.tasks) > 1:
        columns.append(("Mean over tasks", "mean-over-tasks", means))
    slug = slugs(["mean-over-tasks", *evaluations.tasks])
    for task in evaluations.tasks[:_PLOTS]:
        scores = {model: evaluations.scores.get((model, task)) for model in evaluations.models}
        columns.append((f"{task}, {evaluations.metric[task]}", slug[task], scores))
    bases = _known_bases(evaluations, base_of)
    base = bases.pop() if len(bases) == 1 else None
    return [_dots(title, name, scores, scale, base, set(base_of)) for title, name, scores in columns]


def _dots(
    title: str, name: str, scores: dict[str, Score | None], scale: Scale, one_base: str | None, trained: set[str]
) -> Figure:
    values = [score.value if score else None for score in scores.values()]
    errors = [score.stderr if score and score.stderr is not None else None for score in scores.values()]
    ends = [
        (value - _Z * error, value + _Z * error) if value is not None and error is not None else (None, None)
        for value, error in zip(values, errors, strict=True)
    ]
    base = scores.get(one_base) if one_base else None
    said = "; ".join(
        f"{model} {scale.with_error(value, error) if value is not None else 'no value'}"
        for model, value, error in zip(scores, values, errors, strict=True)
    )
    return Figure(
        f"evaluation-{name}",
        title,
        f"Dots with 95 % intervals: {said}.",
        dots(
            list(scores),
            values,
            [low for low, _ in ends],
            [high for _, high in ends],
            x="percent" if scale.shares else "value",
            reference=base.value if base else None,
            highlighted=[i for i, model in enumerate(scores) if model in trained],
            percent=scale.shares,
        ),
        height=62 + 28 * len(scores),
    )


def _finetuning(models: list[Artifact]) -> Table:
    """What each training counted and measured, from its manifest."""
    facts = {artifact.name: scalars(artifact.manifest.facts) for artifact in models}
    names = list(dict.fromkeys(name for known in facts.values() for name in known))
    rows = [
        [model, *(number(known[name]) if name in known else DASH for name in names)] for model, known in facts.items()
    ]
    return Table("Finetuned models", ["model", *names], rows)
