"""Fixtures shared by the tests of several folders."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="tamis-tests-")  # for fixtures that outlive a test
if "PYTEST_XDIST_WORKER" in os.environ:  # as many test processes as cores: one thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell makes its background processes ignore Ctrl-C, and child processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from hypothesis import settings

from tests.artifacts import conversation, make_pool

pytest_plugins = ["tests.skipping", "tests.tiers"]
atexit.register(shutil.rmtree, os.environ["XDG_DATA_HOME"], ignore_errors=True)
settings.register_profile("tamis", deadline=None)  # a slow test on a busy machine has not failed
settings.load_profile("tamis")

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Let one test process at a time create what all of them share in `build/`."""
    (ROOT / "build").mkdir(exist_ok=True)
    with open(ROOT / "build" / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give every test a separate store, so that none finds another one's answers."""
    monkeypatch.delenv("TAMIS_HOME", raising=False)
    monkeypatch.delenv("TAMIS_STORE", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="session")
def models() -> Path:
    """Folder with the demo's real models, `smollm2` and `minilm`; made once and kept in `build/`."""
    folder = ROOT / "build" / "demo"
    command = [sys.executable, "-W", "ignore", "-m", "tamis", "demo", folder, "--prepare", "models"]
    with one_at_a_time("models"):
        subprocess.run(command, check=True)
    return folder / "models"


@pytest.fixture(scope="session")
def tiny(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers and random weights, with the real model's tokenizer.

    For what does not depend on a model's knowledge.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(models / "smollm2").save_pretrained(folder)
    return folder


@pytest.fixture
def small_pool(tmp_path: Path) -> Path:
    """A finished pool of six short samples."""
    subjects = ("the Moon", "copper", "bread", "the Nile", "owls", "glass")
    samples = [conversation(f"Tell me one fact about {s}.", f"A fact about {s}: it is well known.") for s in subjects]
    return make_pool(tmp_path / "pool", samples)


def shared_data(*parts: str) -> Path:
    """A file of real data, in the folder that `TAMIS_TEST_DATA` names.

    Tests that need it skip elsewhere.
    """
    folder = os.environ.get("TAMIS_TEST_DATA")
    if not folder:
        pytest.skip("TAMIS_TEST_DATA names no folder with real data")
    path = Path(folder, *parts)
    if not path.exists():
        pytest.skip(f"no {'/'.join(parts)} in TAMIS_TEST_DATA")
    return path
