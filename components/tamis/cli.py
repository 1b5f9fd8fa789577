"""The `tamis` command: one subcommand a stage, and `run`, `doctor`, `compile`; `wait`, `probe`, `fetch` for pods.

Only click is imported at the top: `tamis --help` answers at once, and a stage's packages load when it runs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tamis import __version__
from tamis.core.errors import MissingExtraError, SettingsError, TamisError


@dataclass(frozen=True)
class StageInput:
    """An input artifact of a stage, given as `--name PATH`."""

    name: str
    many: bool = False
    required: bool = True


@dataclass(frozen=True)
class Stage:
    """A stage as a subcommand. Its room has `settings.<settings>` and `stage.run`."""

    room: str
    settings: str
    help: str
    inputs: tuple[StageInput, ...] = ()
    example: str = ""


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
        "Rate every sample with a language model, or import ratings.",
        (_POOL,),
        example="tamis rate --pool work/pool --settings rater.yaml --out work/ratings/llama",
    ),
    "embed": Stage(
        "embedding",
        "EmbeddingSettings",
        "Embed every sample.",
        (_POOL,),
        example="tamis embed --pool work/pool --set model=BAAI/bge-large-en-v1.5 --out work/embeddings",
    ),
    "neighbors": Stage(
        "neighbors",
        "NeighborsSettings",
        "Find the nearest neighbours of every sample.",
        (StageInput("embeddings"),),
        example="tamis neighbors --embeddings work/embeddings --set k=32 --out work/neighbors",
    ),
    "curate": Stage(
        "curation",
        "CurationSettings",
        "Estimate the raters' errors and correct their scores.",
        (StageInput("ratings", many=True), StageInput("neighbors")),
        example="tamis curate --ratings work/ratings/llama --neighbors work/neighbors --out work/curation",
    ),
    "select": Stage(
        "selection",
        "SelectionSettings",
        "Select a subset by one of the strategies.",
        (_POOL, _CURATION, _NEIGHBORS),
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
        ),
        example="tamis report --pool work/pool --ratings work/ratings/llama --curation work/curation \\\n"
        "      --selections work/ds2 --out work/report",
    ),
}


class _Teaching(click.Group):
    """Shows errors of Tamis as plain text, and lists commands in the order of the work."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except TamisError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(1)


@click.group(
    cls=_Teaching,
    epilog="\b\nExamples:\n  tamis doctor examples/demo.yaml     check everything before anything is spent\n"
    "  tamis run examples/demo.yaml        the whole chain on this machine\n"
    "  tamis curate --help                 one stage and its settings",
)
@click.version_option(__version__, prog_name="tamis")
@click.option("-v", "--verbose", is_flag=True, help="Say more on the way.")
def main(verbose: bool) -> None:
    """Choose which instruction data to train on.

    Language models rate every sample, Tamis finds and corrects the raters' errors, keeps the best and rarest samples,
    finetunes a model on them and shows on benchmarks what that gave.
    """
    from tamis.core.progress import set_up_logging

    set_up_logging(verbose)


class _StageCommand(click.Command):
    """A stage's subcommand, whose help ends with the stage's settings."""

    def __init__(self, stage: Stage, **options: Any) -> None:
        super().__init__(**options)
        self._stage = stage

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Settings (in the --settings file, or by --set)"):
            formatter.write_dl(list(_describe(_settings_of(self._stage))))
        with formatter.section("Example"):
            formatter.write(f"  {self._stage.example}\n")


def _stage_command(name: str, stage: Stage) -> click.Command:
    def call(settings: Path | None, overrides: tuple[str, ...], out: str, **inputs: Any) -> None:
        from tamis.core.settings import load_yaml, parse, with_overrides

        values = with_overrides(load_yaml(settings) if settings else {}, list(overrides))
        parsed = parse(_settings_of(stage), values, where=str(settings or "settings"))
        given = {key: list(value) if isinstance(value, tuple) else value for key, value in inputs.items()}
        run = _import(f"tamis.{stage.room}.stage").run
        manifest = run(parsed, **given, out=out)
        click.echo(f"{manifest.kind}: {manifest.rows:,} rows in {out}")

    options: list[click.Parameter] = [
        click.Option(
            [f"--{item.name}"],
            required=item.required,
            multiple=item.many,
            metavar="PATH",
            help=f"The {item.name} artifact{'; may be given several times' if item.many else ''}.",
        )
        for item in stage.inputs
    ]
    options += [
        click.Option(["--settings"], type=click.Path(path_type=Path), metavar="FILE", help="YAML file of settings."),
        click.Option(["--set", "overrides"], multiple=True, metavar="NAME=VALUE", help="One setting; over the file's."),
        click.Option(["--out"], required=True, metavar="PATH", help="Where the result goes: a folder or s3://…"),
    ]
    return _StageCommand(stage, name=name, callback=call, params=options, help=stage.help)


def _settings_of(stage: Stage) -> Any:
    return getattr(_import(f"tamis.{stage.room}.settings"), stage.settings)


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == "kfp":
            raise MissingExtraError.of("kfp", "kubeflow") from None
        raise


