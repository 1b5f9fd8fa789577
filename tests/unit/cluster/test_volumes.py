"""A model volume that pods can only read, because it is mounted so or belongs to another user."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.unit.cluster.test_fetching import COMMIT, _Hub
from tests.unit.cluster.test_fetching import hub as hub  # a fixture

PREPARE = """
import datasets
datasets.load_dataset("json", data_files="{data}", split="train")
"""
READ = """
from kfp import dsl
from tamis.kubeflow import execute
from tests.artifacts import NoSettings

def run(settings, *, out):
    import datasets
    data = datasets.load_dataset("json", data_files="{data}", split="train")
    print(len(data.map(lambda row: {{"twice": 2 * row["n"]}})), data.cache_files[0]["filename"])
    raise SystemExit(0)

execute(run, NoSettings, {{}}, out=dsl.Dataset(name="pool", uri="/nowhere"), metrics=dsl.Metrics(uri="/nowhere"))
"""


class Volume:
    """A volume with a model, `tamis/tiny`, that a pod can only read, and a place of the pod's own."""

    def __init__(self, folder: Path) -> None:
        self.home, self.own = folder / "hf", folder / "own"
        self.own.mkdir()
        model = self.home / "hub/models--tamis--tiny"
        for path, text in (("refs/main", COMMIT), (f"snapshots/{COMMIT}/config.json", '{"model_type": "llama"}')):
            (model / path).parent.mkdir(parents=True)
            (model / path).write_text(text)
        self.data = folder / "data.jsonl"
        self.data.write_text('{"n": 1}\n{"n": 2}\n')
        self.models = folder / "models.yaml"

    @property
    def files(self) -> list[str]:
        return sorted(str(path) for path in self.home.rglob("*"))

    def run(self, *arguments: str, writable: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python as a user who can write to the volume, or cannot. In the second case nothing in it has changed."""
        self._let(writable)
        before, paths = self.files, f"{ROOT}/components:{ROOT}/pipelines:{ROOT}"
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": paths,
            "HOME": str(self.own),
            "TMPDIR": str(self.own),
            "XDG_CACHE_HOME": str(self.own / "xdg"),
            "HF_HOME": str(self.home),
        }
        ended = subprocess.run(
            [sys.executable, *arguments],
            env=environment | variables,
            preexec_fn=_obey_permissions,
            capture_output=True,
            text=True,
        )
        self._let(True)
        assert writable or self.files == before
        return ended

    def fetch(self, hub: str, repo: str) -> subprocess.CompletedProcess[str]:
        self.models.write_text(f"models: [{{kind: hub, repo: {repo}, files: [config.json]}}]")
        return self.run("-m", "tamis", "fetch", str(self.models), HF_ENDPOINT=hub)

    def _let(self, write: bool) -> None:
        for folder in (self.home, *(path for path in self.home.rglob("*") if path.is_dir())):
            folder.chmod(0o755 if write else 0o555)


def _obey_permissions() -> None:
    """Root may write everywhere; after the next program starts, no longer. Other users obey anyway."""
    drop, override = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    ctypes.CDLL(None).prctl(drop, override, 0, 0, 0)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def test_data_sets_of_local_files_are_prepared_in_the_pod_s_own_cache(volume: Volume) -> None:
    ended = volume.run("-c", READ.format(data=volume.data))
    assert ended.returncode == 0, ended.stderr
    rows, file = ended.stdout.split()
    assert (rows, Path(file).is_relative_to(volume.own)) == ("2", True)


def test_a_data_set_that_is_prepared_in_the_volume_is_not_prepared_again(volume: Volume) -> None:
    prepared = volume.run("-c", PREPARE.format(data=volume.data), writable=True)
    assert prepared.returncode == 0, prepared.stderr
    ended = volume.run("-c", READ.format(data=volume.data))
    assert ended.returncode == 0, ended.stderr
    rows, file = ended.stdout.split()
    assert (rows, Path(file).is_symlink()) == ("2", True)
    assert Path(file).resolve().is_relative_to(volume.home)


def test_a_data_set_of_the_hub_is_downloaded_into_the_pod_s_own_cache(volume: Volume, hub: str) -> None:
    code = """
from tamis.core.hub_access import use_own_cache, with_datasets
use_own_cache()
from huggingface_hub import hf_hub_download
with with_datasets():
    print(hf_hub_download("tamis/rows", "config.json", repo_type="dataset"))
"""
    ended = volume.run("-c", code, HF_ENDPOINT=hub)
    assert ended.returncode == 0, ended.stderr
    assert Path(ended.stdout.strip()).is_relative_to(volume.own)


def test_a_model_in_the_volume_is_read_from_there(volume: Volume) -> None:
    code = """
from tamis.core.models import load_config, revision_of
print(revision_of("tamis/tiny"), load_config("tamis/tiny").model_type)
"""
    ended = volume.run("-c", code, HF_HUB_OFFLINE="1")
    assert ended.stdout.split() == ["tamis/tiny@main", "llama"], ended.stderr


def test_a_model_that_is_not_in_the_volume_ends_the_step_before_anything_is_loaded(volume: Volume) -> None:
    pool, out = volume.own / "pool", volume.own / "out"
    code = f"""
from pathlib import Path
from tests.artifacts import conversation, make_pool
make_pool(Path({str(pool)!r}), [conversation("a", "b")])
"""
    made = volume.run("-c", code)
    assert made.returncode == 0, made.stderr
    settings = ("--set", "model=tamis/none", "--pool", str(pool), "--out", str(out))
    ended = volume.run("-m", "tamis", "embed", *settings)
    assert (ended.returncode, ended.stderr.count("code:    model")) == (78, 1), ended.stderr
    assert str(volume.home / "hub") in ended.stderr
    assert not out.exists()


def test_fetch_takes_what_is_there_and_refuses_at_once_what_it_cannot_write(volume: Volume, hub: str) -> None:
    there = volume.fetch(hub, "tamis/tiny")
    assert there.returncode == 0, there.stderr
    missing = volume.fetch(hub, "tamis/other")
    assert (missing.returncode, missing.stderr.count("code:    model")) == (78, 1), missing.stderr
    assert _Hub.asked == []


def test_a_cache_that_can_be_written_is_used_as_it_is(volume: Volume) -> None:
    code = """
import json, os
from tamis.core.hub_access import use_own_cache
before = dict(os.environ)
use_own_cache()
print(json.dumps(before == dict(os.environ)))
"""
    assert json.loads(volume.run("-c", code, writable=True).stdout) is True
