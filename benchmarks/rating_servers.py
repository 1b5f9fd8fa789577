"""Servers for `rating_engines.py`, and a bare client to compare with."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from rating_pools import requests_of  # noqa: E402

from tamis.rating.backends import make_backend  # noqa: E402
from tamis.rating.prompts import load_prompt  # noqa: E402
from tamis.rating.settings import RatingSettings  # noqa: E402
from tests.llm_server import Reaction, Server, completion  # noqa: E402

ENGINE = {"dtype": "float32", "max_num_seqs": 128, "max_num_batched_tokens": 2048, "max_model_len": 1024}
ENGINE |= {"enforce_eager": True}  # no compiling, which takes minutes on a CPU
ENGINE |= {"block_size": 32}  # of the cache of prompts; a CPU's own 128 fits the shared part less well


def answer_at_once(link: Connection) -> None:
    """A server without a model; tells its address, and ends with its process."""
    with Server(lambda asked: Reaction(completion())) as made:
        link.send(made.url)
        link.recv()


@contextlib.contextmanager
def instant_server(model: str, log: Path) -> Iterator[str]:
    """A server without a model as a process of its own; its address."""
    spawn = multiprocessing.get_context("spawn")
    link, theirs = spawn.Pipe()
    process = spawn.Process(target=answer_at_once, args=(theirs,), daemon=True)
    process.start()
    yield link.recv().removesuffix("/v1")
    process.kill()
    process.join()


@contextlib.contextmanager
def vllm_server(model: str, log: Path) -> Iterator[str]:
    """vLLM's server as a process of its own; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--served-model-name", "m"]
    command += ["--port", str(port), "--disable-uvicorn-access-log"]
    command += [
        "--structured-outputs-config",
        '{"backend": "xgrammar", "disable_any_whitespace": true}',
    ]  # else weak models write blanks only
    for key, value in ENGINE.items():
        command += [f"--{key.replace('_', '-')}", *([] if value is True else [str(value)])]
    environment = os.environ | {"VLLM_SERVER_DEV_MODE": "1"}  # has the path that empties the cache of prompts
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        address = f"http://127.0.0.1:{port}"
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            if process.poll() is not None:
                raise SystemExit(f"the server ended:\n{log.read_text()[-3000:]}")
            time.sleep(1)
        yield address
    finally:
        process.terminate()
        process.wait()


class Bare:
    """A client that keeps as many requests under way as it may, sends what Tamis would send, and keeps nothing.

    By aiohttp, as Tamis sends, or by the package's default.
    """

    def __init__(self, settings: RatingSettings, concurrency: int, *, aiohttp: bool = False) -> None:
        self._settings, self._concurrency, self._aiohttp = settings, concurrency, aiohttp
        self._backend: Any = make_backend(settings, load_prompt(settings.prompt))

    def __call__(self, pool: Path) -> float:
        bodies = []
        for request in requests_of(pool):
            job = self._backend._job(request)
            bodies.append(self._backend.body(request, job.text))
        start = time.monotonic()
        asyncio.run(self._ask(bodies))
        return time.monotonic() - start

    async def _ask(self, bodies: list[dict[str, Any]]) -> None:
        import httpx2
        import openai

        backend: Any = self._settings.backend
        left = iter(bodies)
        options: dict[str, Any] = {"api_key": "none", "base_url": backend.base_url, "max_retries": 0, "timeout": 1800}
        if self._aiohttp:
            most = httpx2.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency)
            options["http_client"] = openai.DefaultAioHttpClient(limits=most, timeout=1800)
        async with openai.AsyncOpenAI(**options) as client:

            async def work() -> None:
                for body in left:
                    await client.chat.completions.create(model=backend.model, **body)

            await asyncio.gather(*(work() for _ in range(self._concurrency)))
