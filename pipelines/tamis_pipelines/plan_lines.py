"""The lines of a plan: for each kind of step its work, what exists already, and what the rest takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tamis.core.idfiles import read_ids
from tamis.core.settings import Settings
from tamis.finetuning.settings import FinetuningSettings
from tamis.judging.settings import ServiceContestant
from tamis.llm.settings import LocalModelSettings
from tamis.rating.settings import AskedRater, RatingSettings
from tamis_pipelines import costs
from tamis_pipelines.answers import Matches, stored_in_matches, stored_ratings
from tamis_pipelines.rates import RatesSettings, relative
from tamis_pipelines.speeds import NOTHING, Speeds, Time, key_of, pairs, sum_of, within_limits

if TYPE_CHECKING:
    from tamis.neighbors.settings import NeighborsSettings
    from tamis.scoring.settings import ScoringSettings
    from tamis_pipelines.experiment import Cell, CellsJudging
    from tamis_pipelines.reuse import Found, Reuse
    from tamis_pipelines.settings import RunSettings


@dataclass(frozen=True)
class Line:
    """A kind of step: how many steps there are, what they work on, and how much is left to do.

    Attributes:
        step: name of the step.
        count: number of steps; for a rater, its number of pods on a cluster.
        work: what the steps work on.
        gpu_hours, money: GPU hours and cost of what is left to do.
        all_gpu_hours, all_money: GPU hours and cost if nothing existed yet.
        done: how many steps are finished and reused by a run on this machine.
        of: number of steps that `done` refers to; 1 for a rater, whatever `count` is.
        answers: stored answers and needed answers, if the store has some of them.
        unknown: why it is not known what exists; empty if it is known.
        time: time on this machine for what is left to do.
    """

    step: str
    count: int
    work: str
    gpu_hours: float
    money: float
    all_gpu_hours: float
    all_money: float
    done: int = 0
    of: int = 1
    answers: tuple[int, int] | None = None
    unknown: str = ""
    time: Time = NOTHING


class Planner:
    """Makes a plan's lines from the settings, finished steps, rates, and this machine's speeds."""

    def __init__(self, settings: RunSettings, samples: int, rates: RatesSettings, reuse: Reuse, speeds: Speeds) -> None:
        self._settings, self._samples, self._rates = settings, samples, rates
        self._reuse, self._speeds = reuse, speeds
        self.cells = [(cell, self._training_hours(cell)) for cell in settings.cells]

    def lines(self) -> Iterator[Line]:
        """Yield all lines, in the order of the steps."""
        settings, n = self._settings, self._samples
        all_of_it = f"{n:,} samples"
        yield self._steps("pool", all_of_it, [_Part(self._reuse.of("pool"), 0, self._time("pool", settings.pool, n))])
        if settings.near_copies is not None:
            time = self._time("nearcopies", settings.near_copies, n)
            yield self._steps("near-copies", all_of_it, [_Part(self._reuse.of("drop-near-copies"), 0, time)])
        if settings.describe is not None:
            part = _Part(self._reuse.of("describe"), 0, self._time("signals", settings.describe, n))
            yield self._steps("describe", all_of_it, [part])
        for number, rater in enumerate(settings.raters):
            yield self._rating(number, rater)
        embedded = n / self._rates.embedded_per_second / 3600
        time = self._time("embedding", settings.embedding, n)
        yield self._steps("embed", all_of_it, [_Part(self._reuse.of("embed"), embedded, time)])
        part = _Part(self._reuse.of("find-neighbors"), 0, self._searching(settings.neighbors))
        yield self._steps("neighbors", all_of_it, [part])
        curated = n * len(settings.rater_names)
        part = _Part(self._reuse.of("curate"), 0, self._time("curation", settings.curation, curated))
        yield self._steps("curate", all_of_it, [part])
        for name in settings.scores:
            yield self._scoring(name, all_of_it)
        yield self._steps(
            "select",
            "",
            [
                _Part(self._reuse.of("select", number), 0, self._time("selection", cell.subset, 1))
                for number, (cell, _) in enumerate(self.cells)
            ],
        )
        if settings.finetuning is not None:
            yield from self._training(settings.finetuning)
        yield self._steps(
            "report", "", [_Part(self._reuse.of("report"), 0, self._time("reporting", settings.report, 1))]
        )

    def _steps(self, step: str, work: str, parts: Sequence[_Part]) -> Line:
        """Return the line of all steps of one kind, from the hours and times of its parts."""
        left = [part for part in parts if part.found.state != "there"]
        hours, all_hours = sum(part.hours for part in left), sum(part.hours for part in parts)
        price = self._rates.gpu_hour
        return Line(
            step,
            len(parts),
            work,
            hours,
            hours * price,
            all_hours,
            all_hours * price,
            done=len(parts) - len(left),
            of=len(parts),
            unknown=next((part.found.why for part in left if part.found.state == "not known"), ""),
            time=sum_of(part.time for part in left),
        )

    def _time(self, stage: str, settings: Settings, units: float) -> Time:
        return self._speeds.time(key_of(stage, settings.model_dump(mode="json")), units)

    def _searching(self, settings: NeighborsSettings) -> Time:
        """Return the time of the neighbour search; an exact one compares all pairs of samples."""
        exact = settings.method == "exact" or (settings.method == "auto" and self._samples <= settings.exact_up_to)
        method = "exact" if exact else "approximate"
        return self._speeds.time(("neighbors", method), pairs(self._samples) if exact else self._samples)

    def _scoring(self, name: str, work: str) -> Line:
        settings, found = self._settings, self._reuse.of(name)
        if name == "influence" and settings.influence is not None:
            units = self._samples * settings.influence.warmup.epochs
            part = _Part(found, self._influence_hours(), self._time("influence", settings.influence, units))
            return self._steps("score for less", work, [part])
        scoring: ScoringSettings = getattr(settings, name)
        passes = len(scoring.measure.passes(scoring)) if scoring.measure.POD == "rating" else 0
        hours = passes * self._samples / self._rates.scored_per_second / 3600
        part = _Part(found, hours, self._time("scoring", scoring, self._samples))
        return self._steps(f"score for {name}", work, [part])

    def _rating(self, number: int, rater: RatingSettings) -> Line:
        """Return the line of a rater. Its pods on a cluster share the work and the GPU hours."""
        step, found = f"rate by {rater.name}", self._reuse.of("rate", number)
        if not isinstance(rater, AskedRater):
            time = self._time("rating", rater, self._samples)
            return self._steps(step, "imported", [_Part(found, 0, time)])
        asked, stored, unknown = self._answers_of(rater, found)
        left = asked - stored
        left_out = self._samples / asked - 1  # samples left out per rated sample
        sample = f" of {self._samples:,}" if asked < self._samples else ""
        rates, pods = self._rates, self._settings.kubeflow.rating_shards.get(rater.name, 1)
        answers = (stored, asked) if stored else None
        backend, model = rater.backend, rater.backend.model
        if isinstance(backend, LocalModelSettings):
            each, time = relative(model) / rates.rated_per_second / 3600, self._time("rating", rater, left)
            price = each * rates.gpu_hour
            saved = f", saves {hours_text(each * asked * left_out)} GPU hours" if left_out else ""
            work, hours = f"{asked:,}{sample} samples by {model}{saved}", each
        else:
            one = costs.rating(rater, backend, rates)
            sent, answered, price, hours = one.sent, one.answered, one.price, 0.0
            tokens = f"{tokens_text(asked * (sent + answered))} by {model}"
            saved = f"{price * asked * left_out:,.2f} {rates.currency}"
            work = tokens + (f", {asked:,}{sample} samples, saves {saved}" if left_out else "")
            time = self._asking("rating", rater, backend, left, sent, answered)
        all_of_it = (asked * hours, asked * price)
        if found.state == "there":
            return Line(step, pods, work, 0, 0, *all_of_it, done=1, answers=answers)
        open_ = (left * hours, left * price)
        return Line(step, pods, work, *open_, *all_of_it, answers=answers, unknown=unknown, time=time)

    def _asking(
        self, stage: str, settings: Settings, service: Settings, count: int, sent: float, answered: float
    ) -> Time:
        """Return the time of `count` requests: by the service's limits, or as long as in an earlier step."""
        if count == 0:
            return NOTHING
        limited = within_limits(service, count, count * sent, count * answered)
        recorded = self._time(stage, settings, count)
        return limited if limited.seconds is not None or recorded.seconds is None else recorded

    def _answers_of(self, rater: AskedRater, found: Found) -> tuple[int, int, str]:
        """Return how many samples to rate, for how many of them the store has ratings, and why that is not known."""
        if found.manifest is not None:
            rated = int(found.manifest.facts["asked"]) + int(found.manifest.facts["reused"])
            return rated, rated, ""
        seen = stored_ratings(self._reuse, rater)
        if isinstance(seen, tuple):
            return *seen, ""
        return _asked(rater, self._samples), 0, found.why or seen

    def _training(self, training: FinetuningSettings) -> Iterator[Line]:
        settings, rates = self._settings, self._rates
        models = [cell.finetuning.model for cell, _ in self.cells if cell.finetuning]
        bases = list(dict.fromkeys(models))
        parts = []
        for number, (cell, hours) in enumerate(self.cells):
            assert cell.finetuning is not None
            time = self._time("finetuning", cell.finetuning, self._chosen(cell) * cell.finetuning.epochs)
            parts.append(_Part(self._reuse.of("finetune", number), hours, time))
        yield self._steps("finetune", f"{training.epochs} epochs", parts)
        work = f"{len(bases)} base models and {len(models)} trained ones" if len(bases) > 1 else "with the base model"
        evaluation = settings.evaluation
        if evaluation is not None:
            if evaluation.suite != "paper":
                work += f"; estimated with the hours of the suite paper, not of {evaluation.suite}"
            parts = []
            for number, model in enumerate([*bases, *models]):
                time = self._time("evaluation", evaluation.model_copy(update={"model": model}), 1)
                hours = rates.evaluation_hours * relative(model)
                parts.append(_Part(self._reuse.of("evaluate", number), hours, time))
            yield self._steps("evaluate", work, parts)
        if settings.judging is not None:
            yield from self._judging(settings.judging, models)

    def _judging(self, judging: CellsJudging, models: Sequence[str]) -> Iterator[Line]:
        """Yield the lines of judging: the answers of every cell, those of each opponent once, and the verdicts."""
        rates = self._rates
        matches = [
            (judging.of(model), self._reuse.of("judge", number), self._reuse.of("finetune", number))
            for number, model in enumerate(models)
        ]
        seen = stored_in_matches(self._reuse, matches)
        prompts = seen.prompts or costs.prompts_of(judging, rates)
        left = [match for match, found, _ in matches if found.state != "there"]
        # A judging step's time includes its answers. If it is unknown, answers and verdicts are estimated separately.
        whole = sum_of(self._time("judging", match, prompts) for match in left)
        opponents = {str(one): (one, model) for model in models if (one := judging.of(model).against) is not None}
        writers = [(model, seen.of_models[number]) for number, model in enumerate(models)]
        writers += [
            (model, seen.of_opponents[name])
            for name, (one, model) in opponents.items()
            if one.kind in ("model", "artifact")
        ]
        each, price = prompts * rates.written_tokens / rates.written_per_second / 3600, rates.gpu_hour
        hours = sum(each * relative(model) for model, _ in writers)
        open_ = sum(each * relative(model) * (1 - there) for model, there in writers)
        work, done = f"{prompts:,} prompts", sum(there == 1 for _, there in writers)
        time = NOTHING if whole.seconds is not None or done == len(writers) else whole
        yield Line(
            *("answer prompts", len(writers), work, open_, open_ * price, hours, hours * price),
            done=done,
            of=len(writers),
            unknown=seen.unknown,
            time=time,
        )
        for name, (service, _) in opponents.items():
            if isinstance(service, ServiceContestant):
                there = seen.of_opponents[name]
                yield self._opponent(service, prompts, round(there * prompts), whole, seen.unknown)
        yield self._judge(judging, len(matches) - len(left), seen, prompts, whole)

    def _opponent(self, service: ServiceContestant, prompts: int, stored: int, whole: Time, unknown: str) -> Line:
        """Return the line of an opponent that is a service; the store has `stored` of its answers."""
        one, left = costs.answer(service, self._rates), prompts - stored
        sent, answered, price = one.sent, one.answered, one.price
        work = f"{tokens_text(prompts * (sent + answered))} by {service.model}"
        time = within_limits(service, left, left * sent, left * answered)
        return Line(
            *("answer prompts", 1, work, 0, left * price, 0, prompts * price),
            done=int(left == 0),
            answers=(stored, prompts) if stored else None,
            unknown=unknown,
            time=NOTHING if whole.seconds is not None or left == 0 else time,
        )

    def _judge(self, judging: CellsJudging, done: int, seen: Matches, prompts: int, whole: Time) -> Line:
        """Return the line of the verdicts on all cells: two per prompt."""
        backend, rates, of = judging.judge.backend, self._rates, len(seen.of_judge)
        asked, stored = 2 * prompts * of, round(2 * prompts * sum(seen.of_judge))
        left, hours, time = asked - stored, 0.0, whole
        if not isinstance(backend, LocalModelSettings):
            one = costs.verdict(judging, backend, rates)
            sent, answered, price = one.sent, one.answered, one.price
            work = tokens_text(asked * (sent + answered))
            if whole.seconds is None:
                time = within_limits(backend, left, left * sent, left * answered)
        else:
            hours = relative(backend.model) / rates.rated_per_second / 3600
            price, work = hours * rates.gpu_hour, f"{asked:,} verdicts"
        return Line(
            *("judge", of, f"{work} by {backend.model}", left * hours, left * price, asked * hours, asked * price),
            done=done,
            of=of,
            answers=(stored, asked) if stored else None,
            unknown=seen.unknown,
            time=time if left else NOTHING,
        )

    def _influence_hours(self) -> float:
        """Return the GPU hours of the warm-up's training and of every sample's gradients at every checkpoint."""
        less, samples, rates = self._settings.influence, self._samples, self._rates
        if less is None:
            return 0.0
        warmup = less.warmup.size if less.warmup.size >= 1 else less.warmup.size * samples
        tokens = warmup * less.warmup.epochs * rates.tokens_per_sample
        seconds = tokens / rates.trained_tokens_per_second + samples * less.warmup.epochs / rates.gradients_per_second
        return relative(less.model) * seconds / 3600

    def _training_hours(self, cell: Cell) -> float:
        training: FinetuningSettings | None = cell.finetuning
        if training is None:
            return 0.0
        tokens = self._chosen(cell) * training.epochs * self._rates.tokens_per_sample
        return relative(training.model) * tokens / self._rates.trained_tokens_per_second / 3600

    def _chosen(self, cell: Cell) -> float:
        """Return the number of samples in the cell's subset."""
        size = cell.subset.size
        return self._samples if size is None else size if size >= 1 else size * self._samples


@dataclass(frozen=True)
class _Part:
    """One step of a line: what is known about it, and its GPU hours and time if it has to run."""

    found: Found
    hours: float
    time: Time


def _asked(rater: AskedRater, samples: int) -> int:
    """Return the largest number of samples to rate: those of `also` count as if none of them were drawn as well."""
    also = sum(len(read_ids(file, setting=f"raters.{rater.name}.also")) for file in rater.also)
    return min(rater.asked(samples) + also, samples)


def tokens_text(count: float) -> str:
    """Return a number of tokens in words."""
    for unit, name in ((1e9, "G "), (1e6, "M "), (1e3, "k ")):
        if count >= unit:
            return f"{count / unit:,.{1 if count < 10 * unit else 0}f} {name}tokens"
    return f"{count:,.0f} tokens"


def hours_text(hours: float) -> str:
    """Return GPU hours in words."""
    return f"{hours:,.1f}" if hours >= 0.05 or hours == 0 else "< 0.1"
