"""The overlays, built by the real kubectl: a chain of Jobs that fits together, and fits the command `tamis`."""

from __future__ import annotations

import importlib
import re
import subprocess
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from tamis.cli import main
from tamis.cli.stages import STAGES
from tests.kubernetes.conftest import CHART, MANIFESTS, ON_THE_CHART, OVERLAYS, Objects, overlay, rendered
from tests.kubernetes.objects import by_name, containers, environment, pods, references

RUN = "$(TAMIS_RUN)/"
ALONE = [name for name in OVERLAYS if name != ON_THE_CHART]
# What an administrator makes; each is named in docs/install-cluster.md or docs/air-gap.md.
BROUGHT = {
    "ConfigMap/internal-ca",
    "Secret/registry-credentials",
    "Secret/tamis-s3",
    "Secret/tamis-hub",
    "Secret/tamis-api-keys",
}


class Run:
    """What one container of a run does: its command, what it waits for, reads and makes."""

    def __init__(self, name: str, arguments: list[str], waits: list[str]) -> None:
        self.name, self.arguments = name, arguments
        self.waits = {item.removeprefix(RUN) for item in waits}
        places = [re.fullmatch(r"--(\w+)=\$\(TAMIS_RUN\)/(.*)", item) for item in arguments[1:]]
        found = [(match[1], match[2]) for match in places if match]
        self.reads = {place for option, place in found if option != "out"}
        (self.makes,) = [place for option, place in found if option == "out"]


def runs(objects: Objects) -> Iterator[Run]:
    """The stages of an overlay, in Jobs and in TrainJobs."""
    for document in objects:
        if document["kind"] == "Job":
            pod = document["spec"]["template"]["spec"]
            (first,) = [container for container in pod["initContainers"] if container["name"] == "ready"]
            waits = first["args"][1:] if first["args"][0] == "wait" else []
            yield Run(document["metadata"]["name"], pod["containers"][0]["args"], waits)
        elif document["kind"] == "TrainJob":
            yield _train_job(document, objects)


def _train_job(document: dict[str, Any], objects: Objects) -> Run:
    """A TrainJob's commands are its runtime's script with its own variables."""
    runtime = by_name(objects)[f"TrainingRuntime/{document['spec']['runtimeRef']['name']}"]
    (pod,) = pods(runtime)
    (script,) = pod["containers"][0]["args"]
    for variable in document["spec"]["trainer"]["env"]:
        script = script.replace(f"${variable['name']}", variable["value"])
    script = script.replace('"$TAMIS_RUN/', f'"{RUN}').replace("\\\n", " ").replace('"', "")
    wait, work = script.strip().splitlines()
    words = work.removeprefix("exec tamis ").split()
    pairs = [f"{option}={value}" for option, value in zip(words[1::2], words[2::2], strict=True)]
    return Run(document["metadata"]["name"], [words[0], *pairs], wait.split()[2:])


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_job_waits_for_what_it_reads_and_somebody_makes_it(kubectl: Path, name: str) -> None:
    made = {run.makes for run in runs(overlay(kubectl, name))}
    for run in runs(overlay(kubectl, name)):
        assert run.reads <= run.waits, run.name
        assert run.waits <= made, run.name


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_job_waits_in_a_circle_and_no_two_write_to_one_place(kubectl: Path, name: str) -> None:
    chain = list(runs(overlay(kubectl, name)))
    makers = {run.makes: run.name for run in chain}
    assert len(makers) == len(chain)
    TopologicalSorter({run.name: {makers[place] for place in run.waits} for run in chain}).prepare()


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_command_tamis_takes_what_every_container_gives_it(kubectl: Path, name: str) -> None:
    for document in overlay(kubectl, name):
        for pod in pods(document):
            for container in containers(pod):
                if "command" not in container:
                    command, *options = container["args"]
                    main.commands[command].make_context(command, options)
    for run in runs(overlay(kubectl, name)):
        main.commands[run.arguments[0]].make_context(run.arguments[0], run.arguments[1:])


