"""The evaluation stage: model in, scores out."""

from __future__ import annotations

import json
import logging
from importlib.util import find_spec

import pyarrow as pa
import pyarrow.parquet as pq

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.errors import MissingExtraError
from tamis.core.models import revision_of
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.storage import fingerprint
from tamis.core.tables import EVALUATION
from tamis.evaluation.settings import EvaluationSettings

log = logging.getLogger(__name__)


def run(settings: EvaluationSettings, *, model: Uri | None = None, out: Uri) -> Manifest:
    """Evaluate the artifact `model`; without one, evaluate `settings.model` under the name `settings.name`.

    The artifact at `out` has `scores.parquet` (one row per task of the suite), `suite.json` (how each task was asked),
    lm-eval's own `results.json`, and every question and answer in `samples_<task>.jsonl`.

    Raises:
        SettingsError: when the suite, a task, a metric, a split or a field is unknown, when the model lacks a chat
            template that the settings use, or when it has no room for a task's answers.
        InputError: when a task's data cannot be read.
        ModelError: when the model cannot be loaded.
        UnexpectedError: when lm-eval, or a task's own function, fails.
        MissingExtraError: when lm-eval is not installed.
    """
    from tamis.evaluation import outside
    from tamis.evaluation.suite import open_suite

    _, places = open_suite(settings)
    files = {"suite": fingerprint(places.file)}
    files |= {key: fingerprint(path) for key, path in (("tasks", places.tasks), ("data", places.data)) if path}
    files |= outside.fingerprints(places)
    if model is None:
        files["model"] = revision_of(settings.model, settings.revision)
    return run_step(
        "evaluation",
        "evaluation",
        settings,
        _evaluate,
        out=out,
        inputs={"model": Input(model, "model")},
        files=files,
        name=settings.name if model is None else Artifact.open(model, "model").name,
    )


def _evaluate(step: Step[EvaluationSettings]) -> None:
    if find_spec("lm_eval") is None:
        raise MissingExtraError.of("lm-eval", "evaluation")
    from tamis.core.causal import explained_memory
    from tamis.evaluation.harness import check_asked, evaluate, load_model, scores_of, write_results
    from tamis.evaluation.suite import described, draw, index_of, load_entries, open_suite

    settings, artifacts = step.settings, step.inputs("model")
    name = artifacts[0].name if artifacts else settings.name
    path = str(artifacts[0].folder if artifacts else settings.model)
    suite, places = open_suite(settings)
    check_asked(settings, path)
    manager = index_of(suite, places)
    entries = load_entries(manager, suite, places)
    with explained_memory("the evaluation", "lower evaluation.batch_size or evaluation.max_length"):
        model, drawn = load_model(settings, path), draw(entries, settings)
        results = evaluate(model, manager, entries, drawn, settings, places.file)
    write_results(results, step.out)
    about = json.dumps(described(suite, places, entries), ensure_ascii=False, indent=1)
    (step.out / "suite.json").write_text(about + "\n", encoding="utf-8")
    scores = scores_of(results, entries, name)
    pq.write_table(pa.Table.from_pylist(scores, schema=EVALUATION), step.out / "scores.parquet", compression="zstd")
    step.rows = len(scores)
    step.models["evaluated"] = revision_of(path, settings.revision) if not artifacts else artifacts[0].manifest.key
    step.facts.update({score["task"]: score["value"] for score in scores})
    step.facts.update(suite=places.file.stem, suite_version=suite.version)
    for score in scores:
        error = "" if score["stderr"] is None else f" ± {score['stderr']:.3f}"
        log.info("%s: %s %.3f%s (%d samples)", score["task"], score["metric"], score["value"], error, score["n"])
