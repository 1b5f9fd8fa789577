"""`tamis run`: the Kubeflow pipeline on this machine, as a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tamis.core.artifacts import Artifact
from tamis.core.errors import StorageError
from tamis_pipelines.local import run
from tamis_pipelines.settings import load_run
from tests.llm_server import Asked, Reaction, Server, Till, completion, error
from tests.paper_prompt import Scores
from tests.paper_prompt import write as write_scores
from tests.pipeline.conftest import FinishedRun, tamis, write


def steps_done(output: str) -> list[str]:
    return re.findall(r"tamis\.core\.steps (\w+): done", output)


def steps_reused(output: str) -> list[str]:
    return re.findall(r"tamis\.core\.steps (\w+): finished before", output)


ALL_STEPS = ["curation", "embedding", "neighbors", "pool", "rating", "reporting", "selection", "selection"]


def test_a_run_lays_out_its_results_and_says_where_the_report_is(finished_run: FinishedRun) -> None:
    settings_file, first = finished_run
    work = settings_file.parent / "work"
    assert first.returncode == 0, first.stderr
    assert sorted(steps_done(first.stderr)) == ALL_STEPS
    assert first.stdout.splitlines()[-1] == f"report: {work}/report/report.html"
    assert f"  best    {work}/selections/best/subset.jsonl" in first.stdout.splitlines()
    assert Artifact.open(work / "report", "report").manifest.facts["headline"] in first.stdout
    assert "KFP Executor" not in first.stderr, "kfp's own words go to the log"
    assert len((work / "selections/best/subset.jsonl").read_bytes().splitlines()) == 10
    for kind in ("pool", "ratings/imported", "embeddings", "neighbors", "curation", "selections/random"):
        Artifact.open(work / kind).verify()


def test_a_second_run_reuses_every_step_and_a_changed_setting_only_what_it_concerns(
    continued_run: dict[str, Any], tmp_path: Path
) -> None:
    settings_file = write(tmp_path, continued_run)
    subset = tmp_path / "work/selections/best/subset.jsonl"
    before = subset.read_bytes()
    second = tamis("run", settings_file)
    assert second.returncode == 0, second.stderr
    assert steps_done(second.stderr) == []
    assert sorted(steps_reused(second.stderr)) == ALL_STEPS
    assert subset.read_bytes() == before
    changed = tamis("run", settings_file, "--set", "report.title=Another")
    assert steps_done(changed.stderr) == ["reporting"]


def test_a_run_describes_its_samples_and_picks_by_conditions(continued_run: dict[str, Any], tmp_path: Path) -> None:
    settings = continued_run | {"describe": {}}
    settings["subsets"] = [{**one, "where": {"characters": {">": 0}}} for one in settings["subsets"]]
    done = tamis("run", write(tmp_path, settings))
    assert done.returncode == 0, done.stderr
    assert sorted(steps_done(done.stderr)) == ["reporting", "selection", "selection", "signals"]
    signals = Artifact.open(tmp_path / "work/signals", "signals")
    assert signals.manifest.rows == Artifact.open(tmp_path / "work/pool", "pool").manifest.rows
    assert "signals" in Artifact.open(tmp_path / "work/report", "report").manifest.facts["sections"]
    refused = tamis("run", write(tmp_path, {**settings, "describe": None}))
    assert refused.returncode == 78
    assert "describe" in refused.stderr


def test_folders_of_the_user_stay_as_they_are(continued_run: dict[str, Any], tmp_path: Path) -> None:
    work, settings_file = tmp_path / "work", write(tmp_path, continued_run)
    mine = [work / "models/llama/config.json", work / "selections/mine/notes.txt", work / "report/notes.txt"]
    for file in mine:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    shutil.rmtree(work / "pool")
    (work / "pool").mkdir()
    (work / "pool/raw.jsonl").write_text("mine")
    refused = tamis("run", settings_file)
    assert refused.returncode == 1
    assert f"error: {work}/pool: " in refused.stderr
    assert "code:    storage" in refused.stderr
    assert (work / "pool/raw.jsonl").read_text() == "mine"
    assert steps_reused(refused.stderr) == []
    (work / "pool/raw.jsonl").rename(tmp_path / "raw.jsonl")
    (work / "report").rename(tmp_path / "elsewhere")
    (work / "report").symlink_to(tmp_path / "elsewhere")
    (work / "selections/best/subset.jsonl").unlink()
    again = tamis("run", settings_file, "--set", "report.title=Another")
    assert again.returncode == 0, again.stderr
    assert [file.read_text() for file in mine] == ["mine"] * 3
    Artifact.open(work / "selections/best").verify()
    assert "Another" in (work / "report/report.html").read_text()


def test_killed_in_the_middle_it_goes_on_from_the_last_finished_step(
    continued_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was finished at the kill is the work of an earlier run and of this one: neighbours of its own."""
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    work = tmp_path / "work"
    shutil.rmtree(work / "report")
    settings_file = write(tmp_path, continued_run | {"neighbors": {"k": 12}})
    command = [sys.executable, "-m", "tamis", "run", str(settings_file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "curation: started" in line:
                process.send_signal(signal.SIGKILL)
                break
    assert not (work / "report").exists()
    _wait_for_the_end_of_children(work)
    again = tamis("run", settings_file)
    assert again.returncode == 0, again.stderr
    assert {"pool", "embedding", "neighbors"} <= set(steps_reused(again.stderr))
    assert not {"pool", "embedding", "neighbors"} & set(steps_done(again.stderr))
    assert "reporting" in steps_done(again.stderr)
    assert (work / "report/report.html").is_file()
    assert list(temporary.iterdir()) == []  # what the killed run has left is gone too


def test_sigterm_ends_a_run_in_order_and_no_answer_is_paid_twice(
    continued_run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    answered, at_once, hanging, went_on = 20, 4, threading.Event(), threading.Event()

    def behave(asked: Asked) -> Reaction:
        if asked.number >= answered and not went_on.is_set():
            if asked.number == answered + at_once - 1:
                hanging.set()
            return Reaction(hang=True)
        return Reaction(completion())

    with Server(behave) as server:
        backend = {"kind": "openai", "base_url": server.url, "model": "m", "concurrency": at_once}
        settings_file = write(tmp_path, continued_run | {"raters": [{"name": "asked", "backend": backend}]})
        command = [sys.executable, "-m", "tamis", "run", str(settings_file)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            assert hanging.wait(120)
            time.sleep(1)  # the last answers are on their way from the client to the store
            process.send_signal(signal.SIGTERM)
            said = process.communicate(timeout=90)[1]
        assert process.returncode == 1
        assert "code:    stopped" in said, said
        assert re.search(rf"finished so far, in {tmp_path}/work: .*pool", said), said
        assert not _processes_of(tmp_path / "work")
        first = {asked.prompt for asked in server.asked[:answered]}
        went_on.set()
        again = tamis("run", settings_file)
        assert again.returncode == 0, again.stderr
        asked_in_all = Counter(asked.prompt for asked in server.asked)
    assert len(asked_in_all) == 42
    assert {asked_in_all[prompt] for prompt in first} == {1}


def _wait_for_the_end_of_children(work: Path) -> None:
    """A step must not go on long after its `tamis run` is gone."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        if not _processes_of(work):
            return
        time.sleep(0.2)
    pytest.fail(f"still running: {_processes_of(work)}")


def _processes_of(work: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"TAMIS_HOME={work}".encode() in environment and int(process.name) != os.getpid():
            found.append(command)
    return found


def test_a_failing_step_ends_the_run_with_its_own_words_and_no_report(
    settings_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    data = settings_file.parent / "data.jsonl"
    data.write_text(data.read_text().replace("instruction", "question"))
    failed = tamis("run", settings_file, "--force")
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert "error: making pool failed: source 'facts': data.jsonl has no field" in failed.stderr, failed.stderr
    assert not re.search("kubeflow|kfp|executor|component|exit-handler|retr", failed.stderr, re.IGNORECASE)
    assert "finished steps are reused" in failed.stderr
    home = settings_file.parent / "work/.tamis"
    assert f"log:     {home / 'run.log'}" in failed.stderr
    assert not (settings_file.parent / "work/report").exists()
    assert list(temporary.iterdir()) == []
    assert list((home / "scratch").iterdir()) == []
    assert {path.name for path in home.iterdir()}.isdisjoint({"runs", "temporary", "reason", "stop"})


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="this system has no /proc")
def test_a_working_folder_that_cannot_be_made_is_an_error(settings_file: Path) -> None:
    settings = load_run(settings_file).model_copy(update={"work_dir": Path("/proc/x/y")})
    with pytest.raises(StorageError) as refused:
        run(settings)
    assert refused.value.code == "storage"


def test_a_failing_step_leaves_what_is_finished_and_the_earlier_report(
    continued_run: dict[str, Any], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    before = Artifact.open(work / "report", "report").manifest
    shutil.rmtree(work / "pool")
    grades = tmp_path / "grades.csv"
    sample = Artifact.open(work / "ratings/imported", "ratings").table(["id"])["id"][0].as_py()
    grades.write_text(f"id,grade\n{sample},99\n")
    failed = tamis("run", write(tmp_path, continued_run | {"curation": {"grades": {"path": str(grades)}}}), "--force")
    assert failed.returncode == 1
    assert "99" in failed.stderr
    assert "code:    run" in failed.stderr
    assert f"finished so far, in {work}: embeddings, neighbors, pool, ratings/imported" in failed.stderr, failed.stderr
    assert Artifact.open(work / "pool", "pool").manifest.kind == "pool"
    assert Artifact.open(work / "report", "report").manifest.key == before.key
    again = tamis("run", write(tmp_path, continued_run))
    assert again.returncode == 0, again.stderr
    assert steps_done(again.stderr) == []


def test_another_run_says_what_it_replaces_and_one_with_a_name_replaces_nothing(
    continued_run: dict[str, Any], tmp_path: Path
) -> None:
    work = tmp_path / "work"
    before = Artifact.open(work / "report", "report").manifest
    other = continued_run | {"subsets": [{"name": "few", "strategy": "random", "size": 5}]}
    named = tamis("run", write(tmp_path, other | {"name": "second"}))
    assert named.returncode == 0, named.stderr
    assert f"report: {work}/runs/second/report/report.html" in named.stdout
    assert {folder.name for folder in (work / "runs/second/selections").iterdir()} == {"few"}
    assert {folder.name for folder in (work / "selections").iterdir()} == {"best", "random"}
    assert Artifact.open(work / "report", "report").manifest.key == before.key
    assert steps_done(named.stderr) == ["selection", "reporting"]
    assert "selections/best, selections/random" in tamis("plan", write(tmp_path, other)).stdout
    unnamed = tamis("run", write(tmp_path, other))
    assert unnamed.returncode == 0, unnamed.stderr
    assert "selections/best, selections/random" in unnamed.stderr
    assert {folder.name for folder in (work / "selections").iterdir()} == {"few"}
    assert (work / "runs/second/selections/few/subset.jsonl").is_file()


def test_a_key_that_a_service_repeats_is_in_no_file_of_the_run(settings_file: Path) -> None:
    keys = ["a-header-4711-0815", "sk-path4711path", "field-of-extra-4711"]

    def behave(asked: Asked) -> Reaction:
        said = " ".join([asked.headers["authorization"], asked.path, str(asked.body["api_key"])])
        if asked.number < 2:
            return Reaction(error(f"I do not like {said}"), 400)
        if asked.number < 4:
            return Reaction(completion(f"I'm sorry, {said}"))
        digit = sum(asked.content) % 5 + 3
        return Reaction(completion(write_scores(Scores(digit, digit, digit, digit))))

    settings = yaml.safe_load(settings_file.read_text())
    with Server(behave) as server:
        base = f"{server.url.removesuffix('/v1')}/{keys[1]}/v1"
        backend = {"kind": "openai", "model": "m", "base_url": base, "api_key_env": "A_KEY_OF_MY_OWN"}
        backend["extra"] = {"api_key": keys[2]}
        settings["raters"] = [{"name": "service", "max_failure_share": 0.5, "backend": backend}]
        settings["subsets"] = settings["subsets"][1:]
        file = write(settings_file.parent, settings)
        os.environ["A_KEY_OF_MY_OWN"] = keys[0]
        try:
            ended = tamis("run", file)
        finally:
            del os.environ["A_KEY_OF_MY_OWN"]
    assert ended.returncode == 0, ended.stderr
    work = settings_file.parent / "work"
    words = {"output": ended.stdout, "errors": ended.stderr}
    words |= {str(path): path.read_bytes().decode(errors="replace") for path in work.rglob("*") if path.is_file()}
    ratings = Artifact.open(work / "ratings/service", "ratings").table(["error"])
    words["ratings"] = str(ratings.to_pylist())
    assert "***" in words["ratings"]
    assert not {where for where, text in words.items() if any(key in text for key in keys)}


def test_runs_in_different_folders_pay_for_an_answer_once(continued_run: dict[str, Any], tmp_path: Path) -> None:
    """The first one stops at its limit; the second one, elsewhere, has a higher one and starts from its answers."""
    pytest.importorskip("openai")
    till = Till()
    shutil.copytree(tmp_path / "work", tmp_path / "other")
    with Server(till) as server:
        backend = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None, "concurrency": 4}
        rater = {"name": "mini", "backend": backend, "price": till.settings}
        codes = []
        for folder, answers in (("work", 20), ("other", 1000)):
            own = {"raters": [rater | {"max_cost": answers * till.price_of(30)}], "work_dir": str(tmp_path / folder)}
            ended = tamis("run", write(tmp_path, continued_run | own))
            codes.append(ended.returncode)
    assert codes == [1, 0], ended.stderr
    samples = Artifact.open(tmp_path / "other/ratings/mini", "ratings").manifest
    assert (till.answers, samples.rows) == (42, 42)
    assert samples.facts["reused"] > 0
    assert not (tmp_path / "other/.tamis/ratings").exists()


def test_a_second_run_in_the_same_folder_at_the_same_time_is_refused(settings_file: Path) -> None:
    command = [sys.executable, "-m", "tamis", "run", str(settings_file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        assert next((line for line in process.stderr if "tamis.run step" in line), None), "no step has begun"
        process.send_signal(signal.SIGSTOP)  # so that it cannot end before the second one looks
        refused = tamis("run", settings_file)
        process.kill()
    assert refused.returncode == 1
    assert "another run is using" in refused.stderr


def test_nothing_is_run_when_a_check_fails(settings_file: Path, tmp_path: Path) -> None:
    refused = tamis("run", settings_file, "--set", f"embedding.model={tmp_path}/nowhere")
    assert refused.returncode == 1
    assert "checks failed before anything was run" in refused.stderr
    assert "embedding.model" in refused.stderr
    assert steps_done(refused.stderr) == []


def test_strategies_that_rank_by_scores_get_them_made_once(
    continued_run: dict[str, Any], tiny: Path, tmp_path: Path
) -> None:
    task = tmp_path / "task.jsonl"
    task.write_text('{"prompt": "Where is the Nile?", "completion": "In Africa."}\n')
    warmup = {"size": 8, "epochs": 1, "batch_size": 4, "rank": 4, "targets": ["q_proj"]}
    strategies = ("perplexity", "less")
    sections = {
        "subsets": [{"name": name, "strategy": name, "size": 4} for name in strategies],
        "perplexity": {"measure": {"model": str(tiny)}},
        "influence": {
            "model": str(tiny),
            "tasks": [{"name": "facts", "path": str(task)}],
            "warmup": warmup,
            "dimensions": 64,
        },
    }
    done = tamis("run", write(tmp_path, continued_run | sections))
    assert done.returncode == 0, done.stderr
    made = ["influence", "reporting", "scoring", "selection", "selection"]
    assert sorted(steps_done(done.stderr)) == made
    work = tmp_path / "work"
    assert sorted(folder.name for folder in (work / "scores").iterdir()) == ["less", "perplexity"]
    sizes = {name: Artifact.open(work / "selections" / name, "selection").manifest.rows for name in strategies}
    assert set(sizes.values()) == {4}