def test_a_wrong_option_would_be_found() -> None:
    with pytest.raises(click.UsageError):
        main.commands["wait"].make_context("wait", ["--patience", "1", "x"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_settings_file_is_used_and_is_what_its_stage_takes(kubectl: Path, name: str) -> None:
    from tamis.core.settings import parse, with_overrides

    objects = by_name(overlay(kubectl, name))
    (settings,) = [d["data"] for key, d in objects.items() if key.startswith("ConfigMap/tamis-settings-")]
    used = set()
    for run in runs(list(objects.values())):
        (path,) = [item.split("=", 1)[1] for item in run.arguments if item.startswith("--settings=")]
        file = path.removeprefix("/etc/tamis/settings/")
        overrides = [item.removeprefix("--set=") for item in run.arguments if item.startswith("--set=")]
        used.add(file)
        stage = STAGES[run.arguments[0]]
        model = getattr(importlib.import_module(f"tamis.{stage.room}.settings"), stage.settings)
        parse(model, with_overrides(yaml.safe_load(settings[file]), overrides), where=file)
    assert used == set(settings)


@pytest.mark.parametrize("name", OVERLAYS)
def test_subsets_are_chosen_by_raters_of_the_run(kubectl: Path, name: str) -> None:
    from tamis.core.settings import parse
    from tamis.rating.settings import RatingSettings

    objects = by_name(overlay(kubectl, name))
    (settings,) = [d["data"] for key, d in objects.items() if key.startswith("ConfigMap/tamis-settings-")]
    raters = {
        parse(RatingSettings, yaml.safe_load(text), where=file).name
        for file, text in settings.items()
        if file.startswith("rater-")
    }
    jobs = [run for run in runs(list(objects.values())) if run.arguments[0] == "rate"]
    assert len(jobs) == len(raters)
    for file, text in settings.items():
        if file.startswith("subset-") and yaml.safe_load(text)["strategy"].startswith("ds2"):
            rater = yaml.safe_load(text).get("rater")
            assert rater in raters or (rater is None and len(raters) == 1), file


@pytest.mark.parametrize("name", ALONE)
def test_what_pods_refer_to_is_there_or_brought_by_the_administrator(kubectl: Path, name: str) -> None:
    objects = overlay(kubectl, name)
    made = set(by_name(objects))
    for document in objects:
        for pod in pods(document):
            assert {item for item, needed in references(pod) if item not in made} <= BROUGHT


@pytest.mark.parametrize("name", [*OVERLAYS, "a private certificate and a trainer"])
def test_each_certificate_that_a_container_is_told_of_is_mounted(kubectl: Path, tmp_path: Path, name: str) -> None:
    private = ("trainer", "evaluation", "pod", "gpu", "work-volume", "models-from-storage", "storage-ca", "images")
    objects = overlay(kubectl, name) if name in OVERLAYS else built(kubectl, tmp_path, *private)
    maps = {key: document for key, document in by_name(objects).items() if key.startswith("ConfigMap/")}
    for document in objects:
        for pod in pods(document):
            for container in containers(pod):
                told = environment(container, maps)
                mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
                for variable in {"AWS_CA_BUNDLE", "AWS_CONFIG_FILE"} & set(told):
                    assert str(Path(told[variable]).parent) in mounts


@pytest.mark.parametrize("name", OVERLAYS)
def test_everything_is_in_the_namespace_and_says_that_it_is_of_tamis(kubectl: Path, name: str) -> None:
    objects = by_name(overlay(kubectl, name))
    assert ("Namespace/tamis" in objects) == (name in ALONE)
    for key, document in objects.items():
        if not key.startswith(("Namespace/", "ClusterQueue/", "ResourceFlavor/", "WorkloadPriorityClass/")):
            assert document["metadata"]["namespace"] == "tamis", key
        if not key.startswith("ConfigMap/"):
            assert document["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "tamis", key


def test_the_trial_finds_what_it_refers_to_in_the_chart_of_a_trial(kubectl: Path, newest_helm: Path) -> None:
    of_chart = by_name(rendered(newest_helm, {}, "--values", CHART / "values-cpu.yaml"))
    objects = by_name(overlay(kubectl, ON_THE_CHART))
    assert not set(objects) & set(of_chart), "both make it"
    for document in objects.values():
        for pod in pods(document):
            missing = {item for item, needed in references(pod) if needed and item not in objects | of_chart}
            assert not missing
            for container in containers(pod):
                keys = {e["valueFrom"]["secretKeyRef"]["key"] for e in container["env"]}
                assert keys <= set(of_chart["Secret/tamis-seaweedfs"]["stringData"])
    fetched = of_chart[next(name for name in of_chart if name.startswith("ConfigMap/tamis-prefetch"))]["data"]
    models = {model["repo"] for model in yaml.safe_load(fetched["models.yaml"])["models"]}
    (settings,) = [d["data"] for key, d in objects.items() if key.startswith("ConfigMap/tamis-settings-")]
    used = {
        yaml.safe_load(settings["rater-llama.yaml"])["backend"]["model"],
        yaml.safe_load(settings["embedding.yaml"])["model"],
    }
    assert used == models


@pytest.mark.parametrize("name", ALONE)
def test_the_namespace_itself_refuses_pods_that_are_not_restricted(kubectl: Path, name: str) -> None:
    labels = by_name(overlay(kubectl, name))["Namespace/tamis"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def built(kubectl: Path, folder: Path, *components: str) -> Objects:
    """An overlay of these components on the base and the selection."""
    up = Path("../" * len(folder.parts[1:])) / str(MANIFESTS).lstrip("/")  # kustomize takes no absolute paths
    kustomization = {
        "namespace": "tamis",
        "resources": [str(up / "base"), str(up / "selection")],
        "components": [str(up / "components" / name) for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    ended = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return list(yaml.safe_load_all(ended.stdout))


def jobs(objects: Objects, *stages: str) -> Objects:
    return [d for d in objects if d["kind"] == "Job" and d["metadata"]["labels"]["tamis.dev/stage"] in stages]


def test_stages_with_models_get_a_gpu_and_an_image_that_can_use_it(kubectl: Path) -> None:
    objects = overlay(kubectl, "kueue")
    with_gpu = jobs(objects, "embed", "rate", "finetune", "evaluate", "judge")
    assert len(with_gpu) == 7
    for job in with_gpu:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert "tamis-cpu" not in container["image"]
    for job in jobs(objects, "pool", "neighbors", "curate", "select", "report"):
        assert "nvidia.com/gpu" not in str(job)


@pytest.mark.parametrize("name", ["cpu", "trial"])
def test_a_trial_asks_for_no_gpu_and_runs_everything_in_one_image(kubectl: Path, name: str) -> None:
    objects = overlay(kubectl, name)
    assert "nvidia" not in str(objects)
    images = {c["image"].rsplit("/", 1)[1].split(":")[0] for d in objects for p in pods(d) for c in containers(p)}
    assert images == {"tamis-cpu"}


def test_the_air_gapped_overlay_names_nothing_outside(kubectl: Path) -> None:
    objects = by_name(overlay(kubectl, "air-gapped"))
    for document in objects.values():
        for pod in pods(document):
            for container in containers(pod):
                assert container["image"].startswith("registry.internal:5000/")
    assert objects["ConfigMap/tamis-environment"]["data"]["HF_HUB_OFFLINE"] == "1"
    (settings,) = [d["data"] for key, d in objects.items() if key.startswith("ConfigMap/tamis-settings-")]
    models = yaml.safe_load(objects["ConfigMap/tamis-models"]["data"]["models.yaml"])["models"]
    there = {model["folder"] for model in models}
    assert yaml.safe_load(settings["rater-llama.yaml"])["backend"]["model"] in there
    assert yaml.safe_load(settings["embedding.yaml"])["model"] in there
    blocks = [
        to["ipBlock"]["cidr"]
        for rule in objects["NetworkPolicy/tamis"]["spec"]["egress"]
        for to in rule.get("to", [])
        if "ipBlock" in to
    ]
    assert blocks == ["10.0.0.0/8"]


def test_the_air_gapped_models_are_what_tamis_fetch_takes(kubectl: Path) -> None:
    from tamis.cluster.fetching import FetchSettings
    from tamis.core.settings import parse

    objects = by_name(overlay(kubectl, "air-gapped"))
    parse(FetchSettings, yaml.safe_load(objects["ConfigMap/tamis-models"]["data"]["models.yaml"]), where="models.yaml")


def test_the_judge_is_the_chart_s_service_and_what_it_says_outlives_the_pod(
    kubectl: Path, helm: Path, tmp_path: Path
) -> None:
    objects = by_name(built(kubectl, tmp_path, "finetuning", "judging", "pod", "gpu", "images"))
    (settings,) = [d["data"] for key, d in objects.items() if key.startswith("ConfigMap/tamis-settings-")]
    backend = yaml.safe_load(settings["judging.yaml"])["judge"]["backend"]
    model, name = backend["model"], "judge"
    made = by_name(rendered(helm, {"vllm": {"services": {name: {"model": model}}}}))
    service = made[f"Service/{backend['base_url'].removeprefix('http://').partition(':')[0]}"]
    assert str(service["spec"]["ports"][0]["port"]) in backend["base_url"]
    (job,) = [run for run in runs(list(objects.values())) if run.arguments[0] == "judge"]
    assert f"--set=store={RUN}finished-judgements" in job.arguments


def test_kueue_covers_every_resource_that_a_job_asks_for(kubectl: Path) -> None:
    objects = overlay(kubectl, "kueue")
    (group,) = by_name(objects)["ClusterQueue/tamis"]["spec"]["resourceGroups"]
    asked = {
        resource
        for document in objects
        for pod in pods(document)
        for container in containers(pod)
        for resource in container["resources"]["requests"]
    }
    assert asked == set(group["coveredResources"])


@pytest.mark.parametrize("more", [(), ("rating-shards", "finetuning", "judging")])
def test_kueue_lets_a_job_in_before_those_that_wait_for_it(
    kubectl: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    made = built(kubectl, tmp_path, *more, "pod", "kueue", "images") if more else overlay(kubectl, "kueue")
    objects = by_name(made)
    assert objects["ClusterQueue/tamis"]["spec"]["queueingStrategy"] == "StrictFIFO"
    assert objects["ClusterQueue/tamis"]["spec"]["preemption"] == {"withinClusterQueue": "LowerPriority"}
    chain = {run.name: run for run in runs(list(objects.values()))}
    makers = {run.makes: run.name for run in chain.values()}

    def priority(job: str) -> int:
        labels = objects[f"Job/{job}"]["metadata"]["labels"]
        assert labels["kueue.x-k8s.io/queue-name"] == objects["LocalQueue/tamis"]["metadata"]["name"]
        return int(objects[f"WorkloadPriorityClass/{labels['kueue.x-k8s.io/priority-class']}"]["value"])

    for run in chain.values():
        for place in run.waits:
            maker = makers.get(place) or makers[re.sub(r"\d+$", "$(JOB_COMPLETION_INDEX)", place)]
            assert priority(maker) > priority(run.name)
        assert objects[f"Job/{run.name}"]["spec"]["suspend"] is True


def test_unfinished_training_is_found_by_the_next_pod(kubectl: Path) -> None:
    for name in ("kueue", "trainer"):
        objects = overlay(kubectl, name)
        specs = [p for d in objects if "finetune" in d["metadata"]["name"] for p in pods(d)]
        assert specs
        for pod in specs:
            (container,) = pod["containers"]
            claims = {v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["volumes"]}
            mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
            assert claims[mounts["/cache/tamis"]] == "tamis-work"


def test_finetuning_is_set_the_same_by_jobs_and_by_the_trainer() -> None:
    files = [MANIFESTS / "components" / name / "settings" / "finetuning.yaml" for name in ("finetuning", "trainer")]
    assert files[0].read_text() == files[1].read_text()


def test_every_component_is_used_by_an_overlay_or_named_in_the_documents() -> None:
    used = "".join(file.read_text() for file in MANIFESTS.glob("overlays/*/kustomization.yaml"))
    told = "".join(file.read_text() for file in (MANIFESTS.parent / "docs").glob("*.md"))
    for component in sorted(path.name for path in (MANIFESTS / "components").iterdir()):
        assert f"components/{component}" in used + told, component


def test_the_trainer_s_pods_are_told_their_place_and_may_call_each_other(kubectl: Path) -> None:
    objects = by_name(overlay(kubectl, "trainer"))
    runtime = objects["TrainingRuntime/tamis-finetune"]["spec"]
    assert "torch" in runtime["mlPolicy"]
    (job,) = runtime["template"]["spec"]["replicatedJobs"]
    # The names by which the Trainer finds the container that it gives the PET_ variables to.
    assert job["name"] == "node"
    assert job["template"]["metadata"]["labels"]["trainer.kubeflow.org/trainjob-ancestor-step"] == "trainer"
    pod = job["template"]["spec"]["template"]
    assert [container["name"] for container in pod["spec"]["containers"]] == ["node"]
    policy = objects["NetworkPolicy/tamis-finetune"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert policy["ingress"] == [{"from": [{"podSelector": policy["podSelector"]}]}]
    (claim,) = [d for name, d in objects.items() if name == "PersistentVolumeClaim/tamis-work"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_shards_of_a_rater_are_pods_of_one_job_and_are_all_merged(kubectl: Path, tmp_path: Path) -> None:
    objects = built(kubectl, tmp_path, "rating-shards", "pod", "gpu", "monitoring", "images")
    for document in objects:
        if document["kind"] != "PodMonitor":
            kubernetes_validate.validate(document, "1.33", strict=True)
    (monitor,) = by_name(objects)["PodMonitor/tamis-stages"]["spec"]["podMetricsEndpoints"]
    spec = by_name(objects)["Job/tamis-rate-llama"]["spec"]
    count = spec["completions"]
    assert (spec["completionMode"], spec["parallelism"]) == ("Indexed", count)
    (work,) = spec["template"]["spec"]["containers"]
    assert f"--shard=job/{count}" in work["args"]
    (port,) = work["ports"]
    assert (port["name"], environment(work, {})["TAMIS_METRICS_PORT"]) == (monitor["port"], str(port["containerPort"]))
    assert any(item.startswith("--set=store=$(TAMIS_RUN)/") for item in work["args"])
    (place,) = [item.removeprefix("--out=") for item in work["args"] if item.startswith("--out=")]
    parts = [place.replace("$(JOB_COMPLETION_INDEX)", str(index)) for index in range(count)]
    assert len(set(parts)) == count
    merge = by_name(objects)["Job/tamis-merge-llama"]["spec"]["template"]["spec"]
    assert merge["initContainers"][0]["args"] == ["wait", *parts]
    arguments = merge["containers"][0]["args"]
    assert [item.removeprefix("--ratings=") for item in arguments if item.startswith("--ratings=")] == parts
    (curation,) = [run for run in runs(objects) if run.name == "tamis-curate"]
    assert [f"--out={RUN}{place}" for place in curation.reads if place.startswith("ratings")] == [arguments[-1]]
