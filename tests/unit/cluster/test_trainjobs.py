"""TrainJobs on a real API server; the tests play Kubeflow Trainer, the node and its kubelet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result
from kfp.dsl import Dataset, Metrics, Model

from tamis.cli import main
from tamis.cluster.trainjobs import TrainJobs
from tamis.core import references
from tamis.core.artifacts import Artifact, manifest_of
from tamis.core.errors import SettingsError
from tamis.core.failures import failure_in
from tamis.finetuning import on_trainer
from tamis.finetuning.component import finetune_on_trainer
from tamis.finetuning.on_trainer import TrainerSettings
from tamis.finetuning.settings import FinetuningSettings
from tests.artifacts import make
from tests.kubernetes.api_server import Unavailable, programs
from tests.kubernetes.conftest import MANIFESTS
from tests.kubernetes.played import PlayedServer

NAMESPACE = "tamis"
JOBS = f"/apis/trainer.kubeflow.org/v1alpha1/namespaces/{NAMESPACE}/trainjobs"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
PLACES = ("--selection", "/cache/data/selections/ds2", "--out", "/cache/data/models/ds2", "--every", "0.1")


class Trainer:
    """What Kubeflow Trainer and the node would do, step by step."""

    def __init__(self, server: PlayedServer) -> None:
        self.server = server

    def job(self) -> dict[str, Any]:
        """The one TrainJob, as soon as it is there."""
        found = self.wait(lambda: (self.server.get(JOBS) or {}).get("items"), "TrainJob")
        (job,) = found
        return dict(job)

    def wait(self, until: Callable[[], Any], what: str) -> Any:
        give_up = time.monotonic() + 60
        while not (found := until()):
            assert time.monotonic() < give_up, f"no {what}"
            time.sleep(0.05)
        return found

    def pod(self, job: str, node: int, log: list[str] | None = None, attempt: str = "a") -> str:
        """A pod of the TrainJob that runs, with the lines of its log so far."""
        name = f"{job}-node-0-{node}-{attempt}"
        labels = {"jobset.sigs.k8s.io/jobset-name": job, "batch.kubernetes.io/job-completion-index": str(node)}
        container = {"name": "node", "image": "tamis-training", "imagePullPolicy": "Never"}
        spec = {"containers": [container], "nodeName": "gpu-0", "automountServiceAccountToken": False}
        metadata = {"name": name, "labels": labels}
        self.server.logs[name] = [f"2026-11-26T10:00:0{n}.{n}Z {line}" for n, line in enumerate(log or [])]
        self.server.open.add(name)
        self.server.make(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        self.state(name, "Running", {"running": {}})
        return name

    def state(self, pod: str, phase: str, state: dict[str, Any]) -> None:
        status = {"name": "node", "image": "", "imageID": "", "ready": False, "restartCount": 0, "state": state}
        self.server.change(f"{PODS}/{pod}/status", {"status": {"phase": phase, "containerStatuses": [status]}})

    def exits(
        self, pod: str, code: int, *, at: str = "2026-11-26T10:00:00Z", words: str = "", reason: str = "Error"
    ) -> None:
        self.server.open.discard(pod)
        over = {"exitCode": code, "reason": reason, "message": words, "finishedAt": at}
        self.state(pod, "Failed" if code else "Succeeded", {"terminated": over})

    def ends(self, job: str, kind: str, message: str) -> None:
        condition = {"type": kind, "status": "True", "reason": "Jobs", "message": message}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        status = {"conditions": [condition | {"lastTransitionTime": now}]}
        self.server.change(f"{JOBS}/{job}/status", {"status": status})

    def free(self) -> None:
        """What the garbage collector does when a TrainJob's pods are gone."""
        for job in (self.server.get(JOBS) or {"items": []})["items"]:
            if "deletionTimestamp" in job["metadata"]:
                self.server.change(f"{JOBS}/{job['metadata']['name']}", {"metadata": {"finalizers": None}})

    def is_leaving(self) -> bool:
        """Whether every TrainJob has been told to go."""
        jobs = (self.server.get(JOBS) or {"items": []})["items"]
        return all("deletionTimestamp" in job["metadata"] for job in jobs)


