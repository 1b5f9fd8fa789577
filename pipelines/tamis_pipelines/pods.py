"""Pods of the Kubeflow pipelines: what a run may choose, what is fixed when a pipeline is compiled, and both on a task.

Kubeflow takes images, sizes, places and names of objects from the parameters of a run; labels, time limits, retries and
volumes of a size are part of the compiled package.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from tamis.core.finished import PLACE
from tamis.core.references import StoreUri
from tamis.core.run_place import OUTCOMES
from tamis.core.settings import Settings
from tamis.core.stages import IMAGES, PodKind, described
from tamis.finetuning.on_trainer import TrainerSettings
from tamis.scoring.measures import MEASURES
from tamis_pipelines.names import (
    ImageName,
    LabelKey,
    LabelValue,
    ObjectName,
    OptionalKey,
    Quantity,
    QueueName,
    VariableName,
)

WORK = "/cache/tamis"  # where pods mount the claim for unfinished work
# Steps that score samples for a strategy, and their pods.
# Steps that a run has only with the section of this name; the field of this name says that the step is compiled in.
OPTIONAL_STEPS = ("near_copies", "describe")
SCORE_PODS: dict[str, PodKind] = {name: measure.POD for name, measure in MEASURES.items()} | {
    "influence": described("influence")[0].pod
}
if TYPE_CHECKING:
    ScoreName = str
else:
    ScoreName = Literal[tuple(SCORE_PODS)]
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
MOST_SHARDS = 64  # Kubeflow is known to work with fan-outs in the tens
USER = 10001  # as in the images, the chart and the manifests
# What stages read from the ConfigMap of the chart; a variable that is not there is left out.
ENVIRONMENT = (
    "AWS_CONFIG_FILE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_CA_BUNDLE",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ENDPOINT",
    "HF_HUB_OFFLINE",
    "HF_ENDPOINT",
    "SSL_CERT_FILE",
)
# What stages read from the Secret of the storage: the keys that it has.
STORAGE_KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
)


class Toleration(Settings):
    """A taint that pods tolerate, in the words of Kubernetes."""

    key: OptionalKey = Field("", description="the taint's key; empty with operator Exists: every taint")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="Equal or Exists")
    value: LabelValue = Field("", description="the taint's value, with operator Equal")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field("", description="empty: every effect")


_UNLIMITED = 365 * 86_400  # seconds, for a pod without a timeout
_GPU_TAINT = (Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule"),)


class Pod(Settings):
    """Size and place of one kind of pod; each field is a parameter of the run."""

    image: ImageName = Field("", description="full name of the image; empty: that of the release")
    cpu: Quantity = Field("2", description="CPUs that are requested")
    memory: Quantity = Field("16Gi", description="memory, requested and the limit")
    node_selector: dict[LabelKey, LabelValue] = Field({}, description="labels that a node must have")
    tolerations: tuple[Toleration, ...] = Field((), description="taints that are tolerated")


class GpuPod(Pod):
    """The same with GPUs."""

    gpus: int = Field(1, ge=0, description="GPUs; 0: none")
    gpu_type: LabelKey = Field("nvidia.com/gpu", description="resource name of the GPU, as in amd.com/gpu")
    tolerations: tuple[Toleration, ...] = Field(_GPU_TAINT, description="taints that are tolerated")


class Pods(Settings):
    """All kinds of pods."""

    base: Pod = Field(Pod(), description="all that needs no model: pool, neighbours, curation, selection, report")
    embedding: GpuPod = Field(GpuPod(cpu="4", gpus=0), description="embeddings; with gpus, by the image of rating")
    rating: GpuPod = Field(GpuPod(cpu="4", memory="48Gi"), description="raters, scoring, judging")
    training: GpuPod = Field(GpuPod(cpu="8", memory="96Gi"), description="finetuning, influence")
    evaluation: GpuPod = Field(GpuPod(cpu="4", memory="48Gi"), description="benchmarks")

    @model_validator(mode="before")
    @classmethod
    def _keep_defaults(cls, values: Any) -> Any:
        """A kind of which some fields are given keeps its own defaults for the others, not those of any pod."""
        if not isinstance(values, dict):
            return values
        defaults = {kind: field.default.model_dump() for kind, field in cls.model_fields.items()}
        return {
            kind: defaults[kind] | given if kind in defaults and isinstance(given, dict) else given
            for kind, given in values.items()
        }


class Objects(Settings):
    """Names of the objects in the namespace that pods use; the chart and the manifests make them under these names."""

    environment: ObjectName = Field("tamis-environment", description="ConfigMap with where storage and hub are")
    aws_config: ObjectName = Field("tamis-aws-config", description="ConfigMap with the `config` file of AWS' clients")
    storage_ca: ObjectName = Field("tamis-storage-ca", description="ConfigMap with the storage's `ca.crt`")
    hub_ca: ObjectName = Field("tamis-hub-ca", description="ConfigMap with the hub's `ca.crt`")
    storage_secret: ObjectName = Field(
        "tamis-s3", description="Secret with the storage's keys: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or others"
    )
    hub_secret: ObjectName = Field("tamis-hub", description="Secret with HF_TOKEN")
    api_secret: ObjectName = Field("tamis-api-keys", description="Secret with the API keys of raters")
    model_cache: ObjectName = Field("tamis-models", description="claim with models, if compiled with model_cache")
    work: ObjectName = Field("tamis-work", description="claim for unfinished work, if compiled with work_volume")


class Retries(Settings):
    """How often a failed pod is tried again."""

    count: int = Field(2, ge=0, description="further tries after the first")
    wait: int = Field(60, ge=0, description="seconds before the second try; twice that before the third, and so on")


class Timeouts(Settings):
    """Seconds after which a pod is ended, by kind; 0: never."""

    base: int = Field(86_400, ge=0, description="see above")
    embedding: int = Field(86_400, ge=0, description="see above")
    rating: int = Field(604_800, ge=0, description="see above")
    training: int = Field(604_800, ge=0, description="see above")
    evaluation: int = Field(259_200, ge=0, description="see above")


class CompileSettings(Settings):
    """What is fixed in a compiled package."""

    queue: QueueName = Field("", description="LocalQueue of Kueue for every pod; empty: no queue")
    labels: dict[LabelKey, LabelValue] = Field({}, description="labels of every pod, for workload identity say")
    annotations: dict[LabelKey, str] = Field({}, description="annotations of every pod")
    trainer: bool = Field(False, description="finetuning runs as TrainJobs; set where kubeflow.trainer is given")
    scores: tuple[ScoreName, ...] = Field(
        (), description="steps that score samples for a strategy; `tamis submit` adds those that a run's subsets need"
    )
    near_copies: bool = Field(False, description="near-copies are dropped; set where a run has near_copies")
    sharded: bool = Field(False, description="raters may have several pods; set where rating_shards gives them")
    judging: bool = Field(False, description="cells are judged against an opponent; set where a run has judging")
    describe: bool = Field(False, description="samples are described by signals; set where a run has describe")
    parallelism: int = Field(0, ge=0, description="raters' pods, and groups of cells, that run at once; 0: no limit")
    cells_per_pod: int = Field(
        0, ge=0, description="cells of an experiment that share the pods of their steps; 0: the fewest that fit"
    )
    finished: StoreUri | None = Field(
        None,
        description="folder in object storage that keeps finished cells, so that a retried pod does not repeat them",
    )
    timeouts: Timeouts = Field(
        Timeouts(), description="seconds after which a pod is ended; a pod of several cells has that many times as long"
    )
    retries: Retries = Field(Retries(), description="how often a failed pod is tried again")
    outcomes: StoreUri | None = Field(
        None, description="folder in object storage for the outcomes of runs; set where a run has --outcomes"
    )
    cached: bool = Field(True, description="whether Kubeflow reuses a step with equal inputs and parameters")
    shared_memory: Quantity = Field("8Gi", description="/dev/shm of pods that run models")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="of the images")
    pull_secrets: list[ObjectName] = Field([], description="Secrets with credentials of the registry")
    model_cache: bool = Field(True, description="mount the claim with models; otherwise each pod fetches its own")
    work_volume: bool = Field(False, description="mount a claim for unfinished work: a training goes on in a new pod")
    api_keys: list[VariableName] = Field(
        ["OPENAI_API_KEY"], description="keys of the API Secret that raters get as variables"
    )
    identity: bool = Field(True, description="state user 10001 in every pod; for Kubeflow before 2.17 turn it off")
    keep_failed: int = Field(
        0, ge=0, description="seconds for which a failed run's pods are kept; 0: the cluster's rule"
    )


class KubeflowSettings(Settings):
    """The section `kubeflow` of a settings file; local runs do not look at it."""

    pods: Pods = Field(Pods(), description="run time: size and place of pods")
    objects: Objects = Field(Objects(), description="run time: names of objects that pods use")
    rating_shards: dict[str, Annotated[int, Field(ge=1, le=MOST_SHARDS)]] = Field(
        {}, description="run time: pods that share a rater's samples, by the rater's name; 1 if not named"
    )
    trainer: TrainerSettings | None = Field(
        None, description="run time: finetuning as TrainJobs, each node with the size and place of pods.training"
    )
    compiled: CompileSettings = Field(CompileSettings(), description="compile time")

    def arguments(self) -> dict[str, Any]:
        """Values of the run-time parameters, by the names that the pipelines give them."""
        from tamis.components import image

        values: dict[str, Any] = {}
        for kind, name in IMAGES.items():
            pod = getattr(self.pods, kind)
            cuda = "rating" if kind == "embedding" and pod.gpus else name
            for field, value in pod.model_dump(mode="json").items():
                values[f"{kind}_{field}"] = str(value) if field == "gpus" else value
            values[f"{kind}_image"] = pod.image or image(cuda)
            values[f"{kind}_tolerations"] = [
                toleration.model_dump(exclude_defaults=True) for toleration in pod.tolerations
            ]
        return values | self.objects.model_dump()

    @property
    def nodes(self) -> TrainerSettings | None:
        """The nodes of a TrainJob, whose size and place are those of the pods of training if not said."""
        if self.trainer is None:
            return None
        values, pod = self.arguments(), self.pods.training.model_dump(mode="json")
        same = {name: pod[name] for name in ("cpu", "memory", "gpus", "gpu_type", "node_selector")}
        same |= {"image": values["training_image"], "tolerations": values["training_tolerations"]}
        return TrainerSettings(**same | {"queue": self.compiled.queue} | self.trainer.model_dump(exclude_unset=True))


def fit(
    task: Any,
    kind: PodKind,
    given: dict[str, Any],
    settings: CompileSettings,
    *,
    once: bool = False,
    timeout: int | None = None,
    cells: bool = False,
) -> Any:
    """Give a task the pod of its kind; returns the task.

    Args:
        task: the task.
        kind: its kind of pod.
        given: the pipeline's parameters, or their values, by the names of `KubeflowSettings.arguments`.
        settings: what is compiled in.
        once: the step only says how the run goes, so it is neither cached nor tried again.
        timeout: seconds, other than its kind has.
        cells: the step works for as many cells as `settings` say.
    """
    sizes = ("cpu", "memory", *(("gpus", "gpu_type") if kind != "base" else ()))
    # The setters of sizes do not carry their parameter into loops and exit handlers (kfp 2.17); this does.
    task.register_pipeline_channels([value for size in sizes if not isinstance(value := given[f"{kind}_{size}"], str)])
    task.set_container_image(given[f"{kind}_image"])
    task.set_cpu_request(given[f"{kind}_cpu"])
    task.set_memory_request(given[f"{kind}_memory"]).set_memory_limit(given[f"{kind}_memory"])
    task.set_caching_options(settings.cached and not once)
    if kind != "base" and given[f"{kind}_gpus"] != "0":
        task.set_accelerator_type(given[f"{kind}_gpu_type"]).set_accelerator_limit(given[f"{kind}_gpus"])
    seconds = getattr(settings.timeouts, kind) if timeout is None else timeout
    if cells:
        seconds *= max(1, settings.cells_per_pod)
        if settings.finished:
            task.set_env_variable(PLACE, settings.finished)
    if settings.retries.count and not once:
        task.set_retry(
            settings.retries.count, f"{settings.retries.wait}s", 2.0, f"{_window(settings.retries, seconds)}s"
        )
    _place(task, kind, given, settings, seconds)
    _mount(task, kind, given, settings)
    _tell(task, kind, given, settings)
    return task


def _window(retries: Retries, timeout: int) -> int:
    """Seconds that all tries of a pod may take together, with the waits between them.

    Kubeflow hands this on as the longest time after the first start of a pod in which another one may start or run, so
    it must not cut short what the timeout allows (https://github.com/argoproj/argo-workflows/issues/13044).
    """
    waits = sum(retries.wait << number for number in range(retries.count))
    return (retries.count + 1) * (timeout or _UNLIMITED) + waits


def _place(task: Any, kind: PodKind, given: dict[str, Any], settings: CompileSettings, seconds: int) -> None:
    from kfp import kubernetes

    if (selector := given[f"{kind}_node_selector"]) != {}:
        kubernetes.add_node_selector_json(task, selector)
    kubernetes.add_toleration_json(task, given[f"{kind}_tolerations"])
    queue = {QUEUE_LABEL: settings.queue} if settings.queue else {}
    stage = {"app.kubernetes.io/name": "tamis", "app.kubernetes.io/part-of": "tamis", "tamis.dev/pod": kind}
    for key, value in (stage | settings.labels | queue).items():
        kubernetes.add_pod_label(task, key, value)
    for key, value in settings.annotations.items():
        kubernetes.add_pod_annotation(task, key, value)
    kubernetes.set_image_pull_policy(task, settings.pull_policy)
    if settings.pull_secrets:
        kubernetes.set_image_pull_secrets(task, settings.pull_secrets)
    if seconds:
        kubernetes.set_timeout(task, seconds)
    if settings.identity:
        kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)


def _mount(task: Any, kind: PodKind, given: dict[str, Any], settings: CompileSettings) -> None:
    from kfp import kubernetes

    kubernetes.empty_dir_mount(task, "cache", "/cache")
    kubernetes.empty_dir_mount(task, "tmp", "/tmp")
    if kind != "base":
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=settings.shared_memory)
    if settings.model_cache:
        kubernetes.mount_pvc(task, given["model_cache"], "/cache/hf")
    if settings.work_volume:
        kubernetes.mount_pvc(task, given["work"], WORK)
    kubernetes.use_config_map_as_volume(task, given["aws_config"], "/etc/tamis/aws", optional=True)
    kubernetes.use_config_map_as_volume(task, given["storage_ca"], "/etc/tamis/storage-ca", optional=True)
    kubernetes.use_config_map_as_volume(task, given["hub_ca"], "/etc/tamis/hub-ca", optional=True)


def _tell(task: Any, kind: PodKind, given: dict[str, Any], settings: CompileSettings) -> None:
    from kfp import kubernetes

    def secret(name: str, keys: list[str]) -> None:
        kubernetes.use_secret_as_env(task, given[name], {key: key for key in keys}, optional=True)

    kubernetes.use_config_map_as_env(task, given["environment"], {key: key for key in ENVIRONMENT}, optional=True)
    secret("storage_secret", list(STORAGE_KEYS))
    secret("hub_secret", ["HF_TOKEN"])
    if kind == "rating" and settings.api_keys:
        secret("api_secret", settings.api_keys)
    if settings.outcomes:
        # As a parameter it would be part of the step's key in Kubeflow's cache.
        task.set_env_variable(OUTCOMES, settings.outcomes)
