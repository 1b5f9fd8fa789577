"""`tamis submit`, `upload` and `schedule`: Kubeflow's own client against a server on loopback."""

from __future__ import annotations

import copy
import functools
import json
import operator
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from tamis.cli import main
from tamis.core.errors import SettingsError
from tamis.core.settings import parse
from tamis_pipelines.checks.reachable import check_reachable
from tamis_pipelines.settings import RunSettings
from tests.certificates import private_certificate
from tests.pipeline.server import KubeflowServer
from tests.storage.seaweed import free_port

SETTINGS: dict[str, Any] = {
    "work_dir": "unused",
    "pool": {"sources": [{"name": "facts", "path": "s3://data/facts.jsonl"}]},
    "raters": [{"name": "llama", "backend": {"kind": "transformers", "model": "meta-llama/Llama-3.1-8B-Instruct"}}],
    "subsets": [{"name": "best", "strategy": "ds2", "size": 10}, {"name": "random", "strategy": "random", "size": 10}],
    "kubeflow": {
        "pods": {"rating": {"gpus": 4, "node_selector": {"gpu": "h100"}}},
        "compiled": {"queue": "research"},
    },
}


# A setting of every kind that names files, each with what pods can see.
WHOLE: dict[str, Any] = {
    "work_dir": "unused",
    "pool": {"sources": [{"name": "facts", "path": "s3://data/facts.jsonl"}, {"name": "hub", "dataset": "org/facts"}]},
    "raters": [
        {
            "name": "llama",
            "backend": {"kind": "transformers", "model": "org/llama"},
            "prompt": "ds2-v1",
            "sample": 0.5,
            "also": ["s3://data/more.txt"],
        },
        {
            "name": "mini",
            "backend": {"kind": "openai", "model": "mini", "tokenizer": "org/mini"},
            "store": "s3://data/ratings",
        },
    ],
    "perplexity": {"measure": {"model": "gpt2"}},
    "deita": {"measure": {"quality_model": "org/quality"}},
    "subsets": [
        {
            "name": "ds2",
            "strategy": "ds2",
            "size": 9,
            "rater": "mini",
            "exclude": ["s3://data/a.txt", "s3://data/b.txt"],
        },
        {"name": "perplexity", "strategy": "perplexity", "size": 9},
        {"name": "deita", "strategy": "deita", "size": 9, "rater": "mini"},
    ],
    "finetuning": {"model": "org/base", "deepspeed": "zero2"},
    "evaluation": {"suite": "quick", "data_dir": "/cache/hf/tasks"},
    "judging": {
        "prompts": [{"name": "asked", "path": "s3://data/asked.jsonl"}],
        "against": {"kind": "answers", "name": "theirs", "path": "s3://data/answers.jsonl"},
        "judge": {"backend": {"kind": "transformers", "model": "org/judge"}, "prompt": "scores-v1"},
        "store": "s3://data/judging",
    },
    "kubeflow": {"trainer": {"nodes": 2, "place": "s3://data/trainings"}},
}


@pytest.fixture(scope="module")
def compiled_once() -> dict[tuple[str, str], str]:
    """Packages by pipeline and settings: the tests are about what is sent, and each compiling takes a second."""
    return {}