@pytest.fixture(scope="module")
def server(kubectl: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedServer]:
    try:
        programs()
    except Unavailable as error:
        pytest.skip(str(error))
    with PlayedServer(tmp_path_factory.mktemp("server"), kubectl) as running:
        running("create", "namespace", NAMESPACE)
        rights = [MANIFESTS / f"components/kubeflow-trainer/{kind}.yaml" for kind in ("role", "role-binding")]
        for file in rights:
            running("create", "--namespace", NAMESPACE, "--validate=false", "-f", file)
        yield running


@pytest.fixture(scope="module")
def pipeline_token(server: PlayedServer) -> str:
    """Of the account of a pipeline's pods."""
    return server.account(NAMESPACE, "tamis-pipeline")


@pytest.fixture
def trainer(
    server: PlayedServer, pipeline_token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Trainer]:
    """The player; the caller has the account of a pipeline's pods."""
    file = server.kubeconfig_of(tmp_path / "kubeconfig", NAMESPACE, pipeline_token)
    monkeypatch.setenv("KUBECONFIG", str(file))
    playing = Trainer(server)
    yield playing
    server.ask("DELETE", f"{JOBS}?propagationPolicy=Background")
    playing.free()
    server.ask("DELETE", f"{PODS}?gracePeriodSeconds=0")


def tamis(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["trainjob", *arguments], catch_exceptions=False)


