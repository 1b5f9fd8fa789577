"""The compiled Kubeflow pipelines: their IR, their pods, and the packages in the repository."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from tamis.cli import main
from tamis.components import image
from tamis.core.errors import SettingsError
from tamis.core.settings import load_yaml, with_overrides
from tamis_pipelines import packages
from tamis_pipelines.definitions import PIPELINES
from tamis_pipelines.packages import compile_all, compile_one
from tamis_pipelines.pods import QUEUE_LABEL, SCORE_PODS, CompileSettings, KubeflowSettings
from tamis_pipelines.settings import RunSettings, load_run
from tamis_pipelines.workflow.fitting import fitted
from tests.kubernetes.restricted import house_rules, violations
from tests.kubernetes.schemas import errors_of_custom
from tests.pipeline.rendering import Ir, defaults, load, pods

ROOT = Path(__file__).parents[2]
DIGEST = "0" * 64
COMMITTED = ROOT / "pipelines/packages"
# Kubeflow 2.17's compiler puts this on every container; a package cannot say it.
ADDED_BY_KUBEFLOW = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
# Kubeflow has no words for these, in a package or elsewhere.
NOT_EXPRESSIBLE = (
    "a token of the service account is mounted",
    "service links set variables",
    "no service account is named",  # it is the run's: `tamis submit --service-account`
    "no fsGroup",
    "has a writable root",
    "ephemeral-storage",
    "leaves no reason in its status",
)
ONCE = {"note-outcome", "require-all-cells"}  # steps that only say how the run went
UNCACHED = {"start-run", *ONCE}


@pytest.fixture(scope="module", params=[*sorted(PIPELINES), "with everything"])
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ir, Ir]:
    """A package of the repository, or one with every step that a run may need."""
    if request.param == "with everything":
        settings = CompileSettings(scores=(*SCORE_PODS,), sharded=True, trainer=True, judging=True, describe=True)
        return load(compile_one("experiment", tmp_path_factory.mktemp("everything"), settings))
    return load(COMMITTED / f"{request.param}.yaml")


def test_the_packages_in_the_repository_are_what_the_pipelines_compile_to(tmp_path: Path) -> None:
    for path in compile_all(tmp_path):
        assert path.read_text() == (COMMITTED / path.name).read_text(), "they drifted: make packages"


def test_the_ir_is_valid_field_by_field(package: tuple[Ir, Ir]) -> None:
    ir, platform = package
    spec = json_format.ParseDict(ir, pipeline_spec_pb2.PipelineSpec())
    for settings in platform.values():
        json_format.ParseDict(settings, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    assert set(platform) == set(spec.deployment_spec["executors"])


def test_every_parameter_that_a_step_or_its_pod_names_reaches_it(package: tuple[Ir, Ir]) -> None:
    ir, platform = package
    for where, dag, inputs in dags(ir):
        for name, task in dag["tasks"].items():
            component = ir["components"][task["componentRef"]["name"]]
            executor = component.get("executorLabel", "")
            sources = [
                *task.get("inputs", {}).get("parameters", {}).values(),
                *parameter_sources(platform.get(executor)),
            ]
            asked = {source["componentInputParameter"] for source in sources if "componentInputParameter" in source}
            assert asked <= inputs, f"{where}.{name} asks for {asked - inputs}"
            container = ir["deploymentSpec"]["executors"].get(executor, {}).get("container", {})
            placeholders = set(re.findall(r"inputs\.parameters\['([^']+)'\]", str(container)))
            assert placeholders <= set(task["inputs"]["parameters"]) if placeholders else True, f"{where}.{name}"


def dags(ir: Ir) -> Iterator[tuple[str, Ir, set[str]]]:
    """Name, DAG and parameters of the root and of every component that is a DAG."""
    for name, component in {"root": ir["root"], **ir["components"]}.items():
        if "dag" in component:
            yield name, component["dag"], set(component.get("inputDefinitions", {}).get("parameters", {}))


def parameter_sources(value: Any) -> Iterator[Ir]:
    if isinstance(value, dict):
        if "componentInputParameter" in value:
            yield value
        for inner in value.values():
            yield from parameter_sources(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from parameter_sources(inner)


def test_a_run_needs_the_sections_of_the_settings_and_may_give_what_concerns_pods(package: tuple[Ir, Ir]) -> None:
    ir, _ = package
    parameters = ir["root"]["inputDefinitions"]["parameters"]
    scores = set(SCORE_PODS)
    by_cell = {"subsets", "experiment", "finetuning", "evaluation", "judging"}
    sections = set(RunSettings.model_fields) - {"work_dir", "name", "kubeflow", "rates", "budget"} - by_cell - scores
    steps = {task["taskInfo"]["name"] for _, dag, _ in dags(ir) for task in dag["tasks"].values()}
    assert scores <= steps or not scores & steps
    sections -= {"describe"} - steps | (set() if "drop-near-copies" in steps else {"near_copies"})
    sections |= scores & steps | ({"workers"} if "gather-ratings" in steps else set())
    sections |= {"trainer"} if "finetune-on-trainer" in steps else set()
    models = {"cells", "bases", "finetuning", "evaluation"} | ({"judging"} if "judge" in steps else set())
    needed = {name for name, parameter in parameters.items() if "defaultValue" not in parameter}
    assert needed == sections | (models if ir["pipelineInfo"]["name"] == "experiment" else {"subsets"})
    for_pods = set(KubeflowSettings().arguments()) | {"outcomes"}
    assert set(parameters) - needed <= for_pods
    if ir["pipelineInfo"]["name"] == "experiment":
        assert set(parameters) - needed == for_pods


def test_every_step_runs_in_an_image_of_tamis_and_installs_nothing(package: tuple[Ir, Ir]) -> None:
    ir, platform = package
    images = {image(name) for name in ("cpu", "rating", "training", "evaluation")}
    for name, pod in pods(ir, platform, defaults(ir)):
        assert pod["containers"][0]["image"] in images, name
    assert "pip install" not in str(ir)


def test_pods_are_valid_and_restricted_with_what_kubeflow_adds(package: tuple[Ir, Ir]) -> None:
    ir, platform = package
    for name, pod in pods(ir, platform, defaults(ir)):
        kind = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod}
        for version in ("1.28", "1.37"):
            kubernetes_validate.validate(kind, version, strict=True)
        alone = violations(pod)
        assert all(re.search("escalate|capabilities|seccomp", violation) for violation in alone), (name, alone)
        whole = copy.deepcopy(pod)
        whole["containers"][0]["securityContext"] |= ADDED_BY_KUBEFLOW
        assert violations(whole) == [], name
        broken = [rule for rule in house_rules(whole) if not any(excuse in rule for excuse in NOT_EXPRESSIBLE)]
        assert broken == [], name


def test_the_run_decides_image_size_and_place_of_pods(package: tuple[Ir, Ir]) -> None:
    ir, platform = package
    settings = KubeflowSettings.model_validate(
        {
            "pods": {
                "rating": {
                    "image": f"registry.internal/rating@sha256:{DIGEST}",
                    "cpu": "16",
                    "memory": "200Gi",
                    "gpus": 8,
                    "gpu_type": "amd.com/gpu",
                    "node_selector": {"pool": "big"},
                    "tolerations": [{"key": "big", "operator": "Exists"}],
                }
            },
            "objects": {"storage_secret": "other-s3", "model_cache": "other-models"},
        }
    )
    made = dict(pods(ir, platform, settings.arguments() | {"outcomes": ""}))
    (container,) = made["rate"]["containers"]
    assert container["image"] == f"registry.internal/rating@sha256:{DIGEST}"
    assert container["resources"]["limits"] == {"memory": "200Gi", "amd.com/gpu": "8"}
    assert container["resources"]["requests"] == {"cpu": "16", "memory": "200Gi"}
    assert made["rate"]["nodeSelector"] == {"pool": "big"}
    assert made["rate"]["tolerations"] == [{"key": "big", "operator": "Exists"}]
    assert made["curate"]["nodeSelector"] == {}
    for name, pod in made.items():
        assert "other-s3" in str(pod["containers"][0]["env"]), name
        assert {"name": "other-models", "mountPath": "/cache/hf"} in pod["containers"][0]["volumeMounts"], name


def test_embeddings_with_gpus_run_in_an_image_that_can_use_them() -> None:
    with_gpus = KubeflowSettings.model_validate({"pods": {"embedding": {"gpus": 1}}})
    assert with_gpus.pods.embedding.cpu == KubeflowSettings().pods.embedding.cpu == "4"
    some = KubeflowSettings.model_validate({"pods": {"rating": {"gpus": 4}, "training": {"memory": "200Gi"}}}).pods
    assert (some.rating.gpus, some.rating.cpu, some.rating.memory) == (4, "4", "48Gi")
    assert (some.training.gpus, some.training.cpu, some.training.memory) == (1, "8", "200Gi")
    assert with_gpus.arguments()["embedding_image"] == image("rating")
    assert KubeflowSettings().arguments()["embedding_image"] == image("cpu")


def test_the_compile_settings_are_in_every_pod(tmp_path: Path) -> None:
    settings = CompileSettings.model_validate(
        {
            "queue": "research",
            "labels": {"azure.workload.identity/use": "true"},
            "annotations": {"team": "data"},
            "parallelism": 3,
            "timeouts": {"base": 60, "rating": 0},
            "retries": {"count": 5, "wait": 7},
            "shared_memory": "64Gi",
            "pull_policy": "Always",
            "pull_secrets": ["registry"],
            "model_cache": False,
            "work_volume": True,
            "api_keys": ["AZURE_OPENAI_API_KEY"],
            "keep_failed": 99,
        }
    )
    for path in compile_all(tmp_path, settings):
        ir, platform = load(path)
        made = dict(pods(ir, platform, defaults(ir)))
        for name, pod in made.items():
            of = platform[f"exec-{name}"]
            assert of["podMetadata"]["labels"].items() >= {QUEUE_LABEL: "research", **settings.labels}.items()
            assert of["podMetadata"]["annotations"] == {"team": "data"}
            assert of["imagePullSecret"][0]["secretNameParameter"]["runtimeValue"]["constant"] == "registry"
            mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
            assert mounts["/cache/tamis"] == "tamis-work"
            assert "/cache/hf" not in mounts
            assert pod["containers"][0]["imagePullPolicy"] == "Always"
        assert made["pool"]["activeDeadlineSeconds"] == 60
        assert "activeDeadlineSeconds" not in made["rate"]
        assert "AZURE_OPENAI_API_KEY" in str(made["rate"]["containers"][0]["env"])
        assert "API_KEY" not in str(made["curate"]), "only raters get the keys of APIs"
        shm = [volume for volume in made["rate"]["volumes"] if volume["name"] == "shm"]
        assert shm == [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Gi"}}]
        steps = [task for _, dag, _ in dags(ir) for task in dag["tasks"].values()]
        retried = [task["retryPolicy"] for task in steps if "retryPolicy" in task]
        assert len(retried) == len(set(made) - ONCE)
        # Kubeflow ends the tries when this time is over, so it is that of all of them: by kind, with the waits.
        windows = {policy.pop("backoffMaxDuration") for policy in retried}
        waits = 7 * (1 + 2 + 4 + 8 + 16)
        assert {f"{6 * 60 + waits}s", f"{6 * 365 * 86_400 + waits}s"} <= windows
        assert retried[0] == {
            "maxRetryCount": 5,
            "backoffDuration": "7s",
            "backoffFactor": 2.0,
        }
        limits = {task["iteratorPolicy"]["parallelismLimit"] for task in steps if "iteratorPolicy" in task}
        assert limits == {3}


def test_what_a_cell_consists_of_is_taken_out_of_the_list_of_cells(tmp_path: Path) -> None:
    ir, platform = load(compile_one("experiment", tmp_path, CompileSettings(judging=True)))
    assert ir["root"]["inputDefinitions"]["parameters"]["cells"]["parameterType"] == "LIST"
    steps = {task["taskInfo"]["name"]: task for _, dag, _ in dags(ir) for task in dag["tasks"].values()}
    parts = {"select": "subset", "finetune": "finetuning", "evaluate-2": "evaluation", "judge": "judging"}
    for step, section in parts.items():
        given = steps[step]["inputs"]["parameters"]["cells"]
        assert given["parameterExpressionSelector"] == f'parseJson(string_value)["{section}"]'
        (loop,) = [d for _, d, _ in dags(ir) if step in {t["taskInfo"]["name"] for t in d["tasks"].values()}]
        assert loop is not ir["root"]["dag"]
        if step != "select":
            common = steps[step]["inputs"]["parameters"]["settings"]["componentInputParameter"]
            assert common == f"pipelinechannel--{section}"
    assert "OPENAI_API_KEY" in str(platform["exec-judge"]), "a judge may be a service"
    assert "judgements" in steps["report"]["inputs"]["artifacts"]


def test_a_pipeline_judges_only_if_the_settings_do() -> None:
    judged, plain = (load_run(ROOT / "examples" / name) for name in ("paper.yaml", "experiment.yaml"))
    assert (judged.compiled.judging, plain.compiled.judging) == (True, False)
    cells = judged.arguments()["cells"]
    opponents = {cell["finetuning"]["model"]: cell["judging"]["against"]["path"] for cell in cells}
    assert len(cells) == 36
    assert len(set(opponents.values())) == len(opponents) == 2, "each base model has an opponent of its own"
    assert "judging" not in plain.arguments()["cells"][0]
    assert "judging" not in judged.arguments()


def test_the_last_step_runs_whatever_happened(package: tuple[Ir, Ir]) -> None:
    task = package[0]["root"]["dag"]["tasks"]["note-outcome"]
    assert task["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert task["dependentTasks"] == ["exit-handler-1"], "tamis.cluster.workflow looks for this name"


def test_every_step_that_makes_something_is_cached_and_no_other(package: tuple[Ir, Ir]) -> None:
    ir, _ = package
    for _, dag, _ in dags(ir):
        for name, task in dag["tasks"].items():
            if "dag" not in ir["components"][task["componentRef"]["name"]]:
                assert task["cachingOptions"] == ({} if name in UNCACHED else {"enableCache": True}), name


def test_what_differs_from_run_to_run_is_in_no_key_of_kubeflow_s_cache(package: tuple[Ir, Ir]) -> None:
    ir, _ = package
    for task, component, container in cached(ir):
        assert "{{$.pipeline_" not in f"{task['inputs']}{component}{container['command']}{container['args']}"


def test_the_folder_for_outcomes_reaches_every_step_and_changes_no_key(tmp_path: Path) -> None:
    with_it = CompileSettings(outcomes="s3://runs/outcomes")
    for path in compile_all(tmp_path, with_it):
        changed, _ = load(path)
        plain, _ = load(COMMITTED / path.name)
        for executor in changed["deploymentSpec"]["executors"].values():
            # An executor's environment is no part of the key.
            assert executor["container"].pop("env") == [{"name": "TAMIS_OUTCOMES", "value": "s3://runs/outcomes"}]
        assert [*cached(changed)] == [*cached(plain)]


def cached(ir: Ir) -> Iterator[tuple[Ir, Ir, Ir]]:
    """Of each step that Kubeflow caches all that it makes the key of: task, component and container."""
    for _, dag, _ in dags(ir):
        for task in dag["tasks"].values():
            component = ir["components"][task["componentRef"]["name"]]
            if task.get("cachingOptions") and "executorLabel" in component:
                yield task, component, ir["deploymentSpec"]["executors"][component["executorLabel"]]["container"]


def test_the_page_of_the_report_shows_in_the_ui(package: tuple[Ir, Ir]) -> None:
    ir, _ = package
    outputs = ir["components"]["comp-report"]["outputDefinitions"]["artifacts"]
    assert outputs["page"]["artifactType"]["schemaTitle"] == "system.HTML"


def test_compile_takes_a_settings_file_and_single_settings(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"kubeflow": {"compiled": {"queue": "from-file", "parallelism": 2}}}))
    command = ["compile", "--out", str(tmp_path), "--settings", str(file), "--set", "compiled.queue=from-command"]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    _, platform = load(tmp_path / "experiment.yaml")
    assert platform["exec-rate"]["podMetadata"]["labels"][QUEUE_LABEL] == "from-command"


def test_what_a_run_needs_is_compiled_from_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[CompileSettings] = []
    monkeypatch.setattr(packages, "compile_all", lambda folder, settings: seen.append(settings) or [])
    file, kept = tmp_path / "run.yaml", "kubeflow.compiled.finished=s3://bucket/finished"
    changes = [f"experiment.seeds={list(range(12))}", "kubeflow.compiled.work_volume=false"]
    file.write_text(yaml.safe_dump(with_overrides(load_yaml(ROOT / "examples/paper.yaml"), changes)))
    command = ["compile", "--out", str(tmp_path), "--settings", str(file)]
    unprotected = CliRunner().invoke(main, command)
    assert (unprotected.exit_code, "code:    settings" in unprotected.output) == (78, True), "as submit refuses it"
    made = CliRunner().invoke(main, [*command, "--set", kept, "--set", "compiled.queue=tamis"], catch_exceptions=False)
    assert made.exit_code == 0, made.output
    (compiled,) = seen
    needed = load_run(file, [kept])
    assert (compiled.queue, compiled.finished) == ("tamis", "s3://bucket/finished")
    assert (compiled.judging, compiled.scores) == (True, needed.scores)
    assert compiled.cells_per_pod == fitted(needed, needed.compiled, tmp_path, constant=False).cells_per_pod > 1


def test_pipelines_are_objects_for_kubectl_where_kubeflow_keeps_them_in_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(PIPELINES, "experiment")  # one shows it
    names = []
    for queue in ("a", "b"):
        command = ["compile", "--out", str(tmp_path), "--objects", "team", "--set", f"compiled.queue={queue}"]
        assert CliRunner().invoke(main, command, catch_exceptions=False).exit_code == 0
        (file,) = tmp_path.iterdir()
        pipeline, version = yaml.safe_load_all(file.read_text())
        names.append(version["metadata"]["name"])
    assert names[0] != names[1]
    assert pipeline["metadata"] == {"name": "data-selection", "namespace": "team"}
    assert version["spec"]["pipelineName"] == "data-selection"
    json_format.ParseDict(version["spec"]["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())
    for document in (pipeline, version):
        assert list(errors_of_custom(document)) == []


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("compiled.quue=a", "did you mean 'queue'"),
        ("pods.rating.memory=lots", "pods.rating.memory"),
        ("pods.rating.gpus=-1", "pods.rating.gpus"),
        ("objects.storage_secret=Bad_Name", "objects.storage_secret"),
        ("compiled.labels={Team A: research}", "compiled.labels"),
        ("compiled.labels.team=research of ours", "compiled.labels"),
        (f"compiled.labels.team={'r' * 64}", "compiled.labels"),
        ("compiled.annotations={example.com/a/b: c}", "compiled.annotations"),
        ("compiled.api_keys=[MY-KEY]", "compiled.api_keys"),
        ("pods.rating.image=Registry/Tamis Rating", "pods.rating.image"),
        ("pods.rating.image=registry/tamis@sha256:abc", "pods.rating.image"),
        ("pods.rating.gpu_type=nvidia.com/", "pods.rating.gpu_type"),
        ("pods.base.node_selector.pool=gpu pool", "pods.base.node_selector"),
        ("objects.storage_secret=a..b", "objects.storage_secret"),
        ("compiled.queue=a.-b", "compiled.queue"),
        ("compiled.queue=Team A", "compiled.queue"),
        ("compiled.queue=${queue}", "the variable ${queue} is not defined"),
        ("compiled.pull_policy=Sometimes", "compiled.pull_policy"),
        ("pods.base.gpus=1", "pods.base.gpus: unknown setting"),
    ],
)
def test_wrong_settings_of_the_cluster_are_refused_by_name(tmp_path: Path, setting: str, said: str) -> None:
    result = CliRunner().invoke(main, ["compile", "--out", str(tmp_path), "--set", setting])
    assert result.exit_code == 78
    assert said in result.output


def test_names_that_kubernetes_takes_are_taken(tmp_path: Path) -> None:
    settings = [
        "compiled.labels={team: research, example.com/Cost-Centre: '4711'}",
        "compiled.annotations={iam.amazonaws.com/role: 'arn:aws:iam::1:role/a b'}",
        "pods.rating.image=registry.example:5000/team/tamis-rating:1.0",
        f"pods.training.image=ghcr.io/tamis/tamis-training@sha256:{'0' * 64}",
        "pods.evaluation.image=tamis",
        "pods.rating.gpu_type=amd.com/gpu",
    ]
    given = [f"--set={setting}" for setting in settings]
    result = CliRunner().invoke(main, ["compile", "--out", str(tmp_path), *given])
    assert result.exit_code == 0, result.output


def test_variables_reach_what_is_compiled(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        "variables: {queue: research}\npool: {sources: '${data}'}\nkubeflow: {compiled: {queue: '${queue}'}}"
    )
    command = ["compile", "--out", str(tmp_path), "--settings", str(file), "--set", "compiled.labels.team=${queue}"]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    _, platform = load(tmp_path / "data-selection.yaml")
    labels = [pod["podMetadata"]["labels"] for pod in platform.values()]
    assert {(of["kueue.x-k8s.io/queue-name"], of["team"]) for of in labels} == {("research", "research")}


def test_a_run_has_the_scores_that_its_strategies_need() -> None:
    settings = load_run(ROOT / "components/tamis/demo/settings.yaml")
    assert settings.scores == ()
    assert not {*SCORE_PODS} & set(settings.cluster_arguments())
    scored = [{"name": name, "strategy": name, "size": 9} for name in ("less", "perplexity", "deita")]
    given = settings.model_dump(mode="json", exclude_unset=True, exclude={"finetuning", "evaluation"})
    task = {"name": "facts", "path": "s3://bucket/task.jsonl"}
    settings = RunSettings.model_validate(given | {"subsets": scored, "influence": {"tasks": [task]}})
    assert settings.scores == settings.compiled.scores == ("perplexity", "deita", "influence")
    arguments = settings.cluster_arguments()
    assert arguments["perplexity"] == {}
    assert arguments["deita"] == {"measure": {"kind": "deita"}}
    assert arguments["influence"] == {"tasks": [task]}
    assert "training_gpus" in arguments
    assert "evaluation_gpus" not in arguments
    published = settings.model_copy(update={"subsets": settings.subsets[1:2], "influence": None})
    assert published.scores == ("perplexity",)
    assert "training_gpus" not in published.cluster_arguments()


@pytest.mark.parametrize(
    ("compiled", "seen"),
    [("scores=[perplexity]", "scores: perplexity"), ("judging=true", "judging"), ("trainer=true", "trainer")],
)
def test_a_step_that_is_compiled_in_and_has_no_settings_is_refused_before_raters_are_paid(
    compiled: str, seen: str
) -> None:
    with pytest.raises(SettingsError, match=f"compiled.{seen}: nothing in these settings uses that step"):
        load_run(ROOT / "examples/cluster.yaml", [f"kubeflow.compiled.{compiled}"])


def test_a_step_that_is_compiled_in_and_used_may_be_named() -> None:
    scored = "subsets=[{name: plain, strategy: perplexity, size: 9}]"
    settings = load_run(ROOT / "examples/cluster.yaml", [scored, "kubeflow.compiled.scores=[perplexity]"])
    assert settings.compiled.scores == ("perplexity",)


def test_a_trainjob_has_the_nodes_of_the_pods_of_training() -> None:
    place = "kubeflow.trainer.place=s3://bucket/trainings"
    settings = load_run(
        ROOT / "examples/cluster.yaml", [place, "kubeflow.trainer.nodes=2", "kubeflow.compiled.queue=q"]
    )
    assert settings.compiled.trainer
    pod = settings.kubeflow.pods.training
    assert settings.cluster_arguments()["trainer"] == {
        "nodes": 2,
        "place": "s3://bucket/trainings",
        "queue": "q",
        "image": image("training"),
        **pod.model_dump(include={"cpu", "memory", "gpus", "gpu_type", "node_selector"}),
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }
    with pytest.raises(SettingsError, match=r"kubeflow\.trainer.*place"):
        load_run(ROOT / "examples/cluster.yaml", ["kubeflow.trainer.nodes=2"])
    with pytest.raises(SettingsError, match="batch_size: seen 128"):
        load_run(ROOT / "examples/cluster.yaml", [place, "kubeflow.trainer.nodes=3"])


@pytest.mark.parametrize("example", ["alpaca-rated.yaml", "cluster.yaml", "experiment.yaml", "paper.yaml"])
def test_the_examples_are_valid_settings_and_compile(example: str, tmp_path: Path) -> None:
    settings = load_run(ROOT / "examples" / example)
    assert settings.pipeline == ("data-selection" if example == "alpaca-rated.yaml" else "experiment")
    ir, _ = load(compile_one(settings.pipeline, tmp_path, settings.compiled))
    assert set(settings.cluster_arguments()) <= set(ir["root"]["inputDefinitions"]["parameters"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("strategy: random", "strategy: less, variant: ds2-paper"), "less.*influence"),
        (("embedding:", "deita: {measure: {kind: perplexity}}\nembedding:"), "deita.measure.kind is perplexity"),
        (("embedding:", "neighbors: {shard: 1/2}\nembedding:"), "neighbors.shard"),
        (("embedding:", "kubeflow: {rating_shards: {lama: 2}}\nembedding:"), "no rater 'lama'; allowed: "),
        (("embedding:", "kubeflow: {rating_shards: {smollm2-135m: 99}}\nembedding:"), "rating_shards.smollm2-135m"),
        (("max_sample_tokens: 256}\n", "max_sample_tokens: 256}\n    shard: 1/2\n"), "a run rates all shards"),
    ],
)
def test_what_the_pipelines_do_not_do_is_refused_before_they_start(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text((ROOT / "components/tamis/demo/settings.yaml").read_text().replace(*change))
    with pytest.raises(SettingsError, match=said):
        load_run(path)
