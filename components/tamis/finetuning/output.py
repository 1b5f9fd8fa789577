"""A test, before nodes are requested, of the place where a TrainJob will write its model."""

from __future__ import annotations

from tamis.cluster.places import is_examined
from tamis.core.artifacts import Artifact, Manifest, manifest_of
from tamis.core.errors import ArtifactError
from tamis.core.outlook import LookedAtError, only_looking
from tamis.core.references import MOUNTED, walk
from tamis.core.storage import is_remote
from tamis.finetuning.settings import FinetuningSettings
from tamis.finetuning.stage import run


def finished_model(settings: FinetuningSettings, *, selection: str, out: str) -> Manifest | None:
    """The manifest of the model at `out`, if a TrainJob with these settings would find it finished; otherwise None.

    `out` is also tested for writing. What cannot be examined from this machine is left to the TrainJob's pods: volumes,
    and storage that does not answer here.

    Raises:
        ArtifactError: when `out` contains a finished artifact that was made from other settings or inputs, or there is
            no subset at `selection`.
        StorageError: when storage refuses access to `out` or `selection`.
    """
    if not is_examined(out, "--out"):
        return None
    there = manifest_of(out)
    if is_remote(selection):
        Artifact.open(selection, "selection")
    if there is None or not is_remote(selection) or _uses_volumes(settings):
        return None
    try:
        with only_looking():
            run(settings, selection=selection, out=out)
        raise AssertionError("a stage that is only looked at raises what it has seen")
    except LookedAtError as looked:
        if looked.outlook.key == there.key:
            return there
    raise ArtifactError(
        f"{out} contains a finished {there.kind} that was made from other settings, inputs or versions of Tamis",
        action="choose another --out, or remove that artifact",
    )


def _uses_volumes(settings: FinetuningSettings) -> bool:
    """Whether a setting names something on a volume, whose content decides what the model is made from."""
    named = (setting.value for setting in walk(settings) if setting.reference is not None)
    return any(str(value).startswith(MOUNTED) for value in named if value is not None)
