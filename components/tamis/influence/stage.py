"""The influence stage: pool and examples of tasks in, scores out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.blocks import Conversations, kept_blocks
from tamis.core.causal import by_length, encode_all
from tamis.core.conversations import Encoder, Tokens, chat_tokenizer
from tamis.core.ids import pack, tie_breaks
from tamis.core.leftout import check_left_out
from tamis.core.lora import check_lora
from tamis.core.models import revision_of, vocabulary_of
from tamis.core.progress import Progress
from tamis.core.sample_columns import conversations
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.storage import fingerprint
from tamis.core.tables import SCORES, PartsWriter
from tamis.influence.gradients import Gradients, Moments
from tamis.influence.projection import projection_named
from tamis.influence.settings import InfluenceSettings
from tamis.influence.tasks import Task, read_task
from tamis.influence.warmup import Checkpoint, lora_model, warm_up

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

SCHEMA = pa.schema([*SCORES, pa.field("tasks", pa.list_(pa.float32()))])
_READ = 1_000  # samples whose texts are in memory at once
PART = pa.schema(
    [pa.field("id", pa.string()), pa.field("status", pa.string()), pa.field("subtasks", pa.list_(pa.float64()))]
)


def run(settings: InfluenceSettings, *, pool: Uri, out: Uri) -> Manifest:
    """Score every sample of `pool` by its influence on the tasks; the artifact at `out` has the name "less".

    Raises:
        ModelError: when the model cannot be loaded, or gives losses or gradients that are not finite.
        InputError: when an example of a task cannot be used, or too many samples of the pool cannot.
        SettingsError: when the settings do not fit the model.
        MissingExtraError: when peft is not installed.
    """
    files = {"model": revision_of(settings.model, settings.revision)}
    files |= {task.path: fingerprint(task.path) for task in settings.tasks}
    return run_step(
        "influence", "scores", settings, _measure, out=out, inputs={"pool": Input(pool, "pool")}, files=files,
        name="less",
    )  # fmt: skip


def _measure(step: Step[InfluenceSettings]) -> None:
    settings, pool = step.settings, step.input("pool")
    check_lora(settings.warmup, settings.model, settings.revision, where="influence.warmup", head=True)
    work = _Work(settings)
    tasks = [read_task(task, work.encoder, settings.max_left_out_share) for task in settings.tasks]
    check_samples(settings, pool, work.encoder)
    samples = warmup_samples(settings, pool, work.encoder)
    checkpoints = warm_up(settings, work.model, samples, step.scratch / "warm-up")
    step.facts.update(warmup_samples=len(samples), tasks=[task.name for task in tasks])
    step.facts["examples"] = {task.name: sum(map(len, task.subtasks.values())) for task in tasks}
    if lost := {task.name: task.lost for task in tasks if task.lost}:
        step.facts["fields_lost"] = lost
    del samples
    rates = []
    for number, checkpoint in enumerate(checkpoints):
        compute, rate = work.at(checkpoint, tasks)
        rates.append(rate)
        for _ in kept_blocks(pool, _kept(step.scratch, number), compute, title=f"influence, checkpoint {number + 1}"):
            pass
    shares = np.array(rates) / sum(rates)
    step.facts["checkpoint_weights"] = shares.tolist()
    step.models["base"] = revision_of(settings.model, settings.revision)
    _write(step, tasks, shares)


class _Work:
    """The model, its encoder and its gradients, loaded when first needed."""

    def __init__(self, settings: InfluenceSettings) -> None:
        self._settings = settings

    @cached_property
    def encoder(self) -> Encoder:
        settings = self._settings
        tokenizer = chat_tokenizer(settings.model, settings.revision, settings.format)
        return Encoder(tokenizer, settings.max_tokens, vocabulary_of(settings.model, settings.revision))

    @cached_property
    def model(self) -> PeftModel:
        return lora_model(self._settings)

    @cached_property
    def _gradients(self) -> Gradients:
        settings = self._settings
        projection = projection_named(settings.projection, settings.dimensions, settings.seed)
        return Gradients(self.model, projection, settings.dimensions)

    def at(
        self, checkpoint: Checkpoint, tasks: Sequence[Task]
    ) -> tuple[Callable[[pa.Array, Conversations], pa.Table], float]:
        """Load `checkpoint`; return a function that gives samples' influence on the subtasks, and its learning rate."""
        import torch

        moments, rate = checkpoint.load(self.model)
        means = [self._features(e, None).mean(0) for task in tasks for e in task.subtasks.values()]
        targets = torch.stack(means)

        def compute(ids: pa.Array, conversations: Conversations) -> pa.Table:
            encoded = encode_all(self.encoder, conversations)
            places = [place for place, tokens in enumerate(encoded) if not isinstance(tokens, str)]
            usable = [tokens for tokens in encoded if not isinstance(tokens, str)]
            values: list[list[float] | None] = [None] * len(encoded)
            for group in self._groups(usable):
                rows = self._gradients.of([usable[place] for place in group], moments) @ targets.T
                for place, row in zip(group, rows.double().cpu().tolist(), strict=True):
                    values[places[place]] = row
            status = [tokens if isinstance(tokens, str) else "ok" for tokens in encoded]
            return pa.table({"id": ids, "status": status, "subtasks": values}, schema=PART)

        return compute, rate

    def _features(self, examples: Sequence[Tokens], moments: Moments | None) -> torch.Tensor:
        import torch

        groups = self._groups(examples)
        return torch.cat([self._gradients.of([examples[place] for place in group], moments) for group in groups])

    def _groups(self, samples: Sequence[Tokens]) -> list[list[int]]:
        return by_length([len(tokens.input_ids) for tokens in samples], self._settings.batch_tokens)


