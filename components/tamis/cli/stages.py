"""A subcommand for each stage, made from the table of stages."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from tamis.cli.loading import load, settings_from

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageInput:
    """An input artifact of a stage, given as `--name PATH`."""

    name: str
    many: bool = False
    required: bool = True
    help: str = ""  # where the name alone does not say what it is


@dataclass(frozen=True)
class Stage:
    """A stage as a subcommand. Its room has `settings.<settings>` and `<module>.run`."""

    room: str
    settings: str
    help: str
    inputs: tuple[StageInput, ...] = ()
    example: str = ""
    module: str = "stage"
    planned: bool = False  # the module has a `plan` too, for --dry-run
    sharded: bool = False  # it works by shards, and serves metrics


_POOL, _CURATION = StageInput("pool"), StageInput("curation", required=False)
_NEIGHBORS = StageInput("neighbors", required=False)
STAGES = {
    "pool": Stage(
        "pool",
        "PoolSettings",
        "Assemble the data pool from files and data sets.",
        example="tamis pool --settings pool.yaml --out work/pool",
    ),
    "rate": Stage(
        "rating",
        "RatingSettings",
        "Rate every sample with a model, or import ratings.",
        (
            _POOL,
            StageInput("embeddings", required=False, help="Embeddings, over which `sample` is spread evenly"),
        ),
        example="tamis rate --pool work/pool --settings rater.yaml --out work/ratings/llama",
        planned=True,
        sharded=True,
    ),
    "merge-ratings": Stage(
        "rating",
        "MergeSettings",
        "Put the shards of one rater's ratings together.",
        (_POOL, StageInput("ratings", many=True)),
        example="tamis merge-ratings --pool work/pool --ratings work/shards/1 --ratings work/shards/2 \\\n"
        "      --out work/ratings/llama",
        module="merging",
    ),
    "embed": Stage(
        "embedding",
        "EmbeddingSettings",
        "Embed every sample. Vectors that known embeddings hold are taken over.",
        (_POOL, StageInput("known", True, False, "Embeddings of an earlier pool, to take vectors over from")),
        example="tamis embed --pool work/pool --set model=BAAI/bge-large-en-v1.5 --out work/embeddings",
    ),
    "neighbors": Stage(
        "neighbors",
        "NeighborsSettings",
        "Find every sample's nearest neighbours. With graphs or parts that are there, only what is new is compared.",
        (
            StageInput("embeddings"),
            StageInput("known", True, False, "Neighbours of an earlier pool, to go on from"),
            StageInput("parts", True, False, "Parts made with the setting `shard`, to be put together"),
        ),
        example="tamis neighbors --embeddings work/embeddings --set k=32 --out work/neighbors",
    ),
    "curate": Stage(
        "curation",
        "CurationSettings",
        "Estimate the raters' errors and correct their scores.",
        (
            StageInput("ratings", many=True),
            StageInput("neighbors"),
            StageInput("pool", required=False),
            StageInput("embeddings", required=False),
        ),
        example="tamis curate --ratings work/ratings/llama --neighbors work/neighbors --pool work/pool \\\n"
        "      --embeddings work/embeddings --out work/curation",
    ),
    "score": Stage(
        "scoring",
        "ScoringSettings",
        "Score every sample by perplexity, or as DEITA does.",
        (_POOL,),
        example="tamis score --pool work/pool --set measure.kind=perplexity --out work/scores/perplexity",
    ),
    "influence": Stage(
        "influence",
        "InfluenceSettings",
        "Score every sample by its influence on tasks (LESS).",
        (_POOL,),
        example="tamis influence --pool work/pool --settings less.yaml --out work/scores/less",
    ),
    "select": Stage(
        "selection",
        "SelectionSettings",
        "Select a subset by one of the strategies.",
        (
            _POOL,
            _CURATION,
            _NEIGHBORS,
            StageInput("embeddings", required=False),
            StageInput("scores", many=True, required=False),
        ),
        example="tamis select --pool work/pool --curation work/curation --set name=ds2 --set strategy=ds2 \\\n"
        "      --set size=10000 --out work/ds2",
    ),
    "finetune": Stage(
        "finetuning",
        "FinetuningSettings",
        "Finetune a base model on a subset.",
        (StageInput("selection"),),
        example="tamis finetune --selection work/ds2 --settings finetuning.yaml --out work/models/ds2",
    ),
    "evaluate": Stage(
        "evaluation",
        "EvaluationSettings",
        "Evaluate a model on a suite of benchmarks.",
        (StageInput("model", required=False),),
        example="tamis evaluate --model work/models/ds2 --set suite=quick --out work/evaluations/ds2",
    ),
    "judge": Stage(
        "judging",
        "JudgingSettings",
        "Let a model judge answers against an opponent's. It is asked in both orders.",
        (
            StageInput("model", required=False),
            StageInput("against", required=False, help="The opponent: a model artifact"),
        ),
        example="tamis judge --model work/models/ds2 --against work/models/random --settings judging.yaml \\\n"
        "      --out work/judgements/ds2",
        planned=True,
    ),
    "report": Stage(
        "reporting",
        "ReportingSettings",
        "Write the report: tables, plots, one HTML page.",
        (
            _POOL,
            StageInput("ratings", many=True),
            StageInput("curation"),
            StageInput("selections", many=True),
            StageInput("models", many=True, required=False),
            StageInput("evaluations", many=True, required=False),
            StageInput("judgements", many=True, required=False),
        ),
        example="tamis report --pool work/pool --ratings work/ratings/llama --curation work/curation \\\n"
        "      --selections work/ds2 --out work/report",
    ),
}


class StageCommand(click.Command):
    """A stage's subcommand, whose help ends with the stage's settings."""

    def __init__(self, stage: Stage, **options: Any) -> None:
        super().__init__(**options)
        self._stage = stage

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write every setting of the stage, and an example."""
        if settings := describe(settings_of(self._stage)):
            with formatter.section("Settings (in the --settings file, or by --set)"):
                formatter.write_dl(settings)
        with formatter.section("Example"):
            formatter.write(f"  {self._stage.example}\n")


