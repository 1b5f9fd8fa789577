"""The built images: every stage's real command as a nobody on a read-only root, without a network.

They need podman or docker and the images of this version (`make images`), not a cluster.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import tamis
from tamis.components import image
from tamis.core.artifacts import Artifact
from tests.kubernetes.binaries import ROOT
from tests.pipeline.conftest import write_settings

pytestmark = [pytest.mark.timeout(1800)]
IMAGES = ["cpu", "rating", "training", "evaluation"]
RUN = "/cache/run"
MODELS = "/cache/hf/models"
TINY = f"{MODELS}/tiny"


@pytest.fixture(scope="session")
def engine() -> str:
    """The program that runs containers here."""
    found = next((path for name in ("podman", "docker") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("neither podman nor docker on this machine")
    return found


def built(engine: str, name: str) -> dict[str, Any]:
    """What the engine knows of an image; skips where it was not built."""
    shown = subprocess.run([engine, "image", "inspect", image(name)], capture_output=True, text=True)
    if shown.returncode:
        pytest.skip(f"{image(name)} is not built: make images IMAGES={name}")
    found: dict[str, Any] = json.loads(shown.stdout)[0]
    return found


def run(engine: str, name: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A container under the rules of the `restricted` standard, with an empty /tmp and nothing else to write to."""
    command = [engine, "run", "--rm", "--pull=never", "--read-only", "--user=10001:10001", "--network=none"]
    command += ["--cap-drop=all", "--security-opt=no-new-privileges", "--tmpfs=/tmp:rw,exec,mode=1777"]
    command += ["--read-only-tmpfs=false"] if engine.endswith("podman") else []
    return subprocess.run([*command, *options, image(name), *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_says_what_it_is_and_who_it_runs_as(engine: str, name: str) -> None:
    config = built(engine, name)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["tamis"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == f"tamis-{name}"
    assert labels["org.opencontainers.image.version"] == tamis.__version__
    assert labels["org.opencontainers.image.revision"] != "unknown"


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_s_root_cannot_be_written_and_holds_nothing_to_install_with(
    engine: str, name: str, tmp_path: Path
) -> None:
    built(engine, name)
    code = (
        "import importlib.util, os, shutil\n"
        "places = ('/', '/opt/tamis', '/etc', '/var/tmp', '/usr', '/tmp', '/cache')\n"
        "places = [place for place in places if os.access(place, os.W_OK)]\n"
        "tools = [t for t in ('g++', 'make') if shutil.which(t)]\n"
        "print(os.getuid(), os.getgid(), places, tools, importlib.util.find_spec('pip'))"
    )
    tmp_path.chmod(0o777)
    options = ("--entrypoint=python3", f"--volume={tmp_path}:/cache")
    ended = run(engine, name, "-c", code, options=options)
    assert ended.stdout.strip() == "10001 10001 ['/tmp', '/cache'] [] None", ended.stderr


def settings() -> dict[str, Any]:
    """Settings of the stages, by their command."""
    grades = {"kind": "import", "path": "/inputs/data.jsonl", "by": "row", "source": "facts", "overall": "rating"}
    rater = {"kind": "transformers", "model": f"{MODELS}/smollm2", "batch_tokens": 128}
    warmup = {"size": 8, "epochs": 1, "batch_size": 4, "rank": 2, "alpha": 8, "layers": 1}
    return {
        "pool": {"sources": [{"name": "facts", "path": "/inputs/data.jsonl", "schema": "instruction"}]},
        "rate": {"name": "grades", "backend": grades},
        "rate --shard=1/6": {"name": "smollm2", "backend": rater, "store": f"{RUN}/finished-ratings"},
        "embed": {"model": f"{MODELS}/minilm"},
        "score": {"measure": {"kind": "perplexity", "model": TINY}},
        "influence": {
            "model": TINY,
            "format": "chat",
            "dimensions": 64,
            "warmup": warmup,
            "tasks": [{"name": "facts", "path": "/inputs/task.jsonl"}],
        },
        "select": {"name": "ds2", "strategy": "ds2", "size": 8},
        "finetune": {
            "model": TINY,
            "format": "chat",
            "epochs": 1,
            "batch_size": 4,
            "micro_batch_size": 2,
            "max_tokens": 128,
            "lora": {"rank": 2, "layers": 1},
            "processes": 2,
        },
        "evaluate": {"suite": "/inputs/demo/suite.yaml", "limit": 4},
        "judge": {
            "prompts": [{"name": "two", "path": "/inputs/prompts.jsonl"}],
            "against": {"kind": "model", "name": "untrained", "model": TINY},
            "answers": {"max_new_tokens": 40},
            "judge": {"backend": {"kind": "transformers", "model": f"{MODELS}/smollm2"}},
            "max_failure_share": 1.0,
        },
    }


STAGES: list[tuple[str, str, dict[str, str], str]] = [
    ("cpu", "pool", {}, "pool"),
    ("rating", "rate", {"pool": "pool"}, "ratings"),
    ("rating", "rate --shard=1/6", {"pool": "pool"}, "shard"),
    ("rating", "embed", {"pool": "pool"}, "embeddings"),
    ("cpu", "neighbors", {"embeddings": "embeddings"}, "neighbors"),
    ("cpu", "curate", {"ratings": "ratings", "neighbors": "neighbors"}, "curation"),
    ("rating", "score", {"pool": "pool"}, "scores"),
    ("training", "influence", {"pool": "pool"}, "influence"),
    ("cpu", "select", {"pool": "pool", "curation": "curation", "neighbors": "neighbors"}, "selection"),
    ("training", "finetune", {"selection": "selection"}, "model"),
    ("evaluation", "evaluate", {"model": "model"}, "evaluation"),
    ("rating", "judge", {"model": "model"}, "judgement"),
    (
        "cpu",
        "report",
        {
            "pool": "pool",
            "ratings": "ratings",
            "curation": "curation",
            "selections": "selection",
            "models": "model",
            "evaluations": "evaluation",
            "judgements": "judgement",
        },
        "report",
    ),
]


@pytest.mark.parametrize("images", [["cpu"], IMAGES], ids=["cpu", "its own"])
def test_every_stage_runs_in_its_image_or_in_the_one_for_trials(
    engine: str, model_folder: Path, tmp_path: Path, images: list[str]
) -> None:
    for name in images:
        built(engine, name)
    inputs, cache = tmp_path / "inputs", tmp_path / "cache"
    shutil.copytree(ROOT / "components/tamis/demo", inputs / "demo")
    rows = (write_settings(tmp_path, model_folder).parent / "data.jsonl").read_text().splitlines()[:24]
    (inputs / "data.jsonl").write_text("".join(line + "\n" for line in rows))
    (inputs / "task.jsonl").write_text(
        json.dumps({"prompt": "What is salt?", "completion": "Salt is a crystal."}) + "\n"
    )
    (inputs / "prompts.jsonl").write_text('{"prompt": "What is copper?"}\n{"prompt": "Name a river."}\n')
    for stage, values in settings().items():
        (inputs / f"{stage.replace('/', ' of ')}.yaml").write_text(yaml.safe_dump(values))
    for folder in (cache, cache / "hf"):  # beside the models, libraries keep what they make of data sets
        folder.mkdir()
        folder.chmod(0o777)
    options = (f"--volume={cache}:/cache", f"--volume={model_folder}:{MODELS}:ro", f"--volume={inputs}:/inputs:ro")
    for name, stage, takes, makes in STAGES:
        given = [f"--{option}={RUN}/{artifact}" for option, artifact in takes.items()]
        given += [f"--settings=/inputs/{stage.replace('/', ' of ')}.yaml"] if stage in settings() else []
        ended = run(
            engine, name if name in images else "cpu", *stage.split(), *given, f"--out={RUN}/{makes}", options=options
        )
        assert ended.returncode == 0, f"{stage} in {name}: {ended.stderr}"
        assert Artifact.open(cache / "run" / makes).manifest.rows > 0
