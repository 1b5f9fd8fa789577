"""Finds settings that pods on a cluster cannot or should not use: local files, local stores, secrets."""

from __future__ import annotations

from tamis.core.errors import SettingsError
from tamis.core.references import MOUNTED, reaches_pods
from tamis.core.secrets import masked_values
from tamis.core.storage import is_remote
from tamis.rating.settings import AskedRater
from tamis_pipelines.checks.fields import fields_of
from tamis_pipelines.settings import RunSettings


def check_reachable(settings: RunSettings) -> None:
    """Check for settings that fail in pods: files on this machine, secrets, and raters without a common store.

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
            "these settings refer to files on this machine, which pods on the cluster cannot see:\n  "
            + "\n  ".join(unseen),
            allowed="data in object storage (s3://…); models by their names on the Hugging Face Hub; prompts, suites "
            f"and DeepSpeed configurations that ship with Tamis; and volumes that pods mount below {MOUNTED}",
            action="move the files to such a place and change the settings; --force submits the run anyway",
        )
    secret = [field.where for field in fields_of(settings) if masked_values(field.value) != field.value]
    if secret:
        raise SettingsError(
            f"these settings contain secrets, which Kubeflow would store and show with the run: {', '.join(secret)}",
            allowed="keys in a Kubernetes Secret, through api_key_env",
            action="remove the secrets; --force submits the run anyway",
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
            f"{forgetful[0]} is missing or on the pod's own disk, so a pod that is retried pays again",
            allowed="a prefix in object storage, such as s3://bucket/ratings; or kubeflow.compiled.work_volume",
            action="set one of them; --force submits the run anyway",
        )
