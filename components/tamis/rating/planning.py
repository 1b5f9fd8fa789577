"""`tamis rate --dry-run`: what a run would do, without asking the rater."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tamis.core.artifacts import Artifact
from tamis.core.errors import SettingsError
from tamis.core.steps import Uri
from tamis.rating.drawing import draw
from tamis.rating.rater import Rater
from tamis.rating.settings import AskedRater, RatingSettings


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do.

    Attributes:
        samples: number of samples in the pool, or in the shard.
        stored: number of samples to rate whose final rating is in the store.
        prompt_tokens: tokens of the prompts of the others, one attempt each; exact if the backend has the tokenizer.
        completion_tokens: expected tokens of their answers.
        shortened: number of the others whose middle would be left out.
        too_long: number of the others that would not fit even then.
        cost: cost of these tokens; None if the settings have no price.
        not_asked: number of samples that the settings `sample` and `also` leave out.
        spared: number of these without a rating in the store, which `sample` saves.
    """

    samples: int
    stored: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    shortened: int = 0
    too_long: int = 0
    cost: float | None = None
    not_asked: int = 0
    spared: int = 0

    @property
    def asked(self) -> int:
        """Number of samples to rate."""
        return self.samples - self.not_asked

    def __str__(self) -> str:
        lines = [
            f"samples:           {self.samples:>15,}",
            *([f"selected:          {self.asked:>15,}"] if self.not_asked else []),
            f"already rated:     {self.stored:>15,}",
            f"to be rated:       {self.asked - self.stored:>15,}",
            f"  shortened:       {self.shortened:>15,}",
            f"  too long:        {self.too_long:>15,}",
            f"prompt tokens:     {self.prompt_tokens:>15,}",
            f"answer tokens:     {self.completion_tokens:>15,}  (one attempt per sample)",
        ]
        if self.cost is not None:
            lines.append(f"cost:              {self.cost:>15,.2f}")
        if self.spared and self.asked > self.stored:
            times = self.spared / (self.asked - self.stored)
            saved = [f"{times * self.prompt_tokens:,.0f} prompt tokens"]
            if self.cost is not None:
                saved.append(f"a cost of {times * self.cost:,.2f}")
            lines.append(f"the sample saves:  {self.spared:>15,}  ratings, about {' and '.join(saved)}")
        return "\n".join(lines)


def plan(settings: RatingSettings, *, pool: Uri, embeddings: Uri | None = None) -> Plan:
    """What `run` would do with the same arguments. Sends no request and loads no weights."""
    refuse_idle(settings, embeddings)
    with tempfile.TemporaryDirectory(prefix="tamis-") as cache:
        artifact = Artifact.open(pool, "pool", cache=Path(cache))
        if not isinstance(settings, AskedRater):
            return Plan(artifact.manifest.rows)
        spread = None if embeddings is None else Artifact.open(embeddings, "embeddings", cache=Path(cache))
        rater = Rater(settings, draw(settings, artifact, spread))
        samples = left = shortened = too_long = tokens = answers = not_asked = spared = 0
        for block, drawn in rater.blocks(artifact, ["id", "messages"]):
            samples += len(block)
            others = block["id"].filter(pa.array(~drawn))
            not_asked += len(others)
            spared += len(others) - rater.final_among(others)
            texts = [text for _, text, known in rater.samples(block, drawn) if not rater.is_final(known)]
            left += len(texts)
            for size in rater.backend.measure(texts):
                shortened += size.shortened
                too_long += size.too_long
                tokens += 0 if size.too_long else size.prompt_tokens
                answers += 0 if size.too_long else size.completion_tokens
        cost = settings.price.of(tokens, answers) if settings.price else None
        stored = samples - not_asked - left
        return Plan(samples, stored, tokens, answers, shortened, too_long, cost, not_asked, spared)


def known(settings: AskedRater, *, pool: Uri | None, spare: Sequence[Path] = ()) -> tuple[int, int]:
    """The number of samples of `pool` to rate, and the number of these with a final rating in the store.

    Without a pool: 0, and the number of all ratings by this rater in the store. Sends no request, loads no weights and
    counts no tokens, so it is faster than `plan`.

    Args:
        settings: the rater.
        pool: a local artifact.
        spare: folders with answers that could not be stored.
    """
    if pool is None:
        return 0, len(Rater(settings, spare=spare).stored)
    artifact = Artifact.open(pool, "pool")
    seen = Rater(settings, draw(settings, artifact), spare).earlier(artifact)
    return seen.samples, seen.final


def refuse_idle(settings: RatingSettings, embeddings: Uri | None) -> None:
    """Refuse embeddings without `sample`, which is all that they affect.

    Raises:
        SettingsError: when they have no effect.
    """
    if embeddings is not None and not (isinstance(settings, AskedRater) and settings.sample is not None):
        raise SettingsError(
            "embeddings have no effect when all samples are rated",
            action="set `sample` to rate a part of the pool, or leave out the embeddings",
        )