def check_samples(settings: InfluenceSettings, pool: Artifact, encoder: Encoder) -> None:
    """Count the samples that cannot be learnt from, before anything is trained or measured.

    Raises:
        InputError: when their share is larger than `max_left_out_share`.
    """
    reasons = Counter[str]()
    with Progress("influence: checking the samples", pool.manifest.rows) as progress:
        for batch in pool.batches(["messages"], rows=_READ):
            encoded = encode_all(encoder, conversations(batch["messages"]))
            reasons.update(reason for reason in encoded if isinstance(reason, str))
            progress.advance(batch.num_rows)
    check_left_out(reasons, pool.manifest.rows, settings.max_left_out_share, stage="influence")


def warmup_samples(settings: InfluenceSettings, pool: Artifact, encoder: Encoder) -> list[Tokens]:
    """Draw the warm-up's samples by the seed, whatever the pool's order; return those that can be learnt from.

    Raises:
        InputError: when none of them can be learnt from.
    """
    ids = np.concatenate([pack(batch["id"], where=str(pool.location)) for batch in pool.batches(["id"])])
    size = settings.warmup.size
    number = min(len(ids), int(size) if size >= 1 else max(1, round(size * len(ids))))
    ties = tie_breaks(ids, settings.seed, salt="warm-up")
    drawn = np.zeros(len(ids), bool)
    drawn[np.argsort(ties, kind="stable")[:number]] = True
    found: list[tuple[int, Tokens]] = []
    start, reasons = 0, Counter[str]()
    for batch in pool.batches(["messages"]):
        here = drawn[start : start + batch.num_rows]
        order = ties[start : start + batch.num_rows][here]
        start += batch.num_rows
        encoded = encode_all(encoder, conversations(batch.filter(pa.array(here))["messages"]))
        found += [(int(tie), t) for tie, t in zip(order, encoded, strict=True) if not isinstance(t, str)]
        reasons.update(reason for reason in encoded if isinstance(reason, str))
    check_left_out(reasons, number, 1.0, stage="influence")  # `check_samples` has checked the share
    return [tokens for _, tokens in sorted(found, key=lambda pair: pair[0])]


def _kept(scratch: Path, checkpoint: int) -> Path:
    return scratch / f"checkpoint-{checkpoint:03d}"


def _write(step: Step[InfluenceSettings], tasks: Sequence[Task], shares: NDArray[np.float64]) -> None:
    """Write the scores: sums over checkpoints, the maximum over a task's subtasks, and the maximum over tasks."""
    bounds = np.cumsum([0, *(len(task.subtasks) for task in tasks)])
    folders = [sorted(_kept(step.scratch, number).glob("*.parquet")) for number in range(len(shares))]
    reasons: Counter[str] = Counter()
    with PartsWriter(step.out, SCHEMA) as parts:
        for paths in zip(*folders, strict=True):
            tables = [pq.read_table(path) for path in paths]
            ids, status = tables[0]["id"], tables[0]["status"]
            known = pc.equal(status, "ok").to_numpy()
            total = np.zeros((int(known.sum()), int(bounds[-1])))
            for share, table in zip(shares, tables, strict=True):
                total += share * np.array(pc.drop_null(table["subtasks"]).to_pylist()).reshape(total.shape)
            by_task = np.maximum.reduceat(total, bounds[:-1], axis=1).astype(np.float32)
            score = np.full(len(known), np.nan)
            score[known] = by_task.max(1)
            rows = iter(by_task.tolist())
            columns = [next(rows) if here else None for here in known]
            parts.write(
                pa.table(
                    {"id": ids, "score": pa.array(score, from_pandas=True), "status": status, "tasks": columns}
                ).cast(SCHEMA)
            )
            reasons.update(status.to_pylist())
    step.rows = parts.rows
    step.facts["scored"] = reasons.pop("ok", 0)
    step.facts["not_scored"] = dict(sorted(reasons.items()))
