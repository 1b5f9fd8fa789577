"""What of a run's settings pods on a cluster cannot use, or should not: files of this machine, stores, secrets."""

from __future__ import annotations

from tamis.core.errors import SettingsError
from tamis.core.references import MOUNTED, reaches_pods
from tamis.core.secrets import masked_values
from tamis.core.storage import is_remote
from tamis.rating.settings import AskedRater
from tamis_pipelines.checks.fields import fields_of
from tamis_pipelines.settings import RunSettings


def check_reachable(settings: RunSettings) -> None:
    """Refuse what goes wrong in pods: files of this machine, secrets, and raters of pods that have no common store.

    Raises:
        SettingsError: naming each such setting.
    """
    unseen = [
        f"{field.where}: {field.value}"
        for field in fields_of(settings)
        if field.reference is not None
        and field.value is not None
        and not reaches_pods(field.reference, str(field.value))
    ]
    if unseen:
        raise SettingsError(
            "these settings name files of this machine, which pods on the cluster cannot see:\n  "
            + "\n  ".join(unseen),
            allowed="data in object storage as in s3://…; models by their names on the hub; prompts, suites and "
            f"DeepSpeed configurations that ship with Tamis; and claims that pods mount below {MOUNTED}",
            action="put the files there and name them there; --force submits all the same",
        )
    told = [field.where for field in fields_of(settings) if masked_values(field.value) != field.value]
    if told:
        raise SettingsError(
            f"these settings hold secrets, which Kubeflow keeps and shows with the run: {', '.join(told)}",
            allowed="keys in a Secret, by api_key_env",
            action="take them out; --force submits all the same",
        )
    shards, kept = settings.kubeflow.rating_shards, settings.kubeflow.compiled.work_volume
    stores = {
        f"raters.{rater.name}.store": rater.store
        for rater in settings.raters
        if isinstance(rater, AskedRater) and (rater.backend.PRICED or shards.get(rater.name, 1) > 1)
    }
    if (judging := settings.judging) is not None:
        asked = (judging.judge.backend, judging.against, *judging.opponents.values())
        if any(getattr(one, "PRICED", False) for one in asked):
            stores["judging.store"] = judging.store
    forgetful = [where for where, store in stores.items() if not kept and not is_remote(store or "")]
    if forgetful:
        raise SettingsError(
            f"{forgetful[0]} is missing, or lost with its pod: a pod that is tried again pays again",
            allowed="a prefix in object storage, as in s3://bucket/ratings; or kubeflow.compiled.work_volume",
            action="name one; --force submits all the same",
        )