def stage_command(name: str, stage: Stage) -> click.Command:
    """The subcommand of a stage."""

    def call(
        settings: Path | None,
        overrides: tuple[str, ...],
        out: str | None,
        shard: str | None = None,
        dry_run: bool = False,
        metrics_port: int | None = None,
        **inputs: Any,
    ) -> None:
        _log.info("%s: begins", name)  # before the stage's packages are loaded, which takes seconds
        if metrics_port is not None:
            os.environ["TAMIS_METRICS_PORT"] = str(metrics_port)
        more = {} if shard is None else {"shard": shard}
        parsed = settings_from(settings_of(stage), settings, overrides, **more)
        given = {key: list(value) if isinstance(value, tuple) else value for key, value in inputs.items()}
        module = load(f"tamis.{stage.room}.{stage.module}")
        if dry_run:
            click.echo(module.plan(parsed, **given))
            return
        if out is None:
            raise click.UsageError("Missing option '--out'.")
        manifest = module.run(parsed, **given, out=out)
        click.echo(f"{manifest.kind}: {manifest.rows:,} rows in {out}")

    options: list[click.Parameter] = [
        click.Option(
            [f"--{item.name}"],
            required=item.required,
            multiple=item.many,
            metavar="PATH",
            help=f"{item.help or f'The {item.name} artifact'}{'; may be given several times' if item.many else ''}.",
        )
        for item in stage.inputs
    ]
    options += [
        click.Option(["--settings"], type=click.Path(path_type=Path), metavar="FILE", help="YAML file of settings."),
        click.Option(["--set", "overrides"], multiple=True, metavar="NAME=VALUE", help="One setting; over the file's."),
        click.Option(["--out"], metavar="PATH", help="Where the result goes: a folder or s3://…  [required]"),
    ]
    if stage.planned:
        options.append(click.Option(["--dry-run"], is_flag=True, help="Only say what it would take."))
    if stage.sharded:
        options += [
            click.Option(["--shard"], metavar="I/N", help="Only this share of the samples, as in 3/8."),
            click.Option(
                ["--metrics-port"],
                type=click.IntRange(1, 65535),
                metavar="PORT",
                help="Serve the progress as Prometheus metrics.",
            ),
        ]
    return StageCommand(stage, name=name, callback=call, params=options, help=stage.help)


def settings_of(stage: Stage) -> Any:
    """The pydantic model of a stage's settings."""
    return getattr(load(f"tamis.{stage.room}.settings"), stage.settings)


def describe(model: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Name and meaning of every setting of a pydantic model, those of nested models after their section.

    Where the settings of a section depend on its `kind`, each kind has a row of its own before them.
    """
    from tamis.core.settings import models_in

    rows: list[tuple[str, str]] = []
    for plain_name, field in model.model_fields.items():
        name = f"{prefix}{field.alias or plain_name}"
        needed = (
            "required" if field.is_required() else f"default: {_plain(field.get_default(call_default_factory=True))}"
        )
        rows.append((name, "; ".join(filter(None, [field.description, _allowed(field.annotation), needed]))))
        inner = models_in(field.annotation)
        for one in inner:
            if len(inner) > 1:
                rows.append((f"{name}.kind: {' or '.join(get_args(one.model_fields['kind'].annotation))}", ""))
            rows += [row for row in describe(one, f"{name}.") if len(inner) == 1 or row[0] != f"{name}.kind"]
    return rows


def _allowed(annotation: Any) -> str:
    """The words that a setting may be, if it may only be some."""
    if get_origin(annotation) is Literal:
        words = get_args(annotation)
        return f"one of {', '.join(map(str, words))}" if len(words) > 1 else ""
    return next(filter(None, map(_allowed, get_args(annotation))), "")


def _plain(value: Any) -> str:
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return "as below"
    return "none" if value is None else str(value)
