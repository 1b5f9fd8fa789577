"""Small runs of every stage, each on inputs that are made here, so that a change in one stage moves its own cases only.

A case gets an empty folder and returns the manifest of the artifact that it has written to `folder / "out"`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.samples import Message
from tamis.core.settings import parse
from tamis.core.steps import Step
from tamis.core.tables import SCORES, PartsWriter
from tests import artifacts
from tests.artifacts import NoSettings, conversation

COUNT = 24
_SUBJECTS = ("the Moon", "copper", "bread", "the Nile", "owls", "glass", "a fugue", "compost")
_ASKED = ("What is {}?", "Tell me one fact about {}.", "Why does {} matter?")
_ANSWERED = ("{} is well known. ", "People often misjudge {}. ", "In short, {} rewards patience. ")


def _sample(i: int) -> list[Message]:
    """One turn or two; some samples have a system turn, and one is long."""
    subject, other = _SUBJECTS[i % 8], _SUBJECTS[(i + 3) % 8]
    turns = [_ASKED[i % 3].format(subject), _ANSWERED[i % 3].format(subject) * (40 if i == 6 else 1 + i % 4)]
    if i % 3 == 2:
        turns += [f"And {other}?", _ANSWERED[(i + 1) % 3].format(other)]
    system = [Message(role="system", content=f"Be brief on {subject}.")] if i % 4 == 3 else []
    return system + conversation(*turns)


SAMPLES: list[list[Message]] = [_sample(i) for i in range(COUNT)]
TASK = [
    {"prompt": "What is 20 + 5?", "completion": "20 + 5 = 25", "subtask": "small"},
    {"prompt": "What is 700 + 1?", "completion": "700 + 1 = 701", "subtask": "large"},
]


@dataclass(frozen=True)
class Models:
    """Folders of the models that the cases use: an encoder, SmolLM2, and a Llama of two layers with random weights."""

    minilm: str
    smollm2: str
    tiny: str


Case = Callable[[Path, Models], Manifest]
CASES: dict[str, dict[str, Case]] = {}
# The paper's estimate of T is a minimum that many steps of a gradient descent approach. On another processor it differs
# enough to change about one of a hundred corrections.
CHAOTIC = {("curation", "the paper's rounds"), ("curation", "the paper's code")}


def case(stage: str, name: str, **values: Any) -> Callable[[Callable[..., Manifest]], Callable[..., Manifest]]:
    """Makes the function the case `name` of `stage`, called with `values`; may be used several times."""

    def add(function: Callable[..., Manifest]) -> Callable[..., Manifest]:
        CASES.setdefault(stage, {})[name] = partial(function, **values)
        return function

    return add


def _lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _pool(folder: Path, count: int = COUNT) -> Path:
    metadata = [{"key": f"k{i}", "grade": 1 + i % 10} for i in range(count)]
    sources = ["first" if i % 3 else "second" for i in range(count)]
    return artifacts.make_pool(folder / "pool", SAMPLES[:count], source=sources, metadata=metadata)


def _ids(pool: Path) -> list[str]:
    ids: list[str] = Artifact.open(pool, "pool").table(["id"])["id"].to_pylist()
    return ids


@case("pool", "files of every kind, with rejects and duplicates")
@case("pool", "a draw", drawn={"limit": 6, "seed": 3})
def _pool_of_files(folder: Path, _: Models, drawn: dict[str, Any] | None = None) -> Manifest:
    from tamis.pool.settings import PoolSettings
    from tamis.pool.stage import run

    alpaca = [
        {"instruction": f"Name {n} metals.", "input": "" if n % 2 else "in Latin", "output": "Cuprum. " * n, "q": n}
        | {"role": "Be exact." if n == 4 else ""}
        for n in range(1, 9)
    ]
    turns = [[{"from": "human", "value": f"Hi {n}"}, {"from": "gpt", "value": "Hello."}] for n in range(4)]
    chats = [{"conversations": both} for both in turns]
    plain = pa.table({"prompt": ["One?", "Two?", "", "One?"], "completion": ["1.", "2.", "x", "1."]})
    pq.write_table(plain, folder / "plain.parquet")
    sources: list[dict[str, Any]] = [
        {"name": "alpaca", "path": _lines(folder / "alpaca.jsonl", alpaca), "keep": ["q"], "fields": {"system": "role"}}
        | (drawn or {}),
        {"name": "chats", "path": _lines(folder / "chats.jsonl", chats)},
        {"name": "plain", "path": str(folder / "plain.parquet")},
    ]
    settings = parse(PoolSettings, {"sources": sources, "max_reject_share": 0.5}, where="golden")
    return run(settings, out=folder / "out")


@case("embedding", "both turns")
@case("embedding", "questions alone, few tokens", text="instruction", max_tokens=16)
def _embedding(folder: Path, models: Models, **values: Any) -> Manifest:
    from tamis.embedding.settings import EmbeddingSettings
    from tamis.embedding.stage import run

    settings = parse(EmbeddingSettings, {"model": models.minilm} | values, where="golden")
    return run(settings, pool=_pool(folder), out=folder / "out")


@case("pool", "CSV, arrays of JSON, layouts by name, a condition")
def _pool_of_other_layouts(folder: Path, _: Models) -> Manifest:
    from tamis.pool.settings import PoolSettings
    from tamis.pool.stage import run

    table = [
        "frage,antwort,lang",
        '"What is, say, tin?","A ""metal"".",en',
        "Was ist Zinn?,Ein Metall.,de",
        "",
        "Lead?,Pb,en",
    ]
    (folder / "table.csv").write_text("\ufeff" + "\n".join([*table, ""]), encoding="utf-8")
    turns = [{"role": "system", "content": "Be kind."}, *map(dict, conversation("Hi?", "Hello.", "And you?", "Fine."))]
    chats = [{"messages": turns}, {"messages": turns[1:3], "note": 7}, {"messages": [turns[1]]}, {"messages": []}]
    (folder / "chats.json").write_text(json.dumps(chats), encoding="utf-8")
    histories = [
        {
            "instruction": "Go on.",
            "input": "",
            "output": f"Step {n}.",
            "history": [["Start.", "Step 0."]] * (n % 3 == 1),
        }
        for n in range(1, 9)
    ]
    sources: list[dict[str, Any]] = [
        {"name": "table", "path": str(folder / "table.csv"), "where": {"lang": "en"}, "keep": ["lang"]}
        | {"schema": "prompt_completion", "fields": {"prompt": "frage", "completion": "antwort"}},
        {"name": "chats", "path": str(folder / "chats.json"), "schema": "messages"},
        {
            "name": "histories",
            "path": _lines(folder / "histories.jsonl", histories),
            "schema": "instruction",
            "limit": 5,
        },
    ]
    shares = {"max_reject_share": 0.6, "max_lost_share": 0.9}
    return run(parse(PoolSettings, {"sources": sources} | shares, where="golden"), out=folder / "out")


@case("embedding", "beginnings that many texts share", shared_beginnings="leave_out")
@case("embedding", "such beginnings kept", shared_beginnings="keep")
def _embedding_of_long_beginnings(folder: Path, models: Models, **values: Any) -> Manifest:
    from tamis.embedding.settings import EmbeddingSettings
    from tamis.embedding.stage import run

    rules = "You are a careful assistant. Answer in one sentence, and say when you do not know. " * 6
    system = [Message(role="system", content=rules)]
    pool = artifacts.make_pool(folder / "pool", [system + conversation(f"Why {n}?", f"For {n}.") for n in range(COUNT)])
    settings = parse(EmbeddingSettings, {"model": models.minilm, "max_tokens": 128} | values, where="golden")
    return run(settings, pool=pool, out=folder / "out")


def _vectors(count: int, width: int = 16) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, width)).astype(np.float32)


@case("nearcopies", "conversations, the first kept", threshold=0.6)
@case("nearcopies", "instructions, the longest kept", threshold=0.6, text="instruction", keep="longest", ngram=3)
def _near_copies(folder: Path, _: Models, **values: Any) -> Manifest:
    from tamis.nearcopies.settings import NearCopiesSettings
    from tamis.nearcopies.stage import run

    return run(NearCopiesSettings(**values), samples=artifacts.make_pool(folder / "pool", SAMPLES), out=folder / "out")


@case("signals", "all, with tokens")
def _signals(folder: Path, models: Models) -> Manifest:
    from tamis.signals.settings import DescribeSettings
    from tamis.signals.stage import run

    return run(DescribeSettings(tokenizer=models.smollm2), pool=_pool(folder), out=folder / "out")


@case("neighbors", "exact", k=8)
@case("neighbors", "approximate", k=8, method="approximate")
def _neighbors(folder: Path, _: Models, **values: Any) -> Manifest:
    from tamis.neighbors.settings import NeighborsSettings
    from tamis.neighbors.stage import run

    embeddings = artifacts.make_embeddings(folder / "embeddings", [f"{i:032x}" for i in range(200)], _vectors(200))
    return run(NeighborsSettings(**values), embeddings=embeddings, out=folder / "out")


@case("neighbors", "of two parts")
def _neighbors_of_parts(folder: Path, _: Models) -> Manifest:
    from tamis.neighbors.settings import NeighborsSettings
    from tamis.neighbors.stage import run

    embeddings = artifacts.make_embeddings(folder / "embeddings", [f"{i:032x}" for i in range(200)], _vectors(200))
    parts = [folder / "part1", folder / "part2"]
    for number, part in enumerate(parts, 1):
        run(NeighborsSettings(k=6, shard=f"{number}/2"), embeddings=embeddings, out=part)
    return run(NeighborsSettings(k=6), embeddings=embeddings, parts=parts, out=folder / "out")


@case("rating", "imported", kind="import", backend={"scale": {"lowest": 0, "highest": 4}})
@case("rating", "imported classes", kind="import", backend={"scale": "classes"})
@case("rating", "a model in this process", kind="transformers")
@case("rating", "a model that draws from few", kind="transformers", temperature=1.5, top_p=0.5, top_k=20, seed=3)
@case("rating", "a service that is asked in words", kind="openai", backend={"structured": "none", "logprobs": False})
@case("rating", "a model that draws", kind="transformers", temperature=1.5)
@case("rating", "a service", kind="openai")
@case("rating", "a service, a part, long samples shortened", kind="openai", sample=5, backend={"max_sample_tokens": 64})
def _rating(folder: Path, models: Models, kind: str, backend: dict[str, Any] | None = None, **values: Any) -> Manifest:
    from tamis.rating.settings import RatingSettings
    from tamis.rating.stage import run
    from tests.llm_server import Asked, Reaction, Server, completion

    def behave(asked: Asked) -> Reaction:
        n = len(asked.body["messages"][-1]["content"]) + asked.body["messages"][-1]["content"].count("the")
        scores = {"Rarity": 1 + n % 10, "Complexity": 1 + n % 7, "Informativeness": 5, "Overall rating": 1 + n % 9}
        return Reaction(completion(f"Here it is:\n```json\n{json.dumps(scores)}\n```"))

    pool = _pool(folder, 8)
    with Server(behave) as server:
        given: dict[str, Any] = {"kind": kind}
        if kind == "import":
            rows = [{"key": f"k{i}", "overall": i % 5} for i in range(8)]
            given |= {"path": _lines(folder / "scores.jsonl", rows), "by": "metadata", "key": "key"}
        elif kind == "transformers":
            given |= {"model": models.tiny}
        else:
            given |= {"model": "m", "base_url": server.url, "api_key_env": None}
        settings = parse(RatingSettings, {"name": "rater", "backend": given | (backend or {})} | values, where="golden")
        return run(settings, pool=pool, out=folder / "out")


@case("curation", "one rater", raters=1)
@case("curation", "three raters together, posterior", raters=3, combine=True, posterior=True)
@case("curation", "grades", raters=1, grades={"column": "grade"})
@case("curation", "the premise assumed", raters=1, assume="clusterable")
@case("curation", "each source", raters=2, per_source=200)
@case("curation", "the paper's rounds", raters=1, mode="paper")
@case("curation", "the paper's code", raters=1, mode="reference", diversity="reference")
def _curation(folder: Path, _: Models, raters: int, **values: Any) -> Manifest:
    from tamis.curation.settings import CurationSettings
    from tamis.curation.stage import run
    from tests.unit.curation.pools import mixed_pool

    count = 600
    made = mixed_pool(count, seed=5, own=0.2, raters=raters, d=32, k=16)
    samples = [conversation(f"Question {i}?", "word " * (1 + i % 40)) for i in range(count)]
    metadata = [{"grade": int(made.true[i]) + 4} if i % 5 == 0 else {} for i in range(count)]
    sources = [("first", "second")[i % 2] for i in range(count)]
    pool = artifacts.make_pool(folder / "pool", samples, source=sources, metadata=metadata)
    ids = _ids(pool)
    given = [
        artifacts.make_ratings(folder / f"r{r}", f"r{r}", ids, [int(v) + 4 for v in made.ratings[:, r]])
        for r in range(raters)
    ]
    exact = values.get("mode", "exact") == "exact"
    return run(
        parse(CurationSettings, values, where="golden"),
        ratings=given,
        neighbors=artifacts.make_neighbors(folder / "neighbors", ids, made.indices, made.distances),
        pool=pool,
        embeddings=artifacts.make_embeddings(folder / "embeddings", ids, made.vectors) if exact else None,
        out=folder / "out",
    )


@case("curation", "grades in a file, missing ratings filled, few neighbours")
def _curation_of_a_part(folder: Path, _: Models) -> Manifest:
    from tamis.curation.settings import CurationSettings
    from tamis.curation.stage import run
    from tests.unit.curation.pools import mixed_pool

    count = 600
    made = mixed_pool(count, seed=6, own=0.2, raters=2, d=32, k=16)
    pool = artifacts.make_pool(folder / "pool", [conversation(f"Question {i}?", "word " * 5) for i in range(count)])
    ids = _ids(pool)
    grades = [{"id": ids[i], "grade": 1 + int(made.true[i]) * 0.8, "weight": 1 + i % 2} for i in range(0, count, 4)]
    given = [
        artifacts.make_ratings(
            folder / f"r{r}",
            f"r{r}",
            ids,
            [None if (i + r) % 3 == 0 else int(v) + 4 for i, v in enumerate(made.ratings[:, r])],
            not_asked=[ids[i] for i in range(count) if (i + r) % 6 == 0],
        )
        for r in range(2)
    ]
    values = {
        "grades": {"path": _lines(folder / "grades.jsonl", grades), "scale": {"lowest": 1, "highest": 5}},
        "fill_missing": True,
        "neighbors": 9,
        "confidence": 0.4,
        "diversity_neighbors": 4,
        "lowest": 5,
        "highest": 8,
    }
    return run(
        parse(CurationSettings, values, where="golden"),
        ratings=given,
        neighbors=artifacts.make_neighbors(folder / "neighbors", ids, made.indices, made.distances),
        pool=pool,
        embeddings=artifacts.make_embeddings(folder / "embeddings", ids, made.vectors),
        out=folder / "out",
    )


@case("selection", "full", strategy="full")
@case("selection", "random", strategy="random", size=7)
@case("selection", "length", strategy="length", size=7)
@case("selection", "knn", strategy="knn", size=7, k=3)
@case("selection", "perplexity", strategy="perplexity", size=7)
@case("selection", "less", strategy="less", size=7)
@case("selection", "less, one task", strategy="less", size=7, task="verse")
@case("selection", "alpagasus", strategy="alpagasus", size=7)
@case("selection", "alpagasus of the paper's runs", strategy="alpagasus", size=7, variant="ds2-paper")
@case("selection", "deita", strategy="deita", size=7, max_similarity=0.99)
@case("selection", "deita of the paper's runs", strategy="deita", size=4, variant="ds2-paper")
@case("selection", "ds2-raw", strategy="ds2-raw", size=7)
@case("selection", "ds2", strategy="ds2", size=7)
@case("selection", "ds2, a share, none below class 2", strategy="ds2", size=0.3, min_score=2)
@case("selection", "ds2 by mean, with quotas", strategy="ds2", size=9, rank_by="mean", sources={"second": 4})
@case("selection", "random, shares of sources, another seed", strategy="random", size=9, sources={"first": 0.7}, seed=7)
@case("selection", "ds2, shares of sources", strategy="ds2", size=10, sources={"first": 0.55, "second": 0.45})
@case("selection", "ds2, one of two raters, without some samples", strategy="ds2", size=7, rater="q", without=5)
@case("selection", "length, without some samples", strategy="length", size=7, without=5)
def _selection(folder: Path, _: Models, strategy: str, without: int = 0, **values: Any) -> Manifest:
    from tamis.selection.settings import SelectionSettings
    from tamis.selection.stage import run

    pool = _pool(folder)
    ids = _ids(pool)
    random = np.random.default_rng(2)
    quality = random.permutation(COUNT)
    rows: list[dict[str, Any]] = [
        {
            "id": identity,
            "rater": "r",
            "raw_score": i % 6,
            "score": int(quality[i] % 6),
            "mean": float(quality[i]) / 5,
            "diversity": float((i * 7) % COUNT) / COUNT,
        }
        for i, identity in enumerate(ids)
    ]
    if "rater" in values:
        rows += [row | {"rater": "q", "score": 5 - row["score"], "mean": 5 - row["mean"]} for row in rows]
    if without:
        values |= {"exclude": _lines(folder / "without.jsonl", [{"id": identity} for identity in ids[:without]])}
    artifacts.make_curation(folder / "curation", rows)
    distances = np.sort(random.random((COUNT, 4)), axis=1)
    return run(
        parse(SelectionSettings, {"name": "subset", "strategy": strategy} | values, where="golden"),
        pool=pool,
        curation=folder / "curation",
        neighbors=artifacts.make_neighbors(folder / "neighbors", ids, np.zeros((COUNT, 4)), distances),
        embeddings=artifacts.make_embeddings(folder / "embeddings", ids, _vectors(COUNT, 3)),
        scores=[_scores(folder / name, name, ids) for name in ("perplexity", "deita", "less")],
        out=folder / "out",
    )


def _scores(out: Path, name: str, ids: list[str]) -> Path:
    rows = [
        {"id": identity, "score": None if i == 7 else float((i * 11) % COUNT), "status": "too_long" if i == 7 else "ok"}
        | ({"tasks": [float(i % 5), float(-i)] if i != 7 else None} if name == "less" else {})
        for i, identity in enumerate(ids)
    ]

    def write(step: Step[NoSettings]) -> None:
        schema = pa.schema([*SCORES, pa.field("tasks", pa.list_(pa.float32()))]) if name == "less" else SCORES
        with PartsWriter(step.out, schema) as parts:
            parts.write_rows(rows)
        step.rows = len(rows)
        if name == "less":
            step.facts["tasks"] = ["sums", "verse"]

    artifacts.make("scores", out, write, name=name)
    return out


@case("scoring", "perplexity of the answers", kind="perplexity")
@case("scoring", "perplexity, long samples cut", kind="perplexity", max_tokens=64)
@case("scoring", "perplexity of all text", kind="perplexity", measure={"text": "conversation"})
@case("scoring", "perplexity under Tulu's headers", kind="perplexity", measure={"format": "tulu"})
@case("scoring", "DEITA's two models", kind="deita")
def _scoring(folder: Path, models: Models, kind: str, measure: dict[str, Any] | None = None, **values: Any) -> Manifest:
    from tamis.scoring.settings import ScoringSettings
    from tamis.scoring.stage import run

    used = ("complexity_model", "quality_model") if kind == "deita" else ("model",)
    given = {"kind": kind} | dict.fromkeys(used, models.tiny) | (measure or {})
    settings = parse(ScoringSettings, {"measure": given, "precision": "float32"} | values, where="golden")
    return run(settings, pool=_pool(folder, 8), out=folder / "out")


@case("influence", "one task of two parts")
@case("influence", "a sketch, Tulu's headers, long samples cut", projection="sketch", format="tulu", max_tokens=96)
def _influence(folder: Path, models: Models, **own: Any) -> Manifest:
    from tamis.influence.settings import InfluenceSettings
    from tamis.influence.stage import run

    warmup = {"size": 8, "epochs": 1, "batch_size": 4, "rank": 2, "alpha": 8, "layers": 1, "learning_rate": 1e-3}
    tasks = [{"name": "sums", "path": _lines(folder / "sums.jsonl", TASK)}]
    values = {"model": models.tiny, "tasks": tasks, "warmup": warmup, "format": "chat", "dimensions": 64}
    settings = parse(InfluenceSettings, values | {"precision": "float32"} | own, where="golden")
    return run(settings, pool=_pool(folder, 8), out=folder / "out")


@case("finetuning", "an adapter, chat, warm-up, long samples cut", format="chat", warmup_ratio=0.5, max_tokens=96)
@case("finetuning", "all weights, Tulu", format="tulu", method="full")
@case(
    "finetuning",
    "packed, a cosine, decay, the last layer",
    packing=True,
    schedule="cosine",
    weight_decay=0.1,
    max_grad_norm=0.3,
    max_tokens=512,
    lora={"rank": 4, "alpha": 8, "dropout": 0.0, "targets": ["q_proj", "o_proj"], "layers": 1},
    seed=7,
)
def _finetuning(folder: Path, models: Models, **values: Any) -> Manifest:
    from tamis.finetuning.settings import FinetuningSettings
    from tamis.finetuning.stage import run

    quick = {"model": models.tiny, "epochs": 1, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 0.01}
    selection = artifacts.make_selection(folder / "selection", SAMPLES[:12], name="dozen")
    return run(parse(FinetuningSettings, quick | values, where="golden"), selection=selection, out=folder / "out")


@case("evaluation", "an own task")
@case("evaluation", "the first questions, with a chat template", samples=None, limit=4, apply_chat_template=True)
def _evaluation(folder: Path, models: Models, **values: Any) -> Manifest:
    from tamis.evaluation.settings import EvaluationSettings
    from tamis.evaluation.stage import run
    from tests.unit.evaluation.test_suite import write_suite

    suite = write_suite(folder / "suite")
    own = {"model": models.smollm2, "suite": str(suite), "samples": 6, "batch_size": 2} | values
    settings = parse(EvaluationSettings, own, where="golden")
    return run(settings, out=folder / "out")


@case("judging", "given answers, judged by a service")
def _judging(folder: Path, _: Models) -> Manifest:
    from tamis.judging.stage import run
    from tests.llm_server import Server
    from tests.unit.judging.matches import by_number, judge_by, settings

    pairs = {f"Question {n}?": (f"ours {n % 4 + 1}", f"theirs {n % 3 + 1}") for n in range(8)}
    with Server(judge_by(by_number)) as server:
        return run(settings(folder, server, pairs), out=folder / "out")


@case("judging", "two models answer, one verdict, long answers shortened")
def _judging_of_models(folder: Path, models: Models) -> Manifest:
    from tamis.judging.settings import JudgingSettings
    from tamis.judging.stage import run
    from tests.llm_server import Asked, Reaction, Server, completion

    def behave(asked: Asked) -> Reaction:
        return Reaction(completion(json.dumps({"Better answer": len(asked.prompt) % 3})))

    prompts = [{"turns": [f"Question {n}?"], "more": "Be brief." if n % 2 else ""} for n in range(6)]
    with Server(behave) as server:
        backend = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None}
        values: dict[str, Any] = {
            "prompts": [{"name": "set", "path": _lines(folder / "prompts.jsonl", prompts)}],
            "model": {"kind": "model", "name": "greedy", "model": models.tiny},
            "against": {"kind": "model", "name": "headers", "model": models.tiny, "format": "tulu"},
            "answers": {"max_new_tokens": 96, "precision": "float32", "temperature": 0.7, "top_k": 50},
            "judge": {"backend": backend, "prompt": "verdict-v1", "max_answer_characters": 200},
            "confidence": 0.9,
        }
        values["prompts"][0] |= {"fields": ["turns.0", "more"], "limit": 4}
        return run(parse(JudgingSettings, values, where="golden"), out=folder / "out")


@case("reporting", "a run with everything")
def _reporting(folder: Path, _: Models) -> Manifest:
    from tamis.reporting.settings import ReportingSettings
    from tamis.reporting.stage import run
    from tests.unit.reporting.example import make_run

    settings = ReportingSettings(title="A run", truth="grade", group="topic")
    return run(settings, **make_run(folder / "run").inputs(), out=folder / "out")
