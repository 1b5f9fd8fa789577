"""Speed and memory of the selection strategies, and what they choose of rated data.

    python benchmarks/selection.py                # 52,002 x 384, all strategies
    python benchmarks/selection.py --large        # 300,000 x 1,024 too: knn, deita, ds2
    python benchmarks/selection.py --quick        # a look, in seconds; the results file is not written
    python benchmarks/selection.py --less MODEL   # speed of LESS's gradients, many at once against one by one
    python benchmarks/selection.py --rated WORK ALPACA_52002.parquet   # ds2 and ds2-raw on a finished run's artifacts

Prints Markdown tables and writes them to benchmarks/results/selection.md, section by section. Each strategy is run
by the command `tamis select` in a process of its own, on artifacts on disk, so its peak memory is its own. The vectors
lie in clusters, all of them in one half of the space as encoders' vectors do (cosines of 0.45 to 0.99 inside a cluster,
of 0.3 to 0.65 between two); the graph holds the neighbours inside them. Scores are random.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tamis.core.tables import CURATION, IDS, POOL, SCORES, PartsWriter  # noqa: E402
from tests.artifacts import make  # noqa: E402

RESULTS = ROOT / "benchmarks/results/selection.md"
NEIGHBORS, BLOCK = 10, 50_000
STRATEGIES = [
    ("full", ""), ("random", ""), ("length", ""), ("perplexity", ""), ("knn", ""), ("less", ""), ("alpagasus", ""),
    ("alpagasus", "ds2-paper"), ("deita", ""), ("deita", "ds2-paper"), ("ds2-raw", ""), ("ds2", ""),
]  # fmt: skip
SCORED = ("perplexity", "deita", "less")


def write_artifacts(folder: Path, n: int, d: int, seed: int = 7) -> None:
    """A pool of `n` samples with all that any strategy reads."""
    draw = np.random.default_rng(seed)
    ids = pa.array([f"{number * 2654435761 % 2**64:032x}" for number in range(n)])
    vectors, distances = folder / "vectors.npy", folder / "distances.npy"
    write_vectors(vectors, distances, n, d, draw)

    def pool(step: Any) -> None:
        with PartsWriter(step.out, POOL) as parts:
            for start in range(0, n, BLOCK):
                here = ids.slice(start, BLOCK)
                lengths = draw.lognormal(5, 1, len(here)).astype(int) + 1
                messages = [
                    [
                        {"role": "user", "content": f"Question {start + i}?"},
                        {"role": "assistant", "content": "a" * length},
                    ]
                    for i, length in enumerate(lengths.tolist())
                ]
                origin = np.arange(start, start + len(here))
                columns = {"id": here, "source": ["s"] * len(here), "messages": messages, "origin": origin}
                columns |= {name: pa.nulls(len(here), pa.string()) for name in ("metadata", "tools")}
                parts.write(pa.table(columns, schema=POOL))
        step.rows = n

    def embeddings(step: Any) -> None:
        vectors.rename(step.out / "vectors.npy")
        pq.write_table(pa.table({"id": ids}, schema=IDS), step.out / "ids.parquet")
        step.rows = n

    def neighbors(step: Any) -> None:
        distances.rename(step.out / "distances.npy")
        pq.write_table(pa.table({"id": ids}, schema=IDS), step.out / "ids.parquet")
        step.rows = n

    def curation(step: Any) -> None:
        table = {name: pa.nulls(n, field.type) for name, field in zip(CURATION.names, CURATION, strict=True)}
        table |= {"id": ids, "rater": ["r"] * n, "flagged": np.zeros(n, bool)}
        table |= {name: draw.choice(6, n, p=[0.06, 0.15, 0.29, 0.29, 0.2, 0.01]) for name in ("raw_score", "score")}
        table["diversity"] = draw.random(n)
        with PartsWriter(step.out, CURATION) as parts:
            parts.write(pa.table(table).cast(CURATION))
        step.rows = n

    make("pool", folder / "pool", pool)
    make("embeddings", folder / "embeddings", embeddings)
    make("neighbors", folder / "neighbors", neighbors)
    make("curation", folder / "curation", curation)
    for name in SCORED:

        def scores(step: Any) -> None:
            schema = pa.schema([*SCORES, pa.field("tasks", pa.list_(pa.float32()))])
            columns = {"id": ids, "score": draw.normal(10, 4, n), "status": ["ok"] * n, "tasks": [[0.0]] * n}
            with PartsWriter(step.out, schema) as parts:
                parts.write(pa.table(columns).cast(schema))
            step.rows = n
            step.facts["tasks"] = ["all"]

        make("scores", folder / name, scores, name=name)


def write_vectors(vectors: Path, distances: Path, n: int, d: int, draw: np.random.Generator) -> None:
    """Clustered unit vectors, and each one's distances to its nearest ones in its cluster, in shuffled rows."""
    sizes = np.maximum(NEIGHBORS + 1, draw.lognormal(np.log(20) - 0.18, 0.6, n // NEIGHBORS).astype(int))
    ends = np.cumsum(sizes)
    ends = np.append(ends[ends < n - NEIGHBORS], n)
    places = draw.permutation(n)
    out = np.lib.format.open_memmap(vectors, "w+", np.float16, (n, d))
    near = np.lib.format.open_memmap(distances, "w+", np.float32, (n, NEIGHBORS))
    common = draw.standard_normal(d, np.float32)
    common /= np.linalg.norm(common)
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        center = draw.standard_normal(d, np.float32)
        center = 0.8 * common + 0.6 * center / np.linalg.norm(center)
        members = center + draw.uniform(0.1, 1.1) * draw.standard_normal((end - start, d), np.float32) / np.sqrt(d)
        members /= np.linalg.norm(members, axis=1, keepdims=True)
        out[places[start:end]] = members
        apart = np.sort(1 - members @ members.T, axis=1)[:, 1 : NEIGHBORS + 1]
        near[places[start:end]] = np.maximum(apart, 0)


def select(folder: Path, strategy: str, variant: str, size: int) -> dict[str, Any]:
    """Run `tamis select`; the manifest of the subset."""
    name = f"{strategy}-{variant}-{size}"
    command = [sys.executable, "-m", "tamis", "select", "--out", str(folder / "out" / name)]
    for given in ("pool", "curation", "neighbors", "embeddings"):
        command += [f"--{given}", str(folder / given)]
    for given in SCORED:
        command += ["--scores", str(folder / given)]
    values = {"name": name, "strategy": strategy} | ({"size": size} if strategy != "full" else {})
    for key, value in (values | ({"variant": variant} if variant else {})).items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    manifest: dict[str, Any] = json.loads((folder / "out" / name / "manifest.json").read_text())
    return manifest


def speed(n: int, d: int, runs: list[tuple[str, str, int]]) -> str:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # By a process of its own: a child's peak memory begins with what its parent holds.
        subprocess.run([sys.executable, __file__, "--write", f"{folder},{n},{d}"], check=True)
        for strategy, variant, size in runs:
            done = select(folder, strategy, variant, size)
            execution = done["execution"]
            named = strategy + (f" ({variant})" if variant else "")
            rows.append(
                [named, f"{done['rows']:,}", f"{execution['seconds']:.1f}", f"{execution['peak_memory_bytes'] >> 20:,}"]
            )
    head = ["strategy", "picked", "seconds", "peak MiB"]
    return f"## {n:,} x {d:,}\n\n" + table(head, rows)


def less(model: str) -> str:
    """Samples per second of LESS's projected Adam steps: batches by length against one sample at a time."""
    from tamis.core.causal import by_length
    from tamis.core.conversations import Encoder, chat_tokenizer
    from tamis.influence.gradients import Gradients, Moments
    from tamis.influence.projection import projection_named
    from tamis.influence.settings import InfluenceSettings
    from tamis.influence.warmup import lora_model
    from tests.artifacts import conversation

    warmup = {"rank": 8, "alpha": 32}
    settings = InfluenceSettings.model_validate(
        {"model": model, "format": "chat", "warmup": warmup, "tasks": [{"name": "t", "path": "t"}]}
    )
    encoder = Encoder(chat_tokenizer(model, None, "chat"), 2048)
    draw = np.random.default_rng(0)
    samples = [
        encoder.encode(conversation(f"Tell me about number {i}.", "It is a number. " * int(draw.integers(1, 16))))
        for i in range(48)
    ]
    lengths = [len(sample.input_ids) for sample in samples]
    network = lora_model(settings)
    weights = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
    state = {name: weight.detach().abs() + 1e-6 for name, weight in weights.items()}
    moments = Moments(state, state)
    count = sum(weight.numel() for weight in weights.values())
    gradients = Gradients(network, projection_named("sketch", settings.dimensions, 0), settings.dimensions)
    gradients.of([samples[0]], moments)
    rates = []
    for tokens in (1, settings.batch_tokens):
        groups = by_length(lengths, tokens)
        start = time.perf_counter()
        for group in groups:
            gradients.of([samples[place] for place in group], moments)
        rates.append(len(samples) / (time.perf_counter() - start))
    rows = [[f"{rates[0]:.2f}", f"{rates[1]:.2f}", f"{rates[1] / rates[0]:.1f}"]]
    head = ["one by one, samples/s", "together, samples/s", "times"]
    return (
        f"## LESS: gradients of 48 samples of {np.mean(lengths):.0f} tokens on average, {count:,} LoRA weights, "
        f"sketch of {settings.dimensions:,} dimensions\n\n" + table(head, rows)
    )


def rated(work: Path, source: Path) -> str:
    """ds2 and ds2-raw for each rater of a finished run on the 52,002 rated Alpaca samples, beside others' picks."""
    from dataclasses import replace

    from tamis.core.artifacts import Artifact
    from tamis.selection.choose import choose
    from tamis.selection.reading import raters_of, read_curation, read_pool

    pool = Artifact.open(work / "pool", "pool")
    curation = Artifact.open(work / "curation", "curation")
    candidates = read_pool(pool)
    origin = pool.table(["origin"])["origin"].to_numpy()
    flags = pq.read_table(source, columns=["flags"])["flags"].take(pa.array(origin)).to_pylist()
    names = sorted({name for row in flags for name in row})
    others = {name: np.array([name in row for row in flags]) for name in names}
    size, parts = 9_000, []
    counts, overlaps = [], []
    for rater in raters_of(curation):
        found, _ = read_curation(curation, rater, ["raw_scores", "scores", "diversity"], candidates.ids)
        known = replace(candidates, **found)  # type: ignore[arg-type]
        raw, score = found["raw_scores"], found["scores"]
        per_class = [f"{(raw == c).sum():,} -> {(score == c).sum():,}" for c in range(6)]
        counts.append([rater, f"{(raw != score).sum():,}", *per_class])
        picks = {}
        for strategy in ("ds2", "ds2-raw"):
            picks[strategy] = np.zeros(len(candidates), bool)
            picks[strategy][choose(strategy, known, size, seed=42).rows] = True
        shared = int((picks["ds2"] & picks["ds2-raw"]).sum())
        counts[-1] += [f"{shared:,} ({shared / (2 * size - shared):.2f})"]
        for strategy, picked in picks.items():
            shares = [f"{100 * picked[mask].mean():.1f}" for mask in others.values()]
            overlaps.append([rater, strategy, *shares])
    base = 100 * size / len(candidates)
    head = ["rater", "corrected", *(f"class {c}" for c in range(6)), "ds2 and ds2-raw share (Jaccard)"]
    parts.append(
        f"## ds2 on {len(candidates):,} rated Alpaca samples, {size:,} picked\n\nSamples per score class before and "
        "after curation, and how many picks the two strategies share.\n\n" + table(head, counts)
    )
    head = ["rater", "strategy", *(f"{name} ({mask.sum():,})" for name, mask in others.items())]
    parts.append(
        f"Percent of other works' picks that are among ours; a random subset would have {base:.1f}.\n\n"
        + table(head, overlaps)
    )
    return "\n\n".join(parts)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def sections(options: argparse.Namespace) -> Iterator[str]:
    if options.less:
        yield less(options.less)
    elif options.rated:
        yield rated(Path(options.rated[0]), Path(options.rated[1]))
    elif options.quick:
        yield speed(3_000, 64, [(*one, 500) for one in STRATEGIES])
    else:
        yield speed(52_002, 384, [(*one, 10_000) for one in STRATEGIES])
        if options.large:
            sizes = [("knn", "", 10_000), ("deita", "", 10_000), ("deita", "", 40_000), ("deita", "ds2-paper", 10_000)]
            yield speed(300_000, 1_024, [*sizes, ("ds2", "", 10_000)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="300,000 x 1,024 too")
    parser.add_argument("--quick", action="store_true", help="a small pool; the results file is not written")
    parser.add_argument("--less", metavar="MODEL", help="speed of LESS's gradients on this model")
    parser.add_argument("--rated", nargs=2, metavar=("WORK", "TABLE"), help="a run's folder, and the rated table")
    parser.add_argument("--note", default="", help="a remark that goes with the figures")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        folder, n, d = options.write.rsplit(",", 2)
        write_artifacts(Path(folder), int(n), int(d))
        return
    head = f"# Selection\n\n{os.cpu_count()} cores, {platform.machine()}, numpy {np.__version__}."
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else head
    kept = {part.splitlines()[0]: part.strip() for part in old.split("\n## ")[1:]}
    for section in sections(options):
        if options.note:
            section += f"\n\n{options.note}"
        print(section)
        kept[section.splitlines()[0].removeprefix("## ")] = section.removeprefix("## ")
    if not options.quick:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text("\n\n## ".join([head, *kept.values()]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
