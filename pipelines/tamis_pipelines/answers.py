"""What the stores of answers have of a run: of ratings, and of matches. Nothing is written, nobody is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tamis.core.errors import ModelError, TamisError
from tamis.judging.settings import JudgingSettings
from tamis.llm.store import spare_places
from tamis.rating.settings import AskedRater
from tamis_pipelines.reuse import Found, Reuse


def stored_ratings(reuse: Reuse, rater: AskedRater) -> tuple[int, int] | str:
    """How many samples the rater is to rate and of how many the store has the final rating; or why that is not known.

    Which of the store's ratings are of this pool is known when there is a pool. Empty: none can be.
    """
    from tamis.rating.planning import known

    pool = reuse.of("pool")
    try:
        with reuse.as_in_a_run():
            wanted, stored = known(rater, pool=pool.folder, spare=spare_places(reuse.home / "scratch" / "rating"))
    except (TamisError, OSError) as error:
        # A model that is not on this machine has rated nothing here.
        return "" if isinstance(error, ModelError) and pool.folder is None else why(error)
    if pool.folder is not None:
        return wanted, stored
    if not stored:
        return ""
    return f"the store has {stored:,} ratings by it; which of them are of the pool is known when the pool is there"


@dataclass
class Matches:
    """What is there of judging every cell: shares from 0 to 1.

    Attributes:
        of_models: of the answers of each cell's model.
        of_opponents: of the answers of each opponent, by its settings as text.
        of_judge: of the verdicts on each cell.
        prompts: of each match; 0 where that is not known.
        unknown: why some of it is not known, where it counts as not there; else empty.
    """

    of_models: list[float] = field(default_factory=list)
    of_opponents: dict[str, float] = field(default_factory=dict)
    of_judge: list[float] = field(default_factory=list)
    prompts: int = 0
    unknown: str = ""


def stored_in_matches(reuse: Reuse, matches: Sequence[tuple[JudgingSettings, Found, Found]]) -> Matches:
    """What is there of each match: its settings, what is known of the step, and of the one that trains the model.

    Of a model that is not trained yet there is nothing; where a judgement is finished nothing is asked any more.
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
    """An error in one line."""
    return error.problem if isinstance(error, TamisError) else str(error)
