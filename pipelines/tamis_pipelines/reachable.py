"""What of a run's settings pods on a cluster cannot use, or should not: files of this machine, stores, secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tamis.core.errors import SettingsError
from tamis.core.llm.settings import ServiceSettings
from tamis.core.secrets import masked_values
from tamis.core.storage import is_remote
from tamis_pipelines.checks.fields import fields_of
from tamis_pipelines.settings import RunSettings

_MOUNTED = "/cache/"  # the only local paths that a pod shares with others: claims are mounted below
# Settings that name files, by the last word of their place: what else their values may be. A test holds this against
# the descriptions of all settings.
_STORED = frozenset({"path", "store", "place", "exclude", "also"})  # object storage
_ON_THE_HUB = frozenset({"model", "complexity_model", "quality_model", "tokenizer", "dataset"})
_SHIPPED = frozenset({"suite", "prompt", "deepspeed"})  # names of files that ship with Tamis
_FOLDERS = frozenset({"data_dir"})  # nothing else


def check_reachable(settings: RunSettings) -> None:
    """Refuse what goes wrong in pods: files of this machine, secrets, and raters of pods that have no common store.

    Raises:
        SettingsError: naming each such setting.
    """
    unseen = [f"{where}: {value}" for where, value in _named_files(settings) if not _reaches_pods(_word(where), value)]
    if unseen:
        raise SettingsError(
            "these settings name files of this machine, which pods on the cluster cannot see:\n  "
            + "\n  ".join(unseen),
            allowed="data in object storage as in s3://…; models by their names on the hub; prompts, suites and "
            f"DeepSpeed configurations that ship with Tamis; and claims that pods mount below {_MOUNTED}",
            action="put the files there and name them there; --force submits all the same",
        )
    told = [where for where, value in fields_of(settings) if masked_values(value) != value]
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
        if isinstance(rater.backend, ServiceSettings) or shards.get(rater.name, 1) > 1
    }
    if (judging := settings.judging) is not None:
        asked = (judging.judge.backend, judging.against, *judging.opponents.values())
        if any(isinstance(one, ServiceSettings) for one in asked):
            stores["judging.store"] = judging.store
    forgetful = [where for where, store in stores.items() if not kept and not is_remote(store or "")]
    if forgetful:
        raise SettingsError(
            f"{forgetful[0]} is missing, or lost with its pod: a pod that is tried again pays again",
            allowed="a prefix in object storage, as in s3://bucket/ratings; or kubeflow.compiled.work_volume",
            action="name one; --force submits all the same",
        )


def _named_files(settings: RunSettings) -> Iterator[tuple[str, str]]:
    """What settings that may name files say, by dotted place; a service's model is a name there and no file."""
    fields = list(fields_of(settings))
    services = {where.removesuffix("base_url") for where, _ in fields if where.endswith(".base_url")}
    for where, value in fields:
        asked = where.endswith(".model") and where.removesuffix("model") in services
        if isinstance(value, str) and not asked and _word(where) in _STORED | _ON_THE_HUB | _SHIPPED | _FOLDERS:
            yield where, value


def _word(where: str) -> str:
    """The last word of a dotted place; that of an item of a list is the list's."""
    return next(word for word in reversed(where.split(".")) if not word.isdecimal())


def _reaches_pods(setting: str, value: str) -> bool:
    if value.startswith(_MOUNTED):
        return True
    if setting in _STORED:
        return is_remote(value)
    if setting in _ON_THE_HUB:  # a folder of this machine counts before the hub when its name could be either
        return re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", value) is not None and not Path(value).is_dir()
    return setting in _SHIPPED and "/" not in value and not value.endswith((".yaml", ".yml", ".json"))