def _describe(model: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Name and meaning of every setting of a pydantic model, those of nested models after their section."""
    from tamis.core.settings import models_in

    rows: list[tuple[str, str]] = []
    for plain_name, field in model.model_fields.items():
        name = field.alias or plain_name
        needed = (
            "required" if field.is_required() else f"default: {_plain(field.get_default(call_default_factory=True))}"
        )
        text = f"{field.description}; {needed}" if field.description else needed
        rows.append((f"{prefix}{name}", text))
        for inner in models_in(field.annotation):
            rows += _describe(inner, f"{prefix}{name}.")
    return rows


def _plain(value: Any) -> str:
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return "as below"
    return "none" if value is None else str(value)


for _name, _stage in STAGES.items():
    main.add_command(_stage_command(_name, _stage))


def _run_settings(path: Path, overrides: tuple[str, ...]) -> Any:
    return _import("tamis_pipelines.settings").load_run(path, overrides)


def _takes_run_settings(command: Callable[..., None]) -> Callable[..., None]:
    override = click.option(
        "--set", "overrides", multiple=True, metavar="NAME=VALUE", help="One setting; over the file's."
    )
    return click.argument("settings", type=click.Path(path_type=Path))(override(command))


@main.command(epilog="\b\nExample:\n  tamis run examples/demo.yaml --set work_dir=/data/demo")
@_takes_run_settings
@click.option("--force", is_flag=True, help="Start although a check of `tamis doctor` failed.")
def run(settings: Path, overrides: tuple[str, ...], force: bool) -> None:
    """Run the whole chain on this machine.

    Checks everything first, as `tamis doctor` does. Finished steps are reused when neither their settings nor their
    inputs have changed; after a kill, the same command goes on.
    """
    parsed = _run_settings(settings, overrides)
    checks = _import("tamis_pipelines.doctor").examine(parsed)
    failed = [check for check in checks if not check.passed]
    if failed and not force:
        raise SettingsError(
            "checks failed before anything was run:\n" + "\n".join(f"  {check}" for check in failed),
            action="mend them, or start with --force",
        )
    report = _import("tamis_pipelines.local").run(parsed)
    from tamis.core.artifacts import Artifact

    click.echo(f"\n{Artifact.open(report, 'report').manifest.facts['headline']}\n\nreport: {report / 'report.html'}")


@main.command(epilog="\b\nExample:\n  tamis doctor examples/demo.yaml")
@_takes_run_settings
def doctor(settings: Path, overrides: tuple[str, ...]) -> None:
    """Check settings, models, data, storage, memory and disk before anything is spent."""
    checks = _import("tamis_pipelines.doctor").examine(_run_settings(settings, overrides))
    for check in checks:
        click.echo(str(check))
    if not all(check.passed for check in checks):
        sys.exit(1)


@main.command("compile", epilog="\b\nExample:\n  tamis compile --out packages --set compiled.queue=tamis")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="Where the packages go.")
@click.option(
    "--settings",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A run's settings file, of which only `kubeflow.compiled` counts here.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="NAME=VALUE", help="One setting below `kubeflow`; over the file's."
)
def compile_pipelines(out: Path, settings: Path | None, overrides: tuple[str, ...]) -> None:
    """Compile the Kubeflow pipelines to YAML packages.

    Compiled in: queue label, time limits, retries, parallelism, /dev/shm, which volumes are mounted. Images, sizes,
    places and names of objects are parameters of every run.
    """
    from tamis.core.settings import load_yaml, parse, with_overrides

    values = load_yaml(settings).get("kubeflow", {}) if settings else {}
    model = _import("tamis_pipelines.pods").KubeflowSettings
    kubeflow = parse(model, with_overrides(values, list(overrides)), where=f"{settings or 'settings'}: kubeflow")
    for path in _import("tamis_pipelines.packages").compile_all(out, kubeflow.compiled):
        click.echo(path)


@main.command(
    epilog="\b\nExample:\n  tamis compare work/ds2 work/random --pool work/pool \\\n"
    "      --curation work/curation --out work/compared"
)
@click.argument("selections", nargs=-1, required=True)
@click.option("--pool", required=True, metavar="PATH", help="The pool artifact.")
@click.option("--curation", metavar="PATH", help="The curation artifact, for scores.")
@click.option("--out", required=True, metavar="FOLDER", help="Where tables and plot go.")
def compare(selections: tuple[str, ...], pool: str, curation: str | None, out: str) -> None:
    """Compare subsets: overlap, sources, lengths, scores, diversity."""
    text = _import("tamis.selection.compare").compare_report(list(selections), pool=pool, curation=curation, out=out)
    click.echo(text)


@main.command(epilog="\b\nExample:\n  tamis wait s3://bucket/run/pool s3://bucket/run/neighbors --timeout 86400")
@click.argument("artifacts", nargs=-1, required=True, metavar="PATH...")
@click.option("--timeout", type=click.FloatRange(min=0), default=86_400.0, show_default=True, help="Seconds to wait.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=15.0, show_default=True, help="Seconds between two looks."
)
def wait(artifacts: tuple[str, ...], timeout: float, every: float) -> None:
    """Wait until artifacts are finished.

    For clusters without Kubeflow, where each stage's Job begins with this.
    """
    _import("tamis.cluster.waiting").wait_for(artifacts, timeout=timeout, every=every)


@main.command(epilog="\b\nExample:\n  tamis probe s3://bucket/tamis")
@click.argument("place", metavar="PATH")
@click.option("--create-bucket", is_flag=True, help="Make the S3 bucket first, if it is not there.")
def probe(place: str, create_bucket: bool) -> None:
    """Try whether a folder or s3://… can be written and read."""
    _import("tamis.cluster.probe").probe(place, create_bucket=create_bucket)


@main.command(epilog="\b\nExample:\n  HF_HOME=/cache/hf tamis fetch models.yaml")
@click.argument("settings", type=click.Path(path_type=Path))
def fetch(settings: Path) -> None:
    """Fetch models and data sets into the cache before they are needed.

    SETTINGS is a YAML file with a list `models`; each is of `kind: hub` (repo, revision, type, files) or of
    `kind: storage` (uri, folder).
    """
    from tamis.core.settings import load

    fetching = _import("tamis.cluster.fetching")
    fetching.fetch(load(fetching.FetchSettings, settings))
