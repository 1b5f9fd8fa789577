"""Finetuning on several nodes as a TrainJob of Kubeflow Trainer, started from a laptop or from a pod of a pipeline."""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from tamis.cluster.trainjobs import GROUP, ORDER, VERSION, TrainJobError, TrainJobs
from tamis.core.artifacts import Artifact, Manifest, manifest_of
from tamis.core.errors import SettingsError
from tamis.core.references import MOUNTED, Reference, StoreUri, reaches_pods, walk
from tamis.core.settings import Settings, hash_of, parse, understood
from tamis.core.steps import Uri, deliver
from tamis.finetuning.settings import FinetuningSettings

log = logging.getLogger(__name__)
_LONGEST_NAME = 40  # the names of a TrainJob's pods are about twenty characters longer


class TrainerSettings(Settings):
    """The nodes of a training, and the TrainingRuntime that has all other settings of its pods."""

    nodes: int = Field(1, ge=1, description="nodes that train together")
    place: StoreUri | None = Field(
        None, min_length=1, description="prefix in object storage for what a pipeline and its TrainJobs hand each other"
    )
    runtime: str = Field("tamis-finetune", min_length=1, description="TrainingRuntime in the namespace")
    queue: str = Field("", description="LocalQueue of Kueue")
    image: str = Field("", description="full name of the image; the runtime's if empty")
    cpu: str = Field("", description="CPUs requested per node; the runtime's if neither this, memory nor gpus is given")
    memory: str = Field("", description="memory of a node, requested and the limit")
    gpus: int | None = Field(None, ge=0, description="GPUs of a node")
    gpu_type: str = Field("nvidia.com/gpu", min_length=1, description="resource name of the GPU")
    node_selector: dict[str, str] = Field({}, description="labels that the nodes must have, beside the runtime's")
    tolerations: list[dict[str, Any]] = Field([], description="taints that are tolerated, beside the runtime's")


def run(settings: FinetuningSettings, *, trainer: Mapping[str, Any], selection: Uri, out: Uri) -> Manifest:
    """Like the stage's `run`, but a TrainJob trains the model; for a pod of a pipeline, which needs no GPU.

    `trainer` has the values of `TrainerSettings`. The selection is copied to its `place`, where the TrainJob's pods
    write the model. A model that is already there is used.

    Raises:
        SettingsError: when the settings do not fit the nodes, or refer to something that the TrainJob's pods cannot
            reach.
        TrainJobError, StoppedError: as `TrainJobs.run` raises them.
        StorageError, ArtifactError: when `place` cannot be written or read, or has no model afterwards.
    """
    nodes = parse(TrainerSettings, understood(dict(trainer)), where="kubeflow.trainer")
    if nodes.place is None:
        raise SettingsError("kubeflow.trainer.place is missing", allowed="a prefix in object storage, as in s3://…")
    with tempfile.TemporaryDirectory(prefix="tamis-") as cache:
        chosen = Artifact.open(selection, "selection", cache=Path(cache))
        config = settings.model_dump(mode="json")
        key = hash_of([settings.OUTPUT_REVISION, chosen.name, chosen.manifest.content_hash, config])
        place = f"{nodes.place.rstrip('/')}/{key[:24]}"
        given, made = f"{place}/selection", f"{place}/model"
        if manifest_of(made) is None:
            if manifest_of(given) is None:
                deliver(chosen.folder, chosen.manifest, given)
            name = _name(chosen.name, key)
            TrainJobs().run(trainjob(settings, nodes, selection=given, out=made, name=name))
        else:
            log.info("the model was finished before, in %s", made)
        model = Artifact.open(made, "model", cache=Path(cache))
        if model.manifest.revision != settings.OUTPUT_REVISION:
            raise TrainJobError(
                f"the model in {made} has output revision {model.manifest.revision} of finetuning, but this version of "
                f"Tamis makes revision {settings.OUTPUT_REVISION}: the nodes' image is of another version",
                action="set the image of this version in the runtime or in kubeflow.trainer.image, and remove that "
                "model",
                permanent=True,
            )
        deliver(model.folder, model.manifest, out)
        return model.manifest