class Command:
    """`tamis trainjob`, under way."""

    def __init__(self, *arguments: str) -> None:
        self._thread = Thread(target=self._run, args=arguments, daemon=True)
        self._thread.start()

    def _run(self, *arguments: str) -> None:
        self._result = tamis(*arguments)

    def result(self) -> Result:
        """What it said, once it has ended."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self._result


def test_a_training_on_two_nodes_is_followed_to_its_end_and_removed(trainer: Trainer) -> None:
    command = Command(*PLACES, "--nodes", "2", "--gpus", "4", "--set", "lora.rank=8", "--queue", "tamis")
    job = trainer.job()
    name = job["metadata"]["name"]
    assert job["spec"]["trainer"]["numNodes"] == 2
    assert job["spec"]["trainer"]["args"][:2] == ["finetune", "--selection=/cache/data/selections/ds2"]
    assert job["spec"]["trainer"]["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": "4"}
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "tamis"
    first = trainer.pod(name, 0, ["loss 2.0"])
    other = trainer.pod(name, 1, ["nobody hears this"])
    trainer.server.open.discard(first)  # the connection ends, but not the pod
    trainer.wait(lambda: trainer.server.ends[first], "end of the log")
    trainer.server.logs[first].append("2026-11-26T10:00:09.5Z loss 1.0")
    for pod in (first, other):
        trainer.exits(pod, 0, reason="Completed")
    trainer.ends(name, "Complete", "jobset completed successfully")
    result = command.result()
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == f"TrainJob {name} is created in the namespace tamis"
    assert [line for line in lines if line.startswith("loss")] == ["loss 2.0", "loss 1.0"]
    assert "nobody hears this" not in result.output
    assert "TrainJob: complete: jobset completed successfully" in lines
    assert {"node 0: succeeded on gpu-0", "node 1: succeeded on gpu-0"} <= set(lines)
    assert lines[-1] == "model: /cache/data/models/ds2"
    assert trainer.is_leaving()


def test_a_failure_is_told_by_the_words_of_the_pod_that_failed_first(trainer: Trainer) -> None:
    command = Command(*PLACES, "--nodes", "2", "--name", "mine")
    name = trainer.job()["metadata"]["name"]
    early = trainer.pod(name, 0, attempt="early")
    trainer.exits(early, 137, at="2026-11-26T09:00:00Z", words="of an earlier attempt", reason="OOMKilled")
    first, other = trainer.pod(name, 0), trainer.pod(name, 1)
    trainer.server.logs[first] = ["2026-11-26T10:00:00Z connection closed by peer"]
    trainer.exits(other, 1, at="2026-11-26T10:00:01Z", words="error: the loss is no number")
    trainer.exits(first, 1, at="2026-11-26T10:00:02Z")
    trainer.ends(name, "Failed", "jobset failed due to one or more job failures")
    result = command.result()
    assert result.exit_code == 1
    error = result.output.partition("error: ")[2]
    assert error.startswith("the TrainJob tamis/mine failed: jobset failed due to one or more job failures\n")
    told = [f"{other} (node 1): exit code 1", "error: the loss is no number", f"{first} (node 0)", "connection closed"]
    assert [error.index(words) for words in told] == sorted(error.index(words) for words in told)
    assert "earlier attempt" not in error
    assert trainer.is_leaving()


def test_a_trainjob_whose_pod_ended_for_good_is_not_to_be_tried_again(trainer: Trainer) -> None:
    command = Command(*PLACES, "--nodes", "2")
    name = trainer.job()["metadata"]["name"]
    first, other = trainer.pod(name, 0), trainer.pod(name, 1)
    trainer.exits(other, 78, at="2026-11-26T10:00:01Z", words="error: AccessDenied")
    trainer.exits(first, 1, at="2026-11-26T10:00:02Z", words="error: connection closed by peer")
    trainer.ends(name, "Failed", "jobset failed due to one or more job failures")
    assert command.result().exit_code == 78


def test_an_insecure_kubeconfig_is_warned_of_once(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = trainer.server.kubeconfig_of(tmp_path / "insecure", NAMESPACE, insecure=True)
    environment = os.environ | {"KUBECONFIG": str(file), "PYTHONWARNINGS": "default"}
    words = [sys.executable, "-m", "tamis", "trainjob", *PLACES, "--timeout", "1"]
    ended = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert "has not ended after 1 s" in ended.stderr
    assert ended.stderr.count("is not verified") == 1
    assert "InsecureRequestWarning" not in ended.stderr


def test_started_again_it_follows_what_is_there_and_makes_a_failed_one_anew(trainer: Trainer) -> None:
    short = tamis(*PLACES, "--keep", "--timeout", "0.2")
    assert (short.exit_code, "has not ended after 0.2 s" in short.output) == (1, True)
    job = trainer.job()["metadata"]
    assert f"TrainJob {job['name']} is kept: kubectl -n tamis delete trainjob {job['name']}" in short.output
    again = Command(*PLACES, "--keep")
    pod = trainer.pod(job["name"], 0)
    trainer.state(pod, "Pending", {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
    time.sleep(0.5)
    trainer.ends(job["name"], "Failed", "no image")
    said = again.result().output
    assert f"TrainJob {job['name']} exists already and is followed" in said
    assert "node 0: waiting: ImagePullBackOff no such image" in said
    anew = Command(*PLACES)
    trainer.wait(lambda: trainer.free() or trainer.job()["metadata"]["uid"] != job["uid"], "new TrainJob")
    trainer.ends(job["name"], "Complete", "done")
    result = anew.result()
    assert result.exit_code == 0, result.output
    assert "has failed or is being removed; it is created again" in result.output


def test_a_training_for_something_else_is_not_touched(trainer: Trainer) -> None:
    tamis(*PLACES, "--name", "mine", "--keep", "--timeout", "0.1")
    other = tamis(*PLACES, "--name", "mine", "--set", "seed=1")
    assert (other.exit_code, "trains with other settings" in other.output) == (78, True)
    assert "deletionTimestamp" not in trainer.job()["metadata"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_command_removes_its_trainjob(trainer: Trainer, number: signal.Signals) -> None:
    words = [sys.executable, "-m", "tamis", "trainjob", *PLACES]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdout is not None
        command.stdout.readline()
        trainer.job()
        command.send_signal(number)
        _, said = command.communicate(timeout=60)
    assert command.returncode != 0
    assert trainer.is_leaving(), said.decode()


def test_without_rights_or_a_cluster_it_says_what_is_missing(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = trainer.server.account(NAMESPACE, "nobody")
    monkeypatch.setenv("KUBECONFIG", str(trainer.server.kubeconfig_of(tmp_path / "nobody", NAMESPACE, token)))
    refused = tamis(*PLACES)
    assert (refused.exit_code, "403" in refused.output, "trainer.enabled" in refused.output) == (78, True, True)
    monkeypatch.setenv("KUBECONFIG", str(trainer.server.kubeconfig_of(tmp_path / "admin", "nowhere")))
    nowhere = tamis(*PLACES)
    assert (nowhere.exit_code, "no namespace nowhere" in nowhere.output) == (78, True)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "no cluster is configured" in tamis(*PLACES).output


def test_a_pipeline_s_pod_hands_the_selection_on_and_fetches_the_model(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "MOUNTED", str(tmp_path))  # stands for a claim that all pods mount
    monkeypatch.setattr(on_trainer, "TrainJobs", partial(TrainJobs, every=0.1))
    monkeypatch.setenv("KFP_POD_NAME", "step")
    monkeypatch.setenv("KFP_POD_UID", "1234")
    make("selection", tmp_path / "ds2", lambda step: (step.out / "subset.jsonl").write_text("{}\n"), name="ds2")
    nodes = {"nodes": 2, "place": str(tmp_path / "place"), "node_selector": {"pool": "h100"}}

    def step(out: Path, **settings: Any) -> None:
        finetune_on_trainer.python_func(
            selection=Dataset(name="selection", uri=str(tmp_path / "ds2")),
            settings={"model": "some/model", **settings},
            trainer=nodes,
            model=Model(name="model", uri=str(out)),
            metrics=Metrics(name="metrics", uri=str(tmp_path / "metrics")),
        )

    def train() -> None:
        job = trainer.job()
        assert job["metadata"]["ownerReferences"][0]["uid"] == "1234"
        paths = dict(one.removeprefix("--").split("=", 1) for one in job["spec"]["trainer"]["args"][1:3])
        assert Artifact.open(paths["selection"], "selection").name == "ds2"
        make("model", Path(paths["out"]), lambda step: (step.out / "model.bin").write_text("w"), name="ds2")
        trainer.ends(job["metadata"]["name"], "Complete", "done")

    playing = Thread(target=train)
    playing.start()
    step(tmp_path / "model")
    playing.join()
    assert Artifact.open(tmp_path / "model", "model").path("model.bin").read_text() == "w"
    trainer.free()

    def fail() -> None:
        name = trainer.job()["metadata"]["name"]
        trainer.exits(trainer.pod(name, 0), 1, words="error: the loss is no number")
        trainer.ends(name, "Failed", "a job failed")

    playing = Thread(target=fail)
    playing.start()
    step(tmp_path / "failed", seed=1)  # the other cells go on
    playing.join()
    failure = failure_in(tmp_path / "failed")
    assert failure is not None
    assert (failure.name, "the loss is no number" in failure.reason) == ("ds2", True)
    trainer.free()
    monkeypatch.setenv("KUBECONFIG", "none")  # what is there is not trained again: no cluster is asked
    step(tmp_path / "again")
    assert manifest_of(tmp_path / "again") == manifest_of(tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"selection": "selections/ds2"}, "--selection: selections/ds2 is on this machine"),
        ({"set": {"deepspeed": "mine.json"}}, "finetuning.deepspeed: mine.json"),
        ({"set": {"model": "./smollm2"}}, "finetuning.model: ./smollm2"),
        ({"set": {"batch_size": 8}}, "a multiple of 64: micro_batch_size times 16 processes"),
    ],
)
def test_what_the_nodes_cannot_do_is_refused_before_anything_is_made(change: dict[str, Any], said: str) -> None:
    settings = FinetuningSettings.model_construct(**(FinetuningSettings().model_dump() | change.get("set", {})))
    with pytest.raises(SettingsError, match=said):
        on_trainer.trainjob(
            settings, TrainerSettings(nodes=2, gpus=8), selection=change.get("selection", "s3://a"), out="s3://b"
        )
