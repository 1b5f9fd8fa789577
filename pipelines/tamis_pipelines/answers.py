"""How many of a run's ratings and judged answers are already in the stores. Only reads; no service is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tamis.core.errors import ModelError, TamisError
from tamis.judging.settings import JudgingSettings
from tamis.llm.store import spare_places
from tamis.rating.settings import AskedRater
from tamis_pipelines.reuse import Found, Reuse


def stored_ratings(reuse: Reuse, rater: AskedRater) -> tuple[int, int] | str:
    """Return how many samples the rater has to rate, and for how many of them the store has the final rating.

    Returns:
        These two numbers, or a text that says why they are not known; it is empty if nothing can be stored yet.
        Without a pool it is not known which of the store's ratings belong to the pool.
    """
    from tamis.rating.planning import known

    pool = reuse.pool
    try:
        with reuse.as_in_a_run():
            to_rate, stored = known(rater, pool=pool.folder, spare=spare_places(reuse.home / "scratch" / "rating"))
    except (TamisError, OSError) as error:
        # A model that is not on this machine cannot have rated anything here.
        return "" if isinstance(error, ModelError) and pool.folder is None else why(error)
    if pool.folder is not None:
        return to_rate, stored
    if not stored:
        return ""
    return f"the store has {stored:,} of its ratings; how many belong to this pool is known only after the pool is made"


@dataclass
class Matches:
    """What is already stored of judging all cells, as shares from 0 to 1.

    Attributes:
        of_models: share of the answers of each cell's model.
        of_opponents: share of the answers of each opponent, by its settings as text.
        of_judge: share of the verdicts on each cell.
        prompts: number of prompts in each match; 0 if unknown.
        unknown: why a share is unknown; it is then counted as 0. Empty if all are known.
    """

    of_models: list[float] = field(default_factory=list)
    of_opponents: dict[str, float] = field(default_factory=dict)
    of_judge: list[float] = field(default_factory=list)
    prompts: int = 0
    unknown: str = ""


def stored_in_matches(reuse: Reuse, matches: Sequence[tuple[JudgingSettings, Found, Found]]) -> Matches:
    """Return what is stored of the matches.

    A model that is not trained yet has no answers, and a finished judgement needs no more.

    Args:
        reuse: finds finished steps.
        matches: for each match its settings, its judging step, and the step that trains its model.
    """
    from tamis.judging.planning import opponent_there
    from tamis.judging.stage import plan

    seen = Matches()
    for settings, found, model in matches:
        written, judged, opponent = 0.0, 0.0, str(settings.against)
        try:
            if found.manifest is not None:
                seen.prompts = found.manifest.rows // 2
                written = judged = seen.of_opponents[opponent] = 1.0
            elif reuse.steps:
                with reuse.as_in_a_run():
                    if opponent not in seen.of_opponents:
                        seen.prompts, there = opponent_there(settings)
                        seen.of_opponents[opponent] = there / seen.prompts
                    if model.folder is not None:
                        known = plan(settings, model=model.folder)
                        written = next(iter(known.written.values())) / known.prompts
                        judged = known.judged / known.comparisons
        except (TamisError, OSError) as error:
            seen.unknown = seen.unknown or found.why or why(error)
        seen.of_opponents.setdefault(opponent, 0.0)
        seen.of_models.append(written)
        seen.of_judge.append(judged)
    return seen


def why(error: Exception) -> str:
    """Return an error as one line."""
    return error.problem if isinstance(error, TamisError) else str(error)