def trainjob(
    settings: FinetuningSettings, trainer: TrainerSettings, *, selection: str, out: str, name: str = ""
) -> dict[str, Any]:
    """The TrainJob of a training. If `name` is empty, its name is made from its content.

    Raises:
        SettingsError: when the settings do not fit the nodes, or refer to something that its pods cannot reach.
    """
    _check(settings, trainer, selection=selection, out=out)
    given = settings.model_dump(mode="json", exclude_unset=True)
    arguments = [f"--set={setting}={json.dumps(value)}" for setting, value in given.items()]
    node: dict[str, Any] = {
        "numNodes": trainer.nodes,
        "command": ["tamis"],
        "args": ["finetune", f"--selection={selection}", f"--out={out}", *arguments],
    }
    if trainer.image:
        node["image"] = trainer.image
    if resources := _resources(trainer):
        node["resourcesPerNode"] = resources
    spec: dict[str, Any] = {"runtimeRef": {"apiGroup": GROUP, "kind": "TrainingRuntime", "name": trainer.runtime}}
    spec["trainer"] = node
    where = {"nodeSelector": trainer.node_selector, "tolerations": trainer.tolerations}
    if any(where.values()):
        pod = {"spec": {key: value for key, value in where.items() if value}}
        jobs = [{"name": "node", "template": {"spec": {"template": pod}}}]
        patch = {"template": {"spec": {"replicatedJobs": jobs}}}
        spec["runtimePatches"] = [{"manager": "tamis.dev/finetuning", "trainingRuntimeSpec": patch}]
    order = hash_of([settings.OUTPUT_REVISION, spec])
    labels = {"app.kubernetes.io/name": "tamis", "app.kubernetes.io/part-of": "tamis", "tamis.dev/stage": "finetune"}
    if trainer.queue:
        labels["kueue.x-k8s.io/queue-name"] = trainer.queue
    called = name or _name(out.rstrip("/").rsplit("/", 1)[-1], order)
    metadata: dict[str, Any] = {"name": called, "labels": labels, "annotations": {ORDER: order}}
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": metadata | _owned(),
        "spec": spec,
    }


def _owned() -> dict[str, Any]:
    """In a pod of Kubeflow Pipelines: its owner is that pod, so that it is removed with it, also after a kill."""
    pod, uid = os.environ.get("KFP_POD_NAME"), os.environ.get("KFP_POD_UID")
    if not pod or not uid:
        return {}
    return {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}]}


def _name(subject: str, key: str) -> str:
    """A name for an object that shows its subject and is different for each `key`."""
    words = re.sub(r"[^a-z0-9]+", "-", subject.lower()).strip("-")
    return f"tamis-{words}"[: _LONGEST_NAME - 9].rstrip("-") + f"-{key[:8]}"


def _resources(trainer: TrainerSettings) -> dict[str, Any]:
    if not trainer.cpu and not trainer.memory and trainer.gpus is None:
        return {}
    gpus = {trainer.gpu_type: str(trainer.gpus)} if trainer.gpus else {}
    memory = {"memory": trainer.memory} if trainer.memory else {}
    cpu = {"cpu": trainer.cpu} if trainer.cpu else {}
    limits = memory | gpus
    return {"requests": cpu | limits} | ({"limits": limits} if limits else {})


def _check(settings: FinetuningSettings, trainer: TrainerSettings, *, selection: str, out: str) -> None:
    named = [("--selection", selection, Reference("data")), ("--out", out, Reference("store"))]
    named += [
        (setting.where, str(setting.value), setting.reference)
        for setting in walk(settings, "finetuning")
        if setting.reference is not None and setting.value is not None
    ]
    for what, place, reference in named:
        if not reaches_pods(reference, place):
            raise SettingsError(
                f"{what}: {place} is on this machine, where a TrainJob's pods cannot reach it",
                allowed=f"object storage as in s3://…, names on the Hub, and volumes that pods mount below {MOUNTED}",
            )
    check_nodes(settings, trainer)


def check_nodes(settings: FinetuningSettings, trainer: TrainerSettings) -> None:
    """Check that batches can be divided among the processes of all nodes, if their number is known.

    Raises:
        SettingsError: when they cannot, with the allowed sizes.
    """
    if trainer.gpus is not None or settings.processes:
        processes = trainer.nodes * (settings.processes or max(1, trainer.gpus or 1))
        at_once = settings.micro_batch_size * processes
        if settings.batch_size % at_once:
            raise SettingsError(
                f"finetuning.batch_size: seen {settings.batch_size}",
                allowed=f"a multiple of {at_once}: micro_batch_size times {processes} processes",
            )