@pytest.fixture(autouse=True)
def _compile_once(compiled_once: dict[tuple[str, str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tamis_pipelines import packages
    from tamis_pipelines.pods import CompileSettings
    from tamis_pipelines.workflow import fitting

    compile_one = packages.compile_one

    def remembered(
        name: str, folder: Path, settings: CompileSettings | None = None, constants: Mapping[str, Any] | None = None
    ) -> Path:
        key = name, f"{(settings or CompileSettings()).model_dump_json()} {constants}"
        if key not in compiled_once:
            compiled_once[key] = compile_one(name, folder, settings, constants).read_text()
        package = folder / f"{name}.yaml"
        package.write_text(compiled_once[key])
        return package

    monkeypatch.setattr(packages, "compile_one", remembered)
    monkeypatch.setattr(fitting, "compile_one", remembered)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[KubeflowServer]:
    monkeypatch.setenv("HOME", str(tmp_path))  # where kfp looks for a context
    for name in ("KF_PIPELINES_ENDPOINT", "TAMIS_KUBEFLOW_TOKEN", "TAMIS_KUBEFLOW_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    running = KubeflowServer()
    yield running
    running.close()


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    return write(tmp_path, SETTINGS)


def write(folder: Path, values: dict[str, Any]) -> Path:
    file = folder / "facts.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def tamis(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def test_submit_starts_a_run_and_says_where_it_is(server: KubeflowServer, settings: Path) -> None:
    result = tamis(
        "submit", settings, "--host", server.url, "--name", "first", "--service-account", "tamis-pipeline",
        "--root", "s3://runs/kubeflow", "--outcomes", "s3://runs/outcomes",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (run,) = server.state.runs
    address, workflow, following = result.stdout.splitlines()
    assert following == f"follow it: tamis status {run['run_id']} --follow --host {server.url}"
    assert address == f"run: {server.url}/#/runs/details/{run['run_id']}"
    assert workflow.startswith("workflow: ")
    assert (run["display_name"], run["service_account"]) == ("first", "tamis-pipeline")
    assert run["runtime_config"]["pipeline_root"] == "s3://runs/kubeflow"
    given = run["runtime_config"]["parameters"]
    assert given["pool"] == SETTINGS["pool"]
    assert given["subsets"] == SETTINGS["subsets"]
    executors = run["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    assert executors["exec-rate"]["container"]["resources"]["accelerator"]["resourceCount"] == "4"
    pods = run["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert "h100" in str(pods["exec-rate"]["nodeSelector"])
    assert not {"rating_gpus", "rating_node_selector", "outcomes"} & {*given}, "they are compiled in"
    environment = [one for executor in executors.values() for one in executor["container"]["env"]]
    assert environment == [{"name": "TAMIS_OUTCOMES", "value": "s3://runs/outcomes"}] * len(executors)
    assert [experiment["display_name"] for experiment in server.state.experiments] == ["tamis"]


def test_a_folder_for_outcomes_on_this_machine_is_refused(server: KubeflowServer, settings: Path) -> None:
    refused = tamis("submit", settings, "--host", server.url, "--outcomes", "outcomes")
    assert (refused.exit_code, "kubeflow.compiled.outcomes: outcomes" in refused.output) == (78, True)
    assert server.state.runs == []


def test_what_is_compiled_follows_the_settings(server: KubeflowServer, settings: Path) -> None:
    tamis("submit", settings, "--host", server.url, "--set", "kubeflow.compiled.timeouts.rating=7200")
    platform = server.state.runs[0]["pipeline_spec"]["platform_spec"]["platforms"]["kubernetes"]
    pods = platform["deploymentSpec"]["executors"]
    assert {pod["podMetadata"]["labels"]["kueue.x-k8s.io/queue-name"] for pod in pods.values()} == {"research"}
    assert pods["exec-rate"]["activeDeadlineSeconds"] == "7200"


def test_a_rater_of_several_pods_gets_them_with_its_limits_and_a_store(server: KubeflowServer, tmp_path: Path) -> None:
    limits = {"requests_per_minute": 100, "tokens_per_minute": 1000}
    mini = {"name": "mini", "backend": {"kind": "openai", "model": "m", "limits": limits}}
    values = SETTINGS | {
        "raters": [*SETTINGS["raters"], mini | {"store": "s3://data/ratings"}],
        "subsets": [SETTINGS["subsets"][0] | {"rater": "mini"}],
        "kubeflow": {"rating_shards": {"mini": 3, "llama": 1}},
    }
    result = tamis("submit", write(tmp_path, values), "--host", server.url)
    assert result.exit_code == 0, result.output
    given = server.state.runs[0]["runtime_config"]["parameters"]
    assert given["raters"] == values["raters"]
    first, *shards = given["workers"]
    assert first == SETTINGS["raters"][0]
    assert [worker["shard"] for worker in shards] == ["1/3", "2/3", "3/3"]
    assert shards[1]["backend"]["limits"] == {"requests_per_minute": 33, "tokens_per_minute": 333}
    del values["raters"][1]["store"]
    forgetful = tamis("submit", write(tmp_path, values), "--host", server.url)
    assert (forgetful.exit_code, "raters.mini.store" in forgetful.output) == (78, True)
    assert tamis("submit", write(tmp_path, values), "--host", server.url, "--force").exit_code == 0


def test_a_service_is_not_paid_again_by_another_try(server: KubeflowServer, tmp_path: Path) -> None:
    paid = {"name": "paid", "backend": {"kind": "openai", "model": "m"}}
    values = SETTINGS | {"raters": [paid], "subsets": [SETTINGS["subsets"][0] | {"rater": "paid"}]}
    forgetful = tamis("submit", write(tmp_path, values), "--host", server.url)
    assert (forgetful.exit_code, "raters.paid.store" in forgetful.output) == (78, True)
    lost = values | {"raters": [paid | {"store": "/cache/ratings"}]}
    assert tamis("submit", write(tmp_path, lost), "--host", server.url).exit_code == 78
    kept = values | {"kubeflow": {"compiled": {"work_volume": True}}}
    assert tamis("submit", write(tmp_path, kept), "--host", server.url).exit_code == 0
    stored = values | {"raters": [paid | {"store": "s3://data/ratings"}]}
    assert tamis("submit", write(tmp_path, stored), "--host", server.url).exit_code == 0


def test_no_cache_reaches_every_step_however_deep(server: KubeflowServer, settings: Path) -> None:
    tamis("submit", settings, "--host", server.url)
    tamis("submit", settings, "--host", server.url, "--no-cache")
    cached, uncached = (set(caching(run)) for run in server.state.runs)
    assert True in cached
    assert uncached == {False}


def test_the_advice_on_an_uploaded_version_without_cache_can_be_followed(
    server: KubeflowServer, settings: Path
) -> None:
    result = tamis("submit", settings, "--host", server.url, "--uploaded", "newest", "--no-cache")
    assert "tamis upload --set compiled.cached=false" in result.output
    assert tamis("upload", "--host", server.url, "--set", "compiled.cached=false").exit_code == 0


def caching(run: dict[str, Any]) -> Iterator[bool]:
    for component in run["pipeline_spec"]["pipeline_spec"]["components"].values():
        for task in component.get("dag", {}).get("tasks", {}).values():
            if "dag" not in run["pipeline_spec"]["pipeline_spec"]["components"][task["componentRef"]["name"]]:
                yield task.get("cachingOptions", {}).get("enableCache", False)


def test_a_dry_run_shows_the_parameters_and_sends_nothing(server: KubeflowServer, settings: Path) -> None:
    result = tamis("submit", settings, "--host", server.url, "--dry-run")
    assert result.exit_code == 0
    assert "pipeline:   data-selection (compiled now)" in result.output
    assert "  rating_gpus: '4'" in result.output
    assert server.state.runs == []


def test_a_dry_run_ends_with_a_summary_and_shows_all_that_is_compiled_in(
    server: KubeflowServer, tmp_path: Path
) -> None:
    compiled = {"finished": "s3://data/finished", "cells_per_pod": 2, "parallelism": 7, "queue": "research"}
    paid = {"backend": {"kind": "openai", "model": "judge"}}
    judging = WHOLE["judging"] | {"judge": paid, "price": {"input": 1, "output": 1}, "max_cost": 5}
    file = write(tmp_path, WHOLE | {"judging": judging, "kubeflow": {"compiled": compiled}})
    result = tamis("submit", file, "--host", server.url, "--dry-run")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for name, value in compiled.items():
        assert f"  {name}: {value}" in lines
    assert "group 1: ds2, perplexity" in lines
    assert "group 2: deita" in lines
    summary = dict(line.split(":", 1) for line in lines[-7:])
    assert list(summary) == ["pipeline", "run", "workflow", "at once", "costs", "root", "account"]
    assert "15.00 USD" in summary["costs"], "5 for each of 3 cells"
    assert "no limit for raters.mini" in summary["costs"]
    assert "  model_cache: tamis-models" in lines
    assert "  work: tamis-work" not in lines, "it is not mounted"


@pytest.mark.parametrize(
    ("when", "shown"), [(("--cron", "0 0 3 * * *"), "0 0 3 * * *"), (("--every", "3600"), "every 3600 s")]
)
def test_a_dry_run_of_a_schedule_shows_when_where_and_as_whom(
    server: KubeflowServer, settings: Path, when: tuple[str, str], shown: str
) -> None:
    options = ("--root", "s3://runs/kubeflow", "--service-account", "tamis-pipeline", "--at-once", "2", "--dry-run")
    result = tamis("schedule", settings, "--host", server.url, *when, *options)
    assert result.exit_code == 0, result.output
    assert f"starts:     {shown}, 2 at once\n" in result.output
    assert "root:       s3://runs/kubeflow\n" in result.output
    assert "account:    tamis-pipeline\n" in result.output
    assert server.state.schedules == []


def test_waiting_says_how_the_steps_go_and_ends_with_the_run(server: KubeflowServer, settings: Path) -> None:
    server.state.states[:] = [
        {"state": "RUNNING", "run_details": {"task_details": [task("pool", "RUNNING")]}},
        {"state": "RUNNING", "run_details": {"task_details": [task("pool", "SUCCEEDED"), task("rate", "RUNNING")]}},
        {"state": "SUCCEEDED", "run_details": {"task_details": [task("pool", "SUCCEEDED"), task("rate", "SUCCEEDED")]}},
    ]
    server.state.failures[:] = [503, 502]
    result = tamis("submit", settings, "--host", server.url, "--wait", "--every", "0.1")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if not line.startswith(("run: http", "workflow: "))]
    assert [line[9:] for line in lines[:5]] == [
        "run: running",
        "pool: running",
        "pool: done",
        "rate: running",
        "rate: done",
    ]
    assert "SUCCEEDED" in lines[5]


def task(name: str, state: str, error: str = "") -> dict[str, Any]:
    return {"task_id": name, "display_name": name, "state": state} | ({"error": {"message": error}} if error else {})


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_waiting_fails_when_the_run_does_and_names_the_step(server: KubeflowServer, settings: Path, state: str) -> None:
    details = [task("rate", "FAILED", "OOMKilled")] if state == "FAILED" else []
    server.state.states[:] = [{"state": state, "run_details": {"task_details": details}}]
    result = tamis("submit", settings, "--host", server.url, "--wait", "--every", "0.1")
    assert result.exit_code == 1
    assert ("FAILED" if state == "FAILED" else "STOPPED") in result.output
    assert ("rate: failed: OOMKilled" in result.output) == (state == "FAILED")


def test_waiting_has_an_end_and_the_run_goes_on(server: KubeflowServer, settings: Path) -> None:
    server.state.states[:] = [{"state": "RUNNING"}]
    result = tamis("submit", settings, "--host", server.url, "--wait", "--every", "0.1", "--timeout", "0.2")
    assert result.exit_code == 3
    assert "tamis status runs-" in result.output


def test_the_same_package_is_uploaded_once_and_another_is_a_new_version(server: KubeflowServer) -> None:
    for _ in range(2):
        result = tamis("upload", "--host", server.url)
        assert result.exit_code == 0, result.output
    assert [pipeline["display_name"] for pipeline in server.state.pipelines] == ["data-selection", "experiment"]
    assert len(server.state.versions) == 2
    tamis("upload", "--host", server.url, "--set", "compiled.queue=other")
    assert len(server.state.pipelines) == 2
    assert len(server.state.versions) == 4


def test_a_version_keeps_its_content(server: KubeflowServer) -> None:
    for _ in range(2):
        assert tamis("upload", "--host", server.url, "--version", "one").exit_code == 0
    result = tamis("upload", "--host", server.url, "--version", "one", "--set", "compiled.queue=other")
    assert result.exit_code == 78
    assert "data-selection already has a version 'one'" in result.output
    server.state.versions[0]["description"] = ""  # uploaded by somebody else
    result = tamis("upload", "--host", server.url, "--version", "one")
    assert (result.exit_code, "choose another --version" in result.output) == (78, True)
    assert len(server.state.versions) == 2


def test_an_uploaded_version_runs_by_name_or_as_the_newest(server: KubeflowServer, settings: Path) -> None:
    tamis("upload", "--host", server.url, "--version", "one")
    tamis("upload", "--host", server.url, "--version", "two", "--set", "compiled.queue=other")
    for version in ("one", "newest"):
        result = tamis("submit", settings, "--host", server.url, "--uploaded", version)
        assert result.exit_code == 0, result.output
    names = {version["pipeline_version_id"]: version["display_name"] for version in server.state.versions}
    ran = [names[run["pipeline_version_reference"]["pipeline_version_id"]] for run in server.state.runs]
    assert ran == ["one", "two"]
    assert "pipeline_spec" not in server.state.runs[0]


def upload_command(result: Result) -> list[str]:
    """The command in the advice of a refusal."""
    (line,) = [line for line in result.output.splitlines() if "tamis upload --" in line]
    return shlex.split(line[line.index("tamis upload") :])[1:]


@pytest.mark.parametrize(
    "compiled",
    [
        {"finished": "s3://data/finished"},
        {"work_volume": True},
        {"timeouts": {"rating": 700_000}},
        {"timeouts": {"rating": 0}},
        {"sharded": True},
    ],
    ids=str,
)
def test_an_uploaded_version_must_be_compiled_for_the_run(
    compiled: dict[str, Any], server: KubeflowServer, settings: Path
) -> None:
    submit = ("submit", settings, "--host", server.url, "--set", f"kubeflow.compiled={json.dumps(compiled)}")
    tamis("upload", "--host", server.url)
    refused = tamis(*submit, "--uploaded", "newest")
    assert (refused.exit_code, f"compiled.{next(iter(compiled))}" in refused.output) == (78, True), refused.output
    assert server.state.runs == []
    assert tamis(*upload_command(refused), "--host", server.url).exit_code == 0
    accepted = tamis(*submit, "--uploaded", "newest")
    assert accepted.exit_code == 0, accepted.output


def test_an_uploaded_version_must_have_the_run_s_judging_scores_and_cells_per_pod(
    server: KubeflowServer, tmp_path: Path
) -> None:
    values = changed(WHOLE, "kubeflow", {"compiled": {"finished": "s3://data/finished", "cells_per_pod": 2}})
    file = write(tmp_path, values)
    tamis("upload", "--host", server.url, "--set", 'compiled.finished="s3://data/finished"')
    refused = tamis("submit", file, "--host", server.url, "--uploaded", "newest")
    assert refused.exit_code == 78
    for name in ("judging", "scores", "cells_per_pod"):
        assert f"compiled.{name}" in refused.output
    command = upload_command(refused)
    shown = tamis("submit", file, "--host", server.url, "--uploaded", "newest", "--dry-run")
    assert shlex.join(command) in shown.output, "a dry run names the command before anything is uploaded"
    assert tamis(*command, "--host", server.url).exit_code == 0
    accepted = tamis("submit", file, "--host", server.url, "--uploaded", "newest")
    assert accepted.exit_code == 0, accepted.output


def test_a_package_is_uploaded_without_the_file_whose_variables_only_the_run_has(
    server: KubeflowServer, tmp_path: Path
) -> None:
    file = write(tmp_path, SETTINGS | {"kubeflow": {"compiled": {"finished": "${bucket}/finished"}}})
    submit = ("submit", file, "--host", server.url, "--set", "variables.bucket=s3://data")
    assert tamis(*submit, "--dry-run").exit_code == 0
    tamis("upload", "--host", server.url)
    assert tamis(*submit, "--uploaded", "newest").exit_code == 78
    command = upload_command(tamis(*submit, "--uploaded", "newest"))
    assert tamis(*command, "--host", server.url).exit_code == 0
    assert tamis(*submit, "--uploaded", "newest").exit_code == 0


def test_a_version_for_more_cells_per_pod_is_accepted(server: KubeflowServer, settings: Path) -> None:
    tamis("upload", "--host", server.url, "--set", "compiled.timeouts.rating=700000")
    assert tamis("submit", settings, "--host", server.url, "--uploaded", "newest").exit_code == 0


def test_an_uploaded_version_that_the_server_does_not_return_is_not_compared_and_that_is_said(
    server: KubeflowServer, settings: Path
) -> None:
    server.state.versions_hidden = True
    tamis("upload", "--host", server.url)
    result = tamis("submit", settings, "--host", server.url, "--uploaded", "newest")
    assert (result.exit_code, "not compared" in result.output) == (0, True), result.output


def test_an_unknown_pipeline_or_version_is_said(server: KubeflowServer, settings: Path) -> None:
    result = tamis("submit", settings, "--host", server.url, "--uploaded", "newest")
    assert result.exit_code == 78
    assert "has no pipeline 'data-selection'" in result.output
    tamis("upload", "--host", server.url)
    result = tamis("submit", settings, "--host", server.url, "--uploaded", "9.9")
    assert result.exit_code == 78
    assert "has no version '9.9'" in result.output


def test_a_schedule_is_made_once_and_replaced_when_asked(server: KubeflowServer, settings: Path) -> None:
    command = ("schedule", settings, "--host", server.url, "--name", "nightly", "--cron", "0 0 3 * * *")
    result = tamis(*command)
    assert result.exit_code == 0, result.output
    (made,) = server.state.schedules
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert (made["mode"], int(made["max_concurrency"]), made["no_catchup"]) == ("ENABLE", 1, True)
    assert f"{server.url}/#/recurringrun/details/{made['recurring_run_id']}" in result.output
    again = tamis(*command)
    assert again.exit_code == 78
    assert "a schedule called 'nightly' already exists" in again.output
    replaced = tamis(*command[:-2], "--every", "3600", "--replace")
    assert replaced.exit_code == 0, replaced.output
    (kept,) = server.state.schedules
    assert int(kept["trigger"]["periodic_schedule"]["interval_second"]) == 3600


@pytest.mark.parametrize(
    "dry",
    [(), ("--dry-run",)],
    ids=["sent", "dry"],
)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "a schedule needs one time"),
        (("--cron", "0 3 * * *"), "5 fields"),
        (("--cron", "0 0 3 * * *", "--every", "60"), "a schedule needs one time"),
    ],
)
def test_a_schedule_without_a_clear_time_is_refused(
    server: KubeflowServer, settings: Path, options: tuple[str, ...], said: str, dry: tuple[str, ...]
) -> None:
    result = tamis("schedule", settings, "--host", server.url, *options, *dry)
    assert result.exit_code == 78
    assert said in result.output
    assert server.state.schedules == []


def test_a_server_with_a_token_and_several_users(
    server: KubeflowServer, settings: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.state.token, server.state.multi_user = "s3cret", True
    without = tamis("submit", settings, "--host", server.url)
    assert (without.exit_code, "401" in without.output, "no token was given" in without.output) == (78, True, True)
    monkeypatch.setenv("TAMIS_KUBEFLOW_TOKEN", "old")
    assert "the token was not accepted" in tamis("submit", settings, "--host", server.url).output
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    to = ("--host", server.url, "--token-file", token)
    nowhere = tamis("submit", settings, *to)
    assert (nowhere.exit_code, "--namespace NAME" in nowhere.output) == (78, True)
    for command in (("submit", settings), ("upload",), ("schedule", settings, "--every", "60")):
        result = tamis(*command, *to, "--namespace", "ada")
        assert result.exit_code == 0, result.output
        assert "s3cret" not in result.output
    assert {kept["namespace"] for kept in server.state.experiments + server.state.pipelines} == {"ada"}


def test_no_server_a_server_that_is_away_and_one_that_is_none(settings: Path, server: KubeflowServer) -> None:
    assert "no address of a Kubeflow server" in tamis("submit", settings).output
    assert "has no scheme" in tamis("submit", settings, "--host", "kubeflow.example").output
    away = tamis("submit", settings, "--host", f"http://127.0.0.1:{free_port()}")
    assert (away.exit_code, "does not answer" in away.output) == (1, True)
    wrong = tamis("submit", settings, "--host", f"{server.url}/elsewhere")
    assert (wrong.exit_code, "404" in wrong.output) == (1, True)
    assert "Traceback" not in away.output + wrong.output


def test_a_login_page_in_front_is_recognised(server: KubeflowServer, settings: Path) -> None:
    server.state.login = True
    result = tamis("submit", settings, "--host", server.url)
    assert (result.exit_code, "login page" in result.output) == (78, True)


def test_a_private_certificate_needs_its_ca(server: KubeflowServer, settings: Path, tmp_path: Path) -> None:
    pem, ca = private_certificate(tmp_path)
    private = KubeflowServer(pem)
    try:
        without = tamis("submit", settings, "--host", private.url)
        assert (without.exit_code, "--ca-file" in without.output) == (78, True)
        trusted = tamis("submit", settings, "--host", private.url, "--ca-file", ca)
        assert trusted.exit_code == 0, trusted.output
    finally:
        private.close()


def test_what_the_server_says_of_a_wrong_request_reaches_the_user(server: KubeflowServer, settings: Path) -> None:
    tamis("upload", "--host", server.url, "--version", "one")
    version = server.state.versions[0]["pipeline_version_id"]
    package = server.state.packages[version]
    server.state.packages[version] = package.replace("rating_gpus", "rating_cards")
    result = tamis("submit", settings, "--host", server.url, "--uploaded", "one")
    assert result.exit_code == 78
    assert "parameter rating_gpus is unknown" in result.output


def test_files_of_this_machine_are_refused_before_anything_is_sent(server: KubeflowServer, tmp_path: Path) -> None:
    values = json.loads(json.dumps(SETTINGS))
    values["pool"]["sources"][0]["path"] = "data/facts.jsonl"
    values["raters"][0]["backend"]["model"] = "build/demo/models/smollm2"
    file = write(tmp_path, values)
    result = tamis("submit", file, "--host", server.url)
    assert result.exit_code == 78
    assert "pool.sources.facts.path: data/facts.jsonl" in result.output
    assert "raters.llama.backend.model: build/demo/models/smollm2" in result.output
    assert server.state.runs == []
    assert tamis("submit", file, "--host", server.url, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("pool.sources.1.dataset", "./data/facts"),
        ("raters.0.backend.model", "./models/rater"),
        ("raters.0.prompt", "s3://data/prompt.yaml"),
        ("raters.1.backend.tokenizer", "./tok/dir"),
        ("raters.1.store", "ratings"),
        ("perplexity.measure.model", "models/one/two"),
        ("deita.measure.quality_model", "../models/quality"),
        ("subsets.0.exclude.1", "data/seen.txt"),
        ("finetuning.deepspeed", "ds/zero.yaml"),
        ("finetuning.deepspeed", "zero.json"),
        ("raters.0.also.0", "more.txt"),
        ("evaluation.suite", "suites/own.yaml"),
        ("evaluation.data_dir", "data"),
        ("judging.prompts.0.path", "asked.jsonl"),
        ("judging.against.path", "answers.jsonl"),
        ("judging.judge.prompt", "judge.yaml"),
        ("kubeflow.trainer.place", "trainings"),
    ],
)
def test_no_file_that_pods_cannot_see_is_let_through(place: str, value: str) -> None:
    check_reachable(parse(RunSettings, WHOLE, where="whole"))
    changed_settings = parse(RunSettings, changed(WHOLE, place, value), where="changed")
    with pytest.raises(SettingsError) as raised:
        check_reachable(changed_settings)
    assert f".{place.rsplit('.', 1)[-1]}: {value}" in raised.value.problem


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("raters.1.backend.extra", {"api_key": "key-of-this-run"}),
        ("raters.1.backend.base_url", "https://gateway.example/sk-4f0a9b3c7d/v1"),
    ],
)
def test_secrets_are_not_handed_to_kubeflow_as_parameters(place: str, value: object) -> None:
    with pytest.raises(SettingsError) as raised:
        check_reachable(parse(RunSettings, changed(WHOLE, place, value), where="changed"))
    assert "extra" in raised.value.problem or "base_url" in raised.value.problem
    assert raised.value.code == "settings"
    assert "sk-4f0a9b3c7d" not in str(raised.value)
    assert "key-of-this-run" not in str(raised.value)


def test_claims_of_pods_and_the_names_of_services_are_no_files_of_this_machine() -> None:
    for place, value in (
        ("finetuning.deepspeed", "/cache/tamis/zero.yaml"),
        ("subsets.0.exclude.1", "/cache/tamis/seen.txt"),
        ("raters.1.backend.model", "accounts/fireworks/models/llama"),
        ("raters.1.backend.model", "/models/llama"),
    ):
        check_reachable(parse(RunSettings, changed(WHOLE, place, value), where=place))


def test_a_folder_of_this_machine_with_the_look_of_a_name_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = parse(RunSettings, changed(WHOLE, "finetuning.model", "models/base"), where="settings")
    check_reachable(settings)
    (tmp_path / "models" / "base").mkdir(parents=True)
    with pytest.raises(SettingsError, match=r"finetuning\.model: models/base"):
        check_reachable(settings)


def changed(values: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """A copy with another value at a dotted place."""
    copied = copy.deepcopy(values)
    *parents, last = (int(part) if part.isdecimal() else part for part in place.split("."))
    functools.reduce(operator.getitem, parents, copied)[last] = value
    return copied
