"""The page of a run's outcome, in Markdown, which Kubeflow's UI shows with the last step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tamis.cluster.outcome import Outcome
    from tamis.core.marks import LastWords

_MOST = 20  # reasons of each kind, and names for each reason, that are shown


def markdown(outcome: Outcome) -> str:
    """The page that says what `outcome` says."""
    facts = {
        "run": outcome.name,
        "id": outcome.run,
        "workflow": outcome.workflow,
        "started": outcome.started,
        "ended": outcome.ended,
        "report": outcome.report,
    }
    parts = [f"# {outcome.state}", outcome.reason and f"{outcome.reason[0].upper()}{outcome.reason[1:]}."]
    parts.append("\n".join(f"* {name}: `{value}`" for name, value in facts.items() if value))
    cells = [(f"{cell.cell}, {cell.stage}", cell.reason) for cell in outcome.cells_failed]
    steps = [(_named(step), step.words) for step in outcome.steps_failed]
    parts += _section("Failed cells", cells) + _section("Failed steps", steps)
    if outcome.unread:
        parts.append("## Not known\n\nThese could not be read or written, so something may be missing above:")
        parts.append("\n\n".join(_quoted(text) for text in outcome.unread))
    if outcome.state == "SUCCEEDED":
        parts.append("The report is the artifact `page` of the step `report`.")
    else:
        parts.append("Submit the same settings again to continue; finished steps are reused.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _named(step: LastWords) -> str:
    what = f" ({step.what})" if step.what not in ("", step.step) else ""
    return f"{step.step}{what}, attempt {step.attempt}"


def _section(title: str, entries: list[tuple[str, str]]) -> list[str]:
    """Each reason once, under the names of all that failed for it."""
    names: dict[str, list[str]] = {}
    for name, reason in entries:
        names.setdefault(reason, []).append(name)
    if not names:
        return []
    shown = [f"{_listed(those)}\n\n{_quoted(reason)}" for reason, those in list(names.items())[:_MOST]]
    rest = [f"{len(names) - _MOST} more reasons are in the outcome's file."] if len(names) > _MOST else []
    return [f"## {title}", *shown, *rest]


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return "; ".join(f"**{name}**" for name in names[:_MOST]) + rest


def _quoted(text: str) -> str:
    """Text as it is, whatever characters it has."""
    return "\n".join(f"    {line}" for line in text.splitlines())
