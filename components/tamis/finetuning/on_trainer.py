"""Finetuning on several nodes as a TrainJob of Kubeflow Trainer, from a laptop or out of a pipeline's pod."""

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
_LONGEST_NAME = 40  # the names of a TrainJob's pods are longer by some twenty characters


class TrainerSettings(Settings):
    """The nodes of a training, and the runtime that says all else of its pods."""

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
    """As the stage's `run`, but trained by a TrainJob; for the pod of a pipeline, which needs no GPU.

    `trainer` holds the values of `TrainerSettings`. The selection goes to its `place`, where the TrainJob's pods put
    the model; what is there already is used.

    Raises:
        SettingsError: when the settings do not fit the nodes, or name what the TrainJob's pods cannot see.
        TrainJobError, StoppedError: as `TrainJobs.run` does.
        StorageError, ArtifactError: when `place` cannot be written or read, or holds no model afterwards.
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
            log.info("the model is in %s already", made)
        model = Artifact.open(made, "model", cache=Path(cache))
        if model.manifest.revision != settings.OUTPUT_REVISION:
            raise TrainJobError(
                f"the model in {made} is of revision {model.manifest.revision} of what finetuning makes, and this is "
                f"revision {settings.OUTPUT_REVISION}: the nodes' image is of another version of Tamis",
                action="give the runtime, or kubeflow.trainer.image, the image of this version, and remove that model",
            )
        deliver(model.folder, model.manifest, out)
        return model.manifest


def trainjob(
    settings: FinetuningSettings, trainer: TrainerSettings, *, selection: str, out: str, name: str = ""
) -> dict[str, Any]:
    """The TrainJob of a training. Without `name` it has one that is made of all that it is for.

    Raises:
        SettingsError: when the settings do not fit the nodes, or name what its pods cannot see.
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
    """In a pod of Kubeflow Pipelines: that the TrainJob goes when that pod is removed, were it killed before."""
    pod, uid = os.environ.get("KFP_POD_NAME"), os.environ.get("KFP_POD_UID")
    if not pod or not uid:
        return {}
    return {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}]}


def _name(subject: str, key: str) -> str:
    """A name for an object that tells its subject, and two subjects apart."""
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
                f"{what}: {place} is on this machine, where a TrainJob's pods cannot see it",
                allowed=f"object storage as in s3://…, names on the Hub, and claims that pods mount below {MOUNTED}",
            )
    check_nodes(settings, trainer)


def check_nodes(settings: FinetuningSettings, trainer: TrainerSettings) -> None:
    """Refuse a training whose batches cannot be shared out among the nodes' processes, as far as these are known.

    Raises:
        SettingsError: with the sizes that could be.
    """
    if trainer.gpus is not None or settings.processes:
        processes = trainer.nodes * (settings.processes or max(1, trainer.gpus or 1))
        at_once = settings.micro_batch_size * processes
        if settings.batch_size % at_once:
            raise SettingsError(
                f"finetuning.batch_size: seen {settings.batch_size}",
                allowed=f"a multiple of {at_once}: micro_batch_size times {processes} processes",
            )
