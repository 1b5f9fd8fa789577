"""The stages that need a GPU, at the sizes of real runs: speed, memory, and agreement with the CPU.

    python benchmarks/gpu.py --tokenizers build/demo/models            # all parts
    python benchmarks/gpu.py --tokenizers build/demo/models rating     # one of them

No weights are fetched: the models have the shapes of the published ones (Llama-3.1-8B, bge-large) and random weights,
so speed and memory are real and the answers are not. Texts are the docstrings of the installed packages. Each part runs
in a process of its own; a Markdown table goes to benchmarks/results/gpu.md.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib.util
import itertools
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks/results/gpu.md"
LLAMA = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
LLAMA |= {"num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192, "rope_theta": 500000.0}
LLAMA |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
BGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "vocab.txt")


@functools.cache
def docstrings(count: int = 5_000) -> list[str]:
    """Texts of 100 to 6,000 characters, each once, read from the sources of installed packages."""
    texts: dict[str, None] = {}
    for package in ("numpy", "scipy", "pandas", "sklearn", "torch", "transformers", "matplotlib"):
        found = importlib.util.find_spec(package)
        for file in sorted(Path(found.origin).parent.rglob("*.py")) if found and found.origin else []:
            try:
                nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            except (SyntaxError, UnicodeDecodeError):
                continue
            for node in nodes:
                documented = isinstance(node, ast.FunctionDef | ast.ClassDef)
                text = ast.get_docstring(node) if documented else None
                if text and 100 <= len(text) <= 6000:
                    texts[text] = None
            if len(texts) >= count:
                return list(texts)[:count]
    return list(texts)


def conversations(count: int) -> list[list[Any]]:
    """Samples whose responses are docstrings, some of them several times under another instruction."""
    from tests.artifacts import conversation

    texts = itertools.islice(itertools.cycle(docstrings()), count)
    return [conversation(f"{number}: explain {text[:80]}", text) for number, text in enumerate(texts)]


def make_model(kind: str, folder: Path, tokenizers: Path) -> Path:
    """A model with random weights and a real tokenizer, made once."""
    import torch
    import transformers

    if folder.exists():
        return folder
    # Weights are made where they are fast to make, and kept on the disk for all parts.
    with torch.device("cuda"):
        if kind == "bge-large":
            model = transformers.BertModel(transformers.BertConfig(**BGE, dtype=torch.float16)).half()
        else:
            torch.set_default_dtype(torch.bfloat16)
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, tie_word_embeddings=False))
            torch.set_default_dtype(torch.float32)
    partial = folder.with_suffix(".partial")
    model.save_pretrained(partial)
    for name in TOKENIZER_FILES:
        file = tokenizers / ("minilm" if kind == "bge-large" else "smollm2") / name
        if file.exists():
            shutil.copy(file, partial)
    partial.rename(folder)
    return folder


def neighbors(work: Path, tokenizers: Path) -> list[tuple[str, str]]:
    from tamis.neighbors import device, exact, refine
    from tamis.neighbors.vectors import Vectors
    from tests.unit.curation.pools import make_vectors

    gpu, rows = device.gpu(), []
    assert gpu is not None
    for n, d in ((52_000, 384), (300_000, 1024), (1_000_000, 1024)):
        if n > 500_000:  # the generator is slow; random directions cost the search the same
            made = np.random.default_rng(0).standard_normal((n, d), np.float32).astype(np.float16)
        else:
            made = make_vectors(n, d, seed=7)[0].astype(np.float16)
        vectors = Vectors(made)
        every = np.arange(n)
        seconds, (_, found) = timed(
            lambda v=vectors, e=every: device.candidates_among(v, e, e, 40, device.free_memory(gpu), gpu)
        )
        rate = n * n * d * 2 / seconds / 1e12
        refined, (graph, _, _) = timed(lambda v=vectors, f=found, e=every: refine.neighbors_of(v, f, 32, rows=e))
        text = f"{seconds:.1f} s on the GPU ({rate:.0f} TFLOP/s), {refined:.1f} s exact distances on the CPU"
        if n < 100_000:
            slow, (_, candidates) = timed(lambda v=vectors, e=every: exact.candidates_among(v, e, e, 40, 8 << 30))
            same = refine.neighbors_of(vectors, candidates, 32, rows=every)[0]
            text += f"; CPU search {slow:.1f} s; same graph: {bool((graph == same).all())}"
        rows.append((f"{n:,} x {d}", text))
        print(rows[-1], file=sys.stderr)
    return rows


def embedding(work: Path, tokenizers: Path) -> list[tuple[str, str]]:
    from transformers import AutoTokenizer

    from tamis.core.artifacts import Artifact
    from tamis.core.samples import as_text
    from tamis.embedding.settings import EmbeddingSettings
    from tamis.embedding.stage import run
    from tests.artifacts import make_pool

    model = make_model("bge-large", work / "bge-large", tokenizers)
    pool = make_pool(work / "pool-20000", conversations(20_000))
    texts = [as_text(messages) for messages in Artifact.open(pool, "pool").table(["messages"])["messages"].to_pylist()]
    encoded = AutoTokenizer.from_pretrained(model)(texts, truncation=True, max_length=512)["input_ids"]
    tokens, rows = sum(map(len, encoded)), []
    for batch in (64, 256):
        settings = EmbeddingSettings(model=str(model), batch_size=batch)
        seconds, _ = timed(lambda s=settings, b=batch: run(s, pool=pool, out=work / f"embeddings-{b}"))
        flops = 2 * 302e6 * tokens / seconds / 1e12
        speed = f"{len(texts) / seconds:,.0f} samples/s, {tokens / seconds:,.0f} tokens/s, {flops:.0f} TFLOP/s"
        rows.append(
            (f"bge-large, {len(texts):,} samples, batches of {batch}", f"{seconds:.1f} s with loading; {speed}")
        )
    return rows


def rating(work: Path, tokenizers: Path) -> list[tuple[str, str]]:
    from tamis.rating.settings import RatingSettings
    from tamis.rating.stage import run
    from tests.artifacts import make_pool

    model = make_model("llama-8b", work / "llama-8b", tokenizers)
    pool, rows = make_pool(work / "pool-2000", conversations(2_000)), []
    for tokens in (4096, 32768):
        settings = RatingSettings.model_validate(
            {"name": f"r{tokens}", "backend": {"kind": "transformers", "model": str(model), "batch_tokens": tokens}}
        )
        seconds, manifest = timed(lambda s=settings: run(s, pool=pool, out=work / s.name))
        read = sum(manifest.facts[name] for name in ("prompt_tokens", "completion_tokens") if name in manifest.facts)
        rows.append(
            (f"Llama-3.1-8B, 2,000 samples, batch_tokens {tokens}", f"{seconds:.1f} s with loading; {read:,} tokens; "
             f"{manifest.facts.get('status', '')}")
        )  # fmt: skip
    return rows


def scoring(work: Path, tokenizers: Path) -> list[tuple[str, str]]:
    from tamis.scoring.settings import ScoringSettings
    from tamis.scoring.stage import run
    from tests.artifacts import make_pool

    model = make_model("llama-8b", work / "llama-8b", tokenizers)
    pool, rows = make_pool(work / "pool-5000", conversations(5_000)), []
    for tokens in (4096, 32768):
        settings = ScoringSettings.model_validate(
            {"measure": {"kind": "perplexity", "model": str(model)}, "batch_tokens": tokens}
        )
        seconds, _ = timed(lambda s=settings, t=tokens: run(s, pool=pool, out=work / f"perplexity-{t}"))
        rows.append(
            (f"perplexity, Llama-3.1-8B, 5,000 samples, batch_tokens {tokens}", f"{seconds:.1f} s with loading")
        )
    return rows


def influence(work: Path, tokenizers: Path) -> list[tuple[str, str]]:
    import torch

    from tamis.core.causal import by_length
    from tamis.core.conversations import Encoder, chat_tokenizer
    from tamis.influence.gradients import Gradients, Moments
    from tamis.influence.projection import projection_named
    from tamis.influence.settings import InfluenceSettings
    from tamis.influence.warmup import lora_model

    model = str(make_model("llama-8b", work / "llama-8b", tokenizers))
    settings = InfluenceSettings.model_validate({"model": model, "tasks": [{"name": "t", "path": "t"}]})
    encoder = Encoder(chat_tokenizer(model, None, settings.format), settings.max_tokens)
    samples = [encoder.encode(messages) for messages in conversations(256)]
    network = lora_model(settings)
    weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    state = {name: weight.detach().abs() + 1e-6 for name, weight in weights.items()}
    lengths, rows = [len(sample.input_ids) for sample in samples], []
    what = f"{np.mean(lengths):.0f} tokens, {sum(weight.numel() for weight in weights.values()):,} LoRA weights"
    for projection, tokens, count in (("sketch", 1, 64), ("sketch", 4096, 256), ("sketch", 16384, 256),
                                      ("rademacher", 16384, 64)):  # fmt: skip
        gradients = Gradients(network, projection_named(projection, settings.dimensions, 0), settings.dimensions)
        gradients.of(samples[:1], Moments(state, state))

        def all_of_them(gradients: Any = gradients, tokens: int = tokens, count: int = count) -> None:
            for group in by_length(lengths[:count], tokens):
                gradients.of([samples[place] for place in group], Moments(state, state))
            torch.cuda.synchronize()

        seconds, _ = timed(all_of_them)
        how = "one by one" if tokens == 1 else f"batches of {tokens} tokens"
        rows.append((f"LESS, Llama-3.1-8B, {what}, {projection}, {how}", f"{count / seconds:.1f} samples/s"))
        print(rows[-1], file=sys.stderr)
    return rows


def finetuning(work: Path, tokenizers: Path) -> list[tuple[str, str]]:
    from tamis.finetuning.settings import FinetuningSettings
    from tamis.finetuning.stage import run
    from tests.artifacts import make_selection

    model = make_model("llama-8b", work / "llama-8b", tokenizers)
    subset = make_selection(work / "subset", conversations(512))
    rows = []
    for name, options in (
        ("LoRA", {}),
        ("LoRA, ZeRO-2", {"deepspeed": "zero2"}),
        ("LoRA, ZeRO-3", {"deepspeed": "zero3"}),
    ):
        settings = FinetuningSettings.model_validate(
            {"model": str(model), "epochs": 1, "batch_size": 64, "micro_batch_size": 4, **options}
        )
        out = work / name.replace(", ", "-")
        seconds, manifest = timed(lambda s=settings, o=out: run(s, selection=subset, out=o))
        rows.append(
            (f"{name}, Llama-3.1-8B, 512 samples", f"{seconds:.1f} s in all; {json.dumps(manifest.facts)[:400]}")
        )
        shutil.rmtree(out)
    return rows


PARTS: dict[str, Callable[[Path, Path], list[tuple[str, str]]]] = {
    "neighbors": neighbors,
    "embedding": embedding,
    "rating": rating,
    "scoring": scoring,
    "influence": influence,
    "finetuning": finetuning,
}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def one(part: str, work: Path, tokenizers: Path) -> None:
    """Run a part and print its rows, as JSON, on the last line."""
    import torch

    seconds, rows = timed(lambda: PARTS[part](work, tokenizers))
    peak = torch.cuda.max_memory_allocated() / 2**30
    print(json.dumps([*rows, ("all of it", f"{seconds:.0f} s, at most {peak:.1f} GiB of the GPU's memory")]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is given")
    parser.add_argument("--tokenizers", type=Path, required=True, help="folder with smollm2/ and minilm/")
    parser.add_argument("--work", type=Path, help="folder for models and artifacts; a temporary one if not given")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part is called '{unknown[0]}'; allowed: {', '.join(PARTS)}")
    if given.one:
        one(given.parts[0], given.work, given.tokenizers)
        return
    import torch

    if not torch.cuda.is_available():
        sys.exit("this benchmark needs a GPU: torch sees none")
    lines = ["# Stages on a GPU", "", f"{torch.cuda.get_device_name()}, torch {torch.__version__}, "
             f"{platform.machine()}. Models have published shapes and random weights."]  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for part in given.parts or PARTS:
            command = [sys.executable, __file__, part, "--one", "--work", work, "--tokenizers", given.tokenizers]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            rows = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else [["failed", "see the log"]]
            lines += ["", f"## {part}", "", "| what | measured |", "| --- | --- |"]
            lines += [f"| {what} | {figure} |" for what, figure in rows]
            print("\n".join(lines), flush=True)
            RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
