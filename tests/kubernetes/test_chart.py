"""The chart, rendered by the real helm of both major versions."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tamis import __version__
from tamis.cli import main
from tamis.rating.metrics import Metrics
from tests.kubernetes.binaries import ROOT
from tests.kubernetes.cases import CASES, DIGEST
from tests.kubernetes.conftest import CHART, overlay, rendered, template
from tests.kubernetes.objects import by_name, containers, environment, pods, references
from tests.storage.seaweed import free_port

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
FILES = ["values-cpu.yaml", "values-airgapped.yaml"]


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [document for document in objects if document["kind"] == kind]
    return found


@pytest.mark.parametrize("file", [None, *FILES])
def test_lint_finds_nothing(helm: Path, file: str | None) -> None:
    options = ["--values", CHART / file] if file else []
    ended = subprocess.run([helm, "lint", "--strict", CHART, *options], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_chart_can_be_packaged(helm: Path, tmp_path: Path) -> None:
    subprocess.run([helm, "package", CHART, "--destination", tmp_path], capture_output=True, check=True)
    (package,) = tmp_path.glob("tamis-*.tgz")
    ended = subprocess.run([helm, "template", "tamis", package], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("file", FILES)
def test_the_values_files_that_ship_render(helm: Path, file: str) -> None:
    assert rendered(helm, {}, "--values", CHART / file)


@pytest.mark.parametrize("case", CASES)
def test_both_versions_of_helm_render_each_case(helm: Path, case: str) -> None:
    objects = rendered(helm, CASES[case])
    by_name(objects)
    assert all(document["metadata"]["labels"]["app.kubernetes.io/part-of"] == "tamis" for document in objects)


@pytest.mark.parametrize("case", CASES)
def test_what_pods_refer_to_is_made_by_the_chart_or_named_in_the_values(newest_helm: Path, case: str) -> None:
    objects = rendered(newest_helm, CASES[case])
    made, given = set(by_name(objects)), json.dumps([CASES[case], VALUES])
    for document in objects:
        for pod in pods(document):
            missing = [name for name, _ in references(pod) if name not in made]
            strange = [name for name in missing if f'"{name.split("/", 1)[1]}"' not in given]
            assert strange in ([], ["ServiceAccount/default"])


@pytest.mark.parametrize("case", CASES)
def test_each_certificate_that_a_container_is_told_of_is_mounted(newest_helm: Path, case: str) -> None:
    objects = rendered(newest_helm, CASES[case])
    maps = {name: document for name, document in by_name(objects).items() if name.startswith("ConfigMap/")}
    for document in objects:
        for pod in pods(document):
            for container in containers(pod):
                told = environment(container, maps)
                mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
                for variable in ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "AWS_CONFIG_FILE"):
                    if variable in told:
                        assert str(Path(told[variable]).parent) in mounts


@pytest.mark.parametrize(
    ("case", "secret", "told"),
    [
        (
            "Azure's storage with a key",
            "azure-keys",
            {
                "AZURE_STORAGE_ACCOUNT_NAME": "ourdata",
                "AZURE_STORAGE_ENDPOINT": "https://ourdata.blob.internal",
                "TAMIS_ROOT": "az://container/runs",
            },
        ),
        ("Google's storage with a key", "google-key", {"TAMIS_ROOT": "gs://bucket/runs"}),
    ],
)
def test_every_container_of_tamis_has_the_account_and_the_secret_of_its_storage(
    newest_helm: Path, case: str, secret: str, told: dict[str, str]
) -> None:
    values = CASES[case] | {"modelCache": {"prefetch": {"models": [{"kind": "hub", "repo": "org/model"}]}}}
    objects = rendered(newest_helm, values)
    data = by_name(objects)["ConfigMap/tamis-environment"]["data"]
    assert {name: data[name] for name in told} == told
    froms = [container["envFrom"] for document in objects for pod in pods(document) for container in containers(pod)]
    assert len(froms) >= 2
    assert all({"secretRef": {"name": secret}} in each for each in froms)


@pytest.mark.parametrize("case", ["defaults", "a filled model cache", "vllm services", "kueue"])
def test_rendering_twice_gives_the_same(newest_helm: Path, case: str) -> None:
    assert template(newest_helm, CASES[case]).stdout == template(newest_helm, CASES[case]).stdout


def test_no_secret_is_made_but_the_trial_servers_own(newest_helm: Path) -> None:
    for case, values in CASES.items():
        secrets = [d["metadata"]["name"] for d in rendered(newest_helm, values) if d["kind"] == "Secret"]
        random_keys = values.get("seaweedfs", {}).get("enabled") and "existingSecret" not in values["seaweedfs"]
        assert secrets == (["tamis-seaweedfs"] if random_keys else []), case


def test_the_trial_servers_keys_are_the_ones_that_it_is_configured_with(newest_helm: Path) -> None:
    secret = one(rendered(newest_helm, CASES["a trial server"]), "Secret")["stringData"]
    (identity,) = json.loads(secret["s3.json"])["identities"]
    assert identity["credentials"] == [{"accessKey": secret["accessKeyId"], "secretKey": secret["secretAccessKey"]}]
    assert len(secret["secretAccessKey"]) >= 32


def test_the_trial_server_is_where_the_stages_look_for_it(newest_helm: Path) -> None:
    objects = by_name(rendered(newest_helm, CASES["a trial server"]))
    service = objects["Service/tamis-seaweedfs"]
    endpoint = f"http://{service['metadata']['name']}.tamis:{service['spec']['ports'][0]['port']}"
    assert objects["ConfigMap/tamis-environment"]["data"]["AWS_ENDPOINT_URL_S3"] == endpoint


def test_services_and_policies_choose_the_pods_that_they_are_for(newest_helm: Path) -> None:
    values = CASES["vllm services"] | {"seaweedfs": {"enabled": True}}
    objects = rendered(newest_helm, values)
    labels = {
        document["metadata"]["name"]: document["spec"]["template"]["metadata"]["labels"]
        for document in objects
        if document["kind"] in ("Deployment", "StatefulSet", "Job")
    }

    def chosen(selector: dict[str, str]) -> set[str]:
        return {name for name, have in labels.items() if selector.items() <= have.items()}

    for document in objects:
        if document["kind"] == "Service":
            assert chosen(document["spec"]["selector"]) == {document["metadata"]["name"]}
    policy = by_name(objects)["NetworkPolicy/tamis"]
    assert chosen(policy["spec"]["podSelector"]["matchLabels"]) == set(labels)
    monitor = by_name(objects)["PodMonitor/tamis"]
    vllm = {"tamis-vllm-small", "tamis-vllm-large", "tamis-vllm-off"}
    assert chosen(monitor["spec"]["selector"]["matchLabels"]) == vllm
    for document in objects:
        if document["kind"] in ("Deployment", "StatefulSet"):
            assert chosen(document["spec"]["selector"]["matchLabels"]) == {document["metadata"]["name"]}


def test_a_selector_holds_nothing_that_changes_with_a_version(newest_helm: Path) -> None:
    for document in rendered(newest_helm, CASES["vllm services"]):
        if document["kind"] == "Deployment":
            chosen = document["spec"]["selector"]["matchLabels"]
            assert set(chosen) == {"app.kubernetes.io/name", "app.kubernetes.io/instance", "tamis.dev/vllm"}


def test_a_vllm_service_gets_its_gpus_memory_and_time_to_load(newest_helm: Path) -> None:
    objects = by_name(rendered(newest_helm, CASES["vllm services"]))
    pod = objects["Deployment/tamis-vllm-large"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["amd.com/gpu"] == container["resources"]["requests"]["amd.com/gpu"] == "4"
    assert "--tensor-parallel-size=4" in container["args"]
    assert "--max-model-len=8192" in container["args"]
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] >= 3600
    (shm,) = [volume for volume in pod["volumes"] if volume["name"] == "shm"]
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "32Gi"}
    assert pod["runtimeClassName"] == "nvidia"


def test_replicas_are_the_autoscalers_where_there_is_one(newest_helm: Path) -> None:
    objects = by_name(rendered(newest_helm, CASES["vllm services"]))
    assert "replicas" not in objects["Deployment/tamis-vllm-large"]["spec"]
    assert objects["Deployment/tamis-vllm-small"]["spec"]["replicas"] == 1
    assert objects["Deployment/tamis-vllm-off"]["spec"]["replicas"] == 0
    scaler = objects["HorizontalPodAutoscaler/tamis-vllm-large"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == "tamis-vllm-large"
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (1, 3)


def test_a_registry_takes_every_image_and_a_digest_stands_for_the_tag(newest_helm: Path) -> None:
    images = {
        container["image"]
        for document in rendered(newest_helm, CASES["images by digest from a mirror"])
        for pod in pods(document)
        for container in containers(pod)
    }
    assert images == {
        f"registry.internal:5000/mirror/tamis-cpu@{DIGEST}",
        f"registry.internal:5000/mirror/tamis-rating@{DIGEST}",
        "registry.internal:5000/mirror/chrislusf/seaweedfs:4.48",
    }


def test_a_changed_list_of_models_makes_another_job(newest_helm: Path) -> None:
    def job(models: list[dict[str, str]]) -> str:
        objects = rendered(newest_helm, {"modelCache": {"prefetch": {"models": models}}})
        return str(one(objects, "Job")["metadata"]["name"])

    first, second = [{"kind": "hub", "repo": "a/b"}], [{"kind": "hub", "repo": "a/c"}]
    assert job(first) == job(first) != job(second)


def test_the_prefetch_list_is_what_tamis_fetch_takes(newest_helm: Path) -> None:
    from tamis.cluster.fetching import FetchSettings
    from tamis.core.settings import parse

    objects = rendered(newest_helm, CASES["a filled model cache"])
    (config,) = [d for d in objects if d["kind"] == "ConfigMap" and "models.yaml" in d["data"]]
    models = parse(FetchSettings, yaml.safe_load(config["data"]["models.yaml"]), where="models.yaml").models
    assert [model.kind for model in models] == ["hub", "hub", "storage"]
    job = one(objects, "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert container["args"] == ["fetch", f"{mounts['models-list']}/models.yaml"]


def test_kueue_has_a_quota_of_every_resource_in_every_flavor(newest_helm: Path) -> None:
    (group,) = one(rendered(newest_helm, CASES["kueue"]), "ClusterQueue")["spec"]["resourceGroups"]
    for flavor in group["flavors"]:
        assert [resource["name"] for resource in flavor["resources"]] == group["coveredResources"]
    quotas = {f["name"]: {r["name"]: r["nominalQuota"] for r in f["resources"]} for f in group["flavors"]}
    assert quotas == {
        "h100": {"cpu": "8", "memory": "0", "nvidia.com/gpu": "4"},
        "spot": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "0"},
    }


@pytest.mark.parametrize("case", ["kubeflow", "a trainer"])
def test_an_account_of_stages_has_no_rights_and_pipelines_have_few(newest_helm: Path, case: str) -> None:
    objects = by_name(rendered(newest_helm, CASES[case]))
    bound = [
        subject["name"]
        for name, document in objects.items()
        if name.split("/")[0] in ("RoleBinding", "ClusterRoleBinding")
        for subject in document["subjects"]
    ]
    assert set(bound) == {"tamis-pipeline"}
    assert not [name for name in objects if name.startswith("ClusterRole")]
    rules = [rule for document in objects.values() if document["kind"] == "Role" for rule in document["rules"]]
    assert not [rule for rule in rules if "*" in rule["verbs"] + rule["resources"] + rule["apiGroups"]]
    for rule in rules:
        if set(rule["resources"]) & {"secrets", "configmaps"}:
            assert rule["verbs"] == ["get"]
            assert rule["resourceNames"]


def test_nodes_of_a_training_share_a_volume_and_call_each_other(newest_helm: Path) -> None:
    objects = by_name(rendered(newest_helm, CASES["a trainer"]))
    (job,) = objects["TrainingRuntime/tamis-finetune"]["spec"]["template"]["spec"]["replicatedJobs"]
    assert (job["name"], job["template"]["metadata"]["labels"]) == (
        "node",
        {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"},
    )
    pod = job["template"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    claims = {
        v["name"]: v["persistentVolumeClaim"]["claimName"]
        for v in pod["spec"]["volumes"]
        if len(v) == 2 and "persistentVolumeClaim" in v
    }
    assert (container["name"], claims[mounts["/cache/tamis"]]) == ("node", "tamis-work")
    assert objects["PersistentVolumeClaim/tamis-work"]["spec"]["accessModes"] == ["ReadWriteMany"]
    policy = objects["NetworkPolicy/tamis-finetune"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert policy["ingress"] == [{"from": [{"podSelector": policy["podSelector"]}]}]


def test_the_dashboard_is_json_whose_panels_ask_for_the_chosen_namespace(newest_helm: Path) -> None:
    objects = by_name(rendered(newest_helm, CASES["vllm services"]))
    dashboard = json.loads(objects["ConfigMap/tamis-dashboard"]["data"]["tamis.json"])
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) >= 8
    assert all('namespace="$namespace"' in text for text in expressions)
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard))) <= variables
    assert all(text.count("(") == text.count(")") and text.count("{") == text.count("}") for text in expressions)


def names_in_the_dashboard(beginning: str) -> set[str]:
    return set(re.findall(rf"\b{beginning}\w+", (CHART / "files/dashboard.json").read_text()))


def test_the_dashboard_asks_raters_for_what_they_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prometheus_client")
    port = free_port()
    monkeypatch.setenv("TAMIS_METRICS_PORT", str(port))
    with Metrics("r", samples=2, reused=1), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        served = set(re.findall(r"(?m)^(\w+)\{", answer.read().decode()))
    assert len(names_in_the_dashboard("tamis_rating_")) >= 4
    assert names_in_the_dashboard("tamis_rating_") <= served


def test_the_dashboard_asks_vllm_for_what_it_serves() -> None:
    package = importlib.util.find_spec("vllm")
    if package is None or package.origin is None:
        pytest.skip("vLLM is not installed")
    text = (Path(package.origin).parent / "v1/metrics/loggers.py").read_text()
    served = set(re.findall(r'"(vllm:\w+)"', text))
    asked = {re.sub("_(total|bucket)$", "", name) for name in names_in_the_dashboard("vllm:")}
    assert asked <= served
    assert re.search(r'default "(vllm:\w+)" \.metric', (CHART / "templates/vllm.yaml").read_text())[1] in served  # type: ignore[index]


def test_the_notes_name_what_was_asked_for(newest_helm: Path) -> None:
    values = CASES["vllm services"] | CASES["kubeflow and private certificates"] | {"seaweedfs": {"enabled": True}}
    command = [newest_helm, "install", "tamis", CHART, "--dry-run=client", "--namespace", "tamis", "--values", "-"]
    shown = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    notes = shown.stdout.split("NOTES:")[1]
    for words in (
        "helm test tamis --namespace tamis",
        "http://tamis-vllm-small.tamis:8000/v1",
        "service account tamis-pipeline",
        "      environment: tamis-environment\n",
        '      storage_ca: "s3-ca"\n      hub_ca: "hub-ca"\n',
        "get secret --namespace tamis tamis-seaweedfs",
    ):
        assert words in notes


def test_jobs_that_bring_the_pipelines_to_kubeflow_say_what_the_command_understands(newest_helm: Path) -> None:
    objects = rendered(newest_helm, CASES["pipelines that are uploaded and run at fixed times"])
    jobs = [job for job in objects if job["kind"] == "Job"]
    assert len(jobs) == 3
    for job in jobs:
        pod = job["spec"]["template"]["spec"]
        name, *arguments = pod["containers"][0]["args"]
        command = main.commands[name]
        with command.make_context(name, arguments, resilient_parsing=True) as context:
            given = context.params
        assert (given["host"], given["namespace"]) == ("http://ml-pipeline.kubeflow:8888", "team")
        assert str(given["token_file"]) == "/var/run/secrets/kubeflow/token"
        assert pod["serviceAccountName"] == "tamis-pipeline"
        (token,) = [volume for volume in pod["volumes"] if volume["name"] == "token"]
        assert token["projected"]["sources"][0]["serviceAccountToken"]["audience"] == "pipelines.kubeflow.org"
        if name == "schedule":
            assert given["replace"]
            assert (given["cron"], given["every"], given["name"]) in [
                ("0 0 3 * * *", None, "nightly"),
                ("", 604800, "weekly"),
            ]
            assert given["service_account"] == "tamis-pipeline"


def test_a_changed_schedule_is_another_job(newest_helm: Path) -> None:
    def names(**changed: Any) -> set[str]:
        schedule = {"name": "a", "every": 60, "settings": {"work_dir": "w"}} | changed
        server = {"host": "http://x"}
        objects = rendered(newest_helm, {"kubeflow": {"enabled": True, "server": server, "schedules": [schedule]}})
        return {job["metadata"]["name"] for job in objects if job["kind"] == "Job"}

    assert names() == names()
    assert len(names() | names(every=61) | names(settings={"work_dir": "v"})) == 3


ALL_JOBS: dict[str, Any] = {
    "fullnameOverride": "sieve",
    "seaweedfs": {"enabled": True},
    "modelCache": {"prefetch": {"models": [{"kind": "hub", "repo": "a/b"}]}},
    "kubeflow": {
        "enabled": True,
        "server": {"host": "http://x"},
        "upload": True,
        "schedules": [{"name": "a", "every": 60, "settings": {"kubeflow": {"compiled": {"queue": "q"}}}}],
    },
}


@pytest.mark.parametrize(
    "changed",
    [
        {"hub": {"existingSecret": "hub"}},
        {"pod": {"resources": {"limits": {"memory": "3Gi"}}}},
        {"pod": {"labels": {"a": "b"}}},
        {"image": {"pullSecrets": ["keys"]}},
        {"storage": {"s3": {"ca": {"configMap": "ca"}}}},
        {"serviceAccount": {"create": False}},
    ],
    ids=str,
)
def test_an_upgrade_changes_no_job_but_makes_another(newest_helm: Path, changed: dict[str, Any]) -> None:
    def made(values: dict[str, Any]) -> dict[str, Any]:
        return {d["metadata"]["name"]: d["spec"] for d in rendered(newest_helm, values) if d["kind"] == "Job"}

    before, after = made(ALL_JOBS), made(ALL_JOBS | changed)
    assert len(before) == 4
    assert before != after
    for name in set(before) & set(after):
        assert before[name] == after[name]


@pytest.mark.parametrize("case", CASES)
def test_no_pod_changes_with_the_chart_s_version(newest_helm: Path, case: str) -> None:
    for document in rendered(newest_helm, CASES[case]):
        if "template" in (document.get("spec") or {}):
            assert "helm.sh/chart" not in str(document["spec"])
            assert "app.kubernetes.io/version" not in str(document["spec"])


def test_pipelines_that_the_chart_brings_name_its_images_secrets_and_objects(newest_helm: Path) -> None:
    from tamis.core.settings import parse
    from tamis_pipelines.pods import KubeflowSettings

    image = {"digests": {"rating": DIGEST}, "pullSecrets": ["keys"]}
    images = {"imageRegistry": "registry.internal/mirror", "image": image}
    objects = rendered(newest_helm, ALL_JOBS | images | {"hub": {"existingSecret": "token"}})
    jobs = [d for d in objects if d["metadata"]["labels"].get("app.kubernetes.io/component") == "pipelines"]
    assert len(jobs) == 2
    for job in jobs:
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        told = environment(container, {})
        assert told["TAMIS_IMAGE_CPU"] == container["image"] == f"registry.internal/mirror/tamis-cpu:{__version__}"
        assert told["TAMIS_IMAGE_RATING"] == f"registry.internal/mirror/tamis-rating@{DIGEST}"
        assert {"TAMIS_IMAGE_TRAINING", "TAMIS_IMAGE_EVALUATION"} <= set(told)
        assert any("/etc/tamis/settings/settings.yaml" in argument for argument in container["args"])
        (name,) = [v["configMap"]["name"] for v in pod["volumes"] if v["name"] == "settings"]
        text = by_name(objects)[f"ConfigMap/{name}"]["data"]["settings.yaml"]
        settings = parse(KubeflowSettings, yaml.safe_load(text)["kubeflow"], where=name)
        assert settings.compiled.pull_secrets == ["keys"]
        assert settings.compiled.queue == ("q" if "schedule" in name else "")
        told_objects = settings.objects
        assert (told_objects.environment, told_objects.model_cache) == ("sieve-environment", "sieve-models")
        assert (told_objects.hub_secret, told_objects.storage_secret) == ("token", "tamis-s3")


def test_a_step_of_kubeflow_may_call_what_its_launcher_and_executor_call(newest_helm: Path) -> None:
    values = {"networkPolicy": {"enabled": True, "apiServer": "10.0.0.0/8"}}
    objects = by_name(rendered(newest_helm, values | {"kubeflow": {"enabled": True}}))
    policy = objects["NetworkPolicy/tamis-kubeflow"]["spec"]
    package = (ROOT / "pipelines/packages/data-selection.yaml").read_text()
    assert policy["podSelector"]["matchExpressions"] == [{"key": "tamis.dev/pod", "operator": "Exists"}]
    assert "tamis.dev/pod: rating" in package
    inside, server = policy["egress"]
    assert inside["to"] == [{"namespaceSelector": {}}]
    assert {8080, 8333, 8887, 8888, 9000} == {port["port"] for port in inside["ports"]}
    assert server["to"] == [{"ipBlock": {"cidr": "10.0.0.0/8"}}]
    assert {443, 6443} == {port["port"] for port in server["ports"]}
    assert "NetworkPolicy/tamis-kubeflow" not in by_name(rendered(newest_helm, values))


def test_who_uploads_may_do_what_kubeflow_asks_about_a_token(newest_helm: Path) -> None:
    case = CASES["pipelines that are uploaded and run at fixed times"]
    objects = by_name(rendered(newest_helm, case))
    rules = objects["Role/tamis-pipeline-upload"]["rules"]
    may = {(group, what): rule["verbs"] for rule in rules for group in rule["apiGroups"] for what in rule["resources"]}
    for what in ("pipelines", "pipelines/versions", "experiments", "jobs"):
        assert {"create", "get", "list"} <= set(may["pipelines.kubeflow.org", what])
    assert "delete" in may["pipelines.kubeflow.org", "jobs"]  # --replace
    assert may["", "serviceaccounts"] == ["use"]
    (subject,) = objects["RoleBinding/tamis-pipeline-upload"]["subjects"]
    assert subject["name"] == objects["ServiceAccount/tamis-pipeline"]["metadata"]["name"] == "tamis-pipeline"
    assert "Role/tamis-pipeline-upload" not in by_name(rendered(newest_helm, CASES["kubeflow"]))


def test_pods_that_share_a_volume_of_one_node_follow_the_first_to_it(newest_helm: Path, kubectl: Path) -> None:
    of_chart = rendered(newest_helm, {}, "--values", CHART / "values-cpu.yaml")
    for objects in (of_chart, overlay(kubectl, "cpu"), overlay(kubectl, "trial")):
        for document in objects:
            if template := (document.get("spec") or {}).get("template"):
                affinity = template["spec"]["affinity"]["podAffinity"]
                (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
                assert term["topologyKey"] == "kubernetes.io/hostname"
                # Else the first pod, which nobody is there to follow, could not be placed.
                assert term["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_a_training_that_loses_a_node_begins_again_with_all(newest_helm: Path, kubectl: Path) -> None:
    values = {"trainer": {"enabled": True}}
    for objects in (rendered(newest_helm, values), overlay(kubectl, "trainer")):
        spec = by_name(objects)["TrainingRuntime/tamis-finetune"]["spec"]["template"]["spec"]
        assert spec["failurePolicy"]["maxRestarts"] == 6
        assert spec["replicatedJobs"][0]["template"]["spec"]["backoffLimit"] == 0


def test_what_the_values_say_of_a_vllm_service_is_what_the_schema_takes() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["definitions"]["vllmService"]["properties"]
    text = (CHART / "values.yaml").read_text()
    told = re.search(r"Each has `model` and optionally(.*?)autoscaling", text, re.DOTALL)
    assert told
    assert set(re.findall(r"\w+", told[1])) - {"and"} == set(schema) - {"model", "autoscaling"}


def test_long_names_stay_within_what_kubernetes_takes(newest_helm: Path) -> None:
    values = CASES["vllm services"] | {
        "fullnameOverride": "a" * 40,
        "vllm": {"services": {"b" * 16: {"model": "x/y"}}},
        "seaweedfs": {"enabled": True},
        "modelCache": {"prefetch": {"models": [{"kind": "hub", "repo": "a/b"}]}},
        "kubeflow": {
            "enabled": True,
            "server": {"host": "http://x"},
            "schedules": [{"name": "c" * 12, "every": 5, "settings": {"a": 1}}],
        },
    }
    for document in rendered(newest_helm, values):
        assert len(document["metadata"]["name"]) <= 63
        for value in document["metadata"]["labels"].values():
            assert len(value) <= 63


def test_every_value_has_a_comment() -> None:
    text = (CHART / "values.yaml").read_text()
    text = re.sub(r"(?m)^( +)- .*\n(\1  .*\n)*", "", text)  # items of lists
    text = re.sub(r"(?m)^ +(requests|limits): .*\n", "", text)
    text = re.sub(r'(?m)^ +\w+: ""\n(?= +(rating|training|evaluation): ""|  # -- Always)', "", text)  # of digests
    commented = re.findall(r"(?m)^ *# --.*\n(?: *#.*\n)* *([a-zA-Z]+):", text)
    keys = re.findall(r"(?m)^ *([a-zA-Z]+):[ \t]+\S", text)
    assert keys
    assert not Counter(keys) - Counter(commented)


def test_the_schema_is_closed_and_knows_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def walk(node: Any, where: str) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and "properties" in node:
                assert node["additionalProperties"] is False, where
            for key, value in node.items():
                walk(value, f"{where}.{key}")
        elif isinstance(node, list):
            for value in node:
                walk(value, where)

    walk(schema, "")

    def known(values: Any, node: dict[str, Any], where: str) -> None:
        node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node
        if isinstance(values, dict) and values and "properties" in node:
            assert set(values) | {"global"} >= set(node["properties"]) - {"global"}, where
            for key, value in values.items():
                known(value, node["properties"][key], f"{where}.{key}")

    known(VALUES, schema, "values")
