"""Finds settings that pods on a cluster cannot or should not use: local files, local stores, secrets."""

from __future__ import annotations

from collections.abc import Iterator

from tamis.core.errors import SettingsError
from tamis.core.references import MOUNTED, reaches_pods
from tamis.core.secrets import masked_values
from tamis.core.storage import is_remote
from tamis.rating.settings import AskedRater
from tamis_pipelines.checks.fields import fields_of
from tamis_pipelines.settings import RunSettings


def check_reachable(settings: RunSettings) -> None:
    """Check for settings that fail in pods.

    Raises:
        SettingsError: the first of `refusals`.
    """
    for error in refusals(settings):
        raise error


def refusals(settings: RunSettings) -> Iterator[SettingsError]:
    """The errors with which `tamis submit` and `tamis schedule` refuse settings that fail in pods.

    There is one for files on this machine, one for secrets, and one for payers without a common store.
    """
    unseen = [
        f"{field.where}: {field.value}"
        for field in fields_of(settings)
        if field.reference is not None
        and field.value is not None
        and not reaches_pods(field.reference, str(field.value))
    ]
    if unseen:
        yield SettingsError(
            "these settings refer to files on this machine, which pods on the cluster cannot see:\n  "
            + "\n  ".join(unseen),
            allowed="data in object storage (s3://…); models by their names on the Hugging Face Hub; prompts, suites "
            f"and DeepSpeed configurations that ship with Tamis; and volumes that pods mount below {MOUNTED}",
            action="move the files to such a place and change the settings; --force submits the run anyway",
        )
    secret = [field.where for field in fields_of(settings) if masked_values(field.value) != field.value]
    if secret:
        yield SettingsError(
            f"these settings contain secrets, which Kubeflow would store and show with the run: {', '.join(secret)}",
            allowed="keys in a Kubernetes Secret, through api_key_env",
            action="remove the secrets; --force submits the run anyway",
        )
    if forgetful := _without_store(settings):
        named, kept = ", ".join(forgetful), "judging" if forgetful == ["judging.store"] else "ratings"
        yield SettingsError(
            f"{named}: missing or on the pod's own disk, so a pod that is retried pays again",
            allowed=f"a prefix in object storage, such as s3://bucket/{kept}; or kubeflow.compiled.work_volume=true",
            action=f"set {named} or kubeflow.compiled.work_volume; --force submits the run anyway",
        )


def _without_store(settings: RunSettings) -> list[str]:
    """The settings of stores that must be in object storage, because pods pay for what they keep, and are not."""
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
    return [where for where, store in stores.items() if not kept and not is_remote(store or "")]
