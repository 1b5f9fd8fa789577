"""A plan as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tamis.core.hardware import hardware
from tamis_pipelines.plan import Plan
from tamis_pipelines.plan_lines import Line, hours_text
from tamis_pipelines.speeds import as_words, sum_of


def as_text(plan: Plan) -> str:
    """Return the plan as tables: steps, their times on this machine, the budget, cells, and the rates."""
    parts = [_steps(plan), _times(plan), _budget(plan), _cells(plan), _rates(plan)]
    tables = "\n\n".join("\n".join(lines) for lines in map(list, parts) if lines)
    return "\n".join([tables, *_end(plan)])


def _steps(plan: Plan) -> Iterator[str]:
    currency = plan.rates.currency
    rows = [["step", "count", "GPU hours", currency, "done", "time here", "work"]]
    for line in plan.lines:
        there = "not known" if line.unknown else _there(line)
        figures = [hours_text(line.gpu_hours), f"{line.money:,.2f}", there, as_words(line.time)]
        rows.append([line.step, str(line.count), *figures, line.work])
    known = [line.time for line in plan.lines if line.time.seconds is not None]
    time = as_words(sum_of(known)) if len(known) == len(plan.lines) else "not known"
    rows.append(["total", "", hours_text(plan.gpu_hours), f"{plan.money:,.2f}", "", time, ""])
    yield from _columns(rows)
    notes = [note for line in plan.lines if (note := _note(line, currency))] + _unknown(plan)
    if (plan.all_gpu_hours, plan.all_money) != (plan.gpu_hours, plan.money):
        notes.append(
            "GPU hours and costs are for the remaining work. All steps together take "
            f"{hours_text(plan.all_gpu_hours)} GPU hours and cost {plan.all_money:,.2f} {currency}."
        )
    if all(line.done == line.of for line in plan.lines):
        notes.append("Everything is done: a run would reuse every step.")
    if plan.assumed:
        notes.append(f"This assumes that {plan.assumed}")
    yield from ["", *notes] if notes else []


def _there(line: Line) -> str:
    if line.done == line.of:
        return "all" if line.of > 1 else "yes"
    return f"{line.done} of {line.of}" if line.done else "in part" if line.answers else "no"


def _note(line: Line, currency: str) -> str:
    """Return a note about stored answers, for which a line has no room."""
    if line.answers and line.done < line.of:
        stored, needed = line.answers
        left, whole = (f"{money:,.2f} {currency}" for money in (line.money, line.all_money))
        return (
            f"{line.step}: the store has {stored:,} of {needed:,} answers; the other {needed - stored:,} will cost "
            f"about {left} (all of them: {whole})."
        )
    return ""


def _unknown(plan: Plan) -> list[str]:
    """Return why it is not known what is done, each reason once: most reasons apply to all later steps too."""
    steps: dict[str, list[str]] = {}
    for line in plan.lines:
        if line.unknown:
            steps.setdefault(line.unknown, []).append(line.step)
    return [f"{', '.join(names)}: not known whether they are done: {reason}" for reason, names in steps.items()]


def _times(plan: Plan) -> Iterator[str]:
    """Yield the total time and what it is based on."""
    known = [(line, line.time) for line in plan.lines if line.time.seconds]
    unknown = [line for line in plan.lines if line.time.seconds is None]
    total = as_words(sum_of(time for _, time in known)) or ("nothing is left to do" if not unknown else "not known")
    yield f"Time on this machine ({hardware()}), without the seconds that each step takes to start: {total}"
    rows = [[f"  {line.step}", as_words(time), f"from {time.rests}"] for line, time in known]
    rows += [[f"  {line.step}", "not known", line.time.rests] for line in unknown]
    yield from _columns(rows) if rows else []
    if unknown and known:
        yield "The total does not include unknown times."
    if unknown:
        yield "`tamis plan --measure` measures local models for a few seconds each."


def _budget(plan: Plan) -> Iterator[str]:
    """Yield the shares of the budget, and whether the estimated cost is within it."""
    if plan.budget is None:
        return
    currency, estimate = plan.rates.currency, sum(share.estimate for share in plan.shares)
    beyond = estimate - plan.budget
    result = f"exceed it by {beyond:,.2f} {currency}" if beyond > 0 else f"leave {-beyond:,.2f} {currency}"
    yield (
        f"The budget of {plan.budget:,.2f} {currency} is divided by the estimated costs of all answers, stored ones "
        f"included. The estimates {result}:"
    )
    rows = [["payer", "estimate", "share"]]
    rows += [[share.payer, f"{share.estimate:,.2f}", f"{share.money:,.2f}"] for share in plan.shares]
    yield from ["", *_columns(rows)]


def _cells(plan: Plan) -> Iterator[str]:
    rows = [["cell", "strategy", "rater", "samples", "seed", "base model", "GPU hours of training"]]
    for cell, hours in plan.cells:
        subset, training = cell.subset, cell.finetuning
        size = "all" if subset.size is None else f"{subset.size:g}" if subset.size < 1 else f"{subset.size:,}"
        of_model = [str(training.seed), training.model, hours_text(hours)] if training else [str(subset.seed), "", ""]
        rows.append([cell.name, subset.strategy, subset.rater or "", size, *of_model])
    yield from [f"{len(plan.cells)} cell{'s' * (len(plan.cells) != 1)}:", "", *_columns(rows)]


def _rates(plan: Plan) -> Iterator[str]:
    fields = type(plan.rates).model_fields
    values = {name: getattr(plan.rates, name) for name in plan.used} | {"samples": plan.samples}
    rows = [["rate", "value", "meaning"]]
    rows += [[name, str(value), str(fields[name].description)] for name, value in values.items()]
    yield "GPU hours and costs are estimates from these rates for one GPU (`rates` in the settings):"
    yield from ["", *_columns(rows)]


def _end(plan: Plan) -> Iterator[str]:
    if plan.removed:
        yield ""
        removed = ", ".join(plan.removed)
        yield f"A local run will remove these results of an earlier run, unless it has another `name`: {removed}"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines with aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
