"""The pods that rate on a cluster: one for each rater, or several that share its samples, limits and money."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tamis.llm.settings import LimitSettings
from tamis.rating.settings import AskedRater, ImportedRater, RatingSettings


def check(raters: Sequence[RatingSettings], shards: Mapping[str, int]) -> None:
    """Refuse what a run cannot spread over pods.

    Raises:
        ValueError: naming the setting.
    """
    by_name = {rater.name: rater for rater in raters}
    for rater in raters:
        if isinstance(rater, AskedRater) and rater.shard is not None:
            raise ValueError(
                f"raters.{rater.name}.shard: a run rates all shards; kubeflow.rating_shards gives a rater several pods"
            )
    for name, pods in shards.items():
        where = f"kubeflow.rating_shards.{name}"
        if name not in by_name:
            raise ValueError(f"{where}: no rater '{name}'; allowed: {', '.join(by_name)}")
        if isinstance(by_name[name], ImportedRater):
            raise ValueError(f"{where} has no effect on imported ratings; leave it out")
        for limit, value in _limits(by_name[name]):
            if value < pods:
                raise ValueError(f"{where}: {pods} pods cannot share the {limit} of {value}; give it fewer")


def workers(raters: Sequence[RatingSettings], shards: Mapping[str, int]) -> list[RatingSettings]:
    """The settings of each pod, in the order of the raters; several pods of one rater share its limits."""
    return [worker for rater in raters for worker in _of_one(rater, shards.get(rater.name, 1))]


def _of_one(rater: RatingSettings, pods: int) -> Iterator[RatingSettings]:
    if pods == 1:
        yield rater
        return
    shared = {name: value // pods for name, value in _limits(rater)}
    changes: dict[str, object] = {}
    if shared:
        changes["backend"] = rater.backend.model_copy(update={"limits": LimitSettings(**shared)})
    for number in range(1, pods + 1):
        yield rater.model_copy(update={"shard": f"{number}/{pods}", **changes})


def _limits(rater: RatingSettings) -> list[tuple[str, int]]:
    """The limits of the rater's service that are set."""
    limits = getattr(rater.backend, "limits", None)
    return [] if limits is None else [(name, value) for name, value in limits if value is not None]
