"""The page of a run's outcome, in Markdown, which Kubeflow's UI shows with the last step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tamis.cluster.outcome import Outcome

_MOST = 20  # cells, and steps, that are shown with their reasons


def markdown(outcome: Outcome) -> str:
    """The page that says what `outcome` says."""
    facts = {
        "run": f"{outcome.name} (`{outcome.run}`)" if outcome.name else f"`{outcome.run}`",
        "workflow": f"`{outcome.workflow}`",
        "started": outcome.started,
        "ended": outcome.ended,
        "report": f"`{outcome.report}`" if outcome.report else "",
    }
    parts = [f"# {outcome.state}", outcome.reason and f"{outcome.reason[0].upper()}{outcome.reason[1:]}."]
    parts.append("\n".join(f"* {name}: {value}" for name, value in facts.items() if value))
    cells = [(f"{cell.cell}, {cell.stage}", cell.reason) for cell in outcome.cells_failed]
    steps = [
        (f"{step.step}{f' ({step.what})' if step.what else ''}, attempt {step.attempt}", step.words)
        for step in outcome.steps_failed
    ]
    parts += _section("Failed cells", cells) + _section("Failed steps", steps)
    if outcome.unread:
        parts.append("## Not known\n\nThese could not be read or written, so something may be missing above:")
        parts.append("\n\n".join(_quoted(text) for text in outcome.unread))
    if outcome.state == "SUCCEEDED":
        parts.append("The report is the artifact `page` of the step `report`.")
    else:
        parts.append("Submit the same settings again to continue; finished steps are reused.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, entries: list[tuple[str, str]]) -> list[str]:
    if not entries:
        return []
    shown = [f"**{name}**\n\n{_quoted(reason)}" for name, reason in entries[:_MOST]]
    rest = [f"{len(entries) - _MOST} more are in the outcome's file."] if len(entries) > _MOST else []
    return [f"## {title}", *shown, *rest]


def _quoted(text: str) -> str:
    """Text as it is, whatever characters it has."""
    return "\n".join(f"    {line}" for line in text.splitlines())
