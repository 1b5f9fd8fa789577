"""The `tamis` command.

One subcommand a stage; `run`, `doctor` and `plan`; `compile`, `submit`, `upload`, `schedule` for Kubeflow Pipelines,
`trainjob` for Kubeflow Trainer; `wait`, `probe`, `fetch` for pods.

Only click is imported at the top: `tamis --help` answers at once, and a stage's packages load when it runs.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import tempfile
import textwrap
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
        "Rate every sample with a language model, or import ratings.",
        (_POOL,),
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
        "Embed every sample, or those that known embeddings do not hold.",
        (_POOL, StageInput("known", many=True, required=False)),
        example="tamis embed --pool work/pool --set model=BAAI/bge-large-en-v1.5 --out work/embeddings",
    ),
    "neighbors": Stage(
        "neighbors",
        "NeighborsSettings",
        "Find the nearest neighbours of every sample, or what is new beside graphs and parts that are there.",
        (
            StageInput("embeddings"),
            StageInput("known", many=True, required=False),
            StageInput("parts", many=True, required=False),
        ),
        example="tamis neighbors --embeddings work/embeddings --set k=32 --out work/neighbors",
    ),
    "curate": Stage(
        "curation",
        "CurationSettings",
        "Estimate the raters' errors and correct their scores.",
        (StageInput("ratings", many=True), StageInput("neighbors"), StageInput("pool", required=False)),
        example="tamis curate --ratings work/ratings/llama --neighbors work/neighbors --out work/curation",
    ),
    "score": Stage(
        "scoring",
        "ScoringSettings",
        "Score every sample by token probabilities: perplexity, or DEITA's complexity and quality.",
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
        "Compare a model's answers with an opponent's, by a language model that judges in both orders.",
        (StageInput("model", required=False), StageInput("against", required=False)),
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
        if settings := _describe(_settings_of(self._stage)):
            with formatter.section("Settings (in the --settings file, or by --set)"):
                formatter.write_dl(settings)
        with formatter.section("Example"):
            formatter.write(f"  {self._stage.example}\n")


def _stage_command(name: str, stage: Stage) -> click.Command:
    def call(
        settings: Path | None,
        overrides: tuple[str, ...],
        out: str | None,
        shard: str | None = None,
        dry_run: bool = False,
        metrics_port: int | None = None,
        **inputs: Any,
    ) -> None:
        from tamis.core.settings import load_yaml, parse, with_overrides

        values = with_overrides(load_yaml(settings) if settings else {}, list(overrides))
        if shard is not None:
            values["shard"] = shard
        if metrics_port is not None:
            os.environ["TAMIS_METRICS_PORT"] = str(metrics_port)
        parsed = parse(_settings_of(stage), values, where=str(settings or "settings"))
        given = {key: list(value) if isinstance(value, tuple) else value for key, value in inputs.items()}
        module = _import(f"tamis.{stage.room}.{stage.module}")
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
            help=f"The {item.name} artifact{'; may be given several times' if item.many else ''}.",
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
    fields = sorted(model.model_fields.items(), key=lambda item: item[0] != "kind")  # on which the others depend
    for plain_name, field in fields:
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


@main.command(epilog="\b\nExample:\n  tamis plan examples/paper.yaml --set rates.gpu_hour=1.9")
@_takes_run_settings
def plan(settings: Path, overrides: tuple[str, ...]) -> None:
    """Show the steps and cells of a run, with GPU hours and money at stated rates.

    Nothing is run, and no model or data set is read.
    """
    planning = _import("tamis_pipelines.plan")
    click.echo(planning.as_text(planning.plan(_run_settings(settings, overrides))))


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
@click.option(
    "--objects", "namespace", metavar="NAMESPACE", help="Write objects for `kubectl apply` in this namespace instead."
)
def compile_pipelines(out: Path, settings: Path | None, overrides: tuple[str, ...], namespace: str | None) -> None:
    """Compile the Kubeflow pipelines to YAML packages.

    Compiled in: queue label, time limits, retries, parallelism, /dev/shm, which volumes are mounted. Images, sizes,
    places and names of objects are parameters of every run.
    """
    packages, compiled = _import("tamis_pipelines.packages"), _compiled_settings(settings, overrides)
    made = packages.compile_objects(out, namespace, compiled) if namespace else packages.compile_all(out, compiled)
    for path in made:
        click.echo(path)


def _compiled_settings(file: Path | None, overrides: tuple[str, ...]) -> Any:
    from tamis.core.settings import load_yaml, parse, with_overrides

    values = load_yaml(file).get("kubeflow") or {} if file else {}
    model = _import("tamis_pipelines.pods").KubeflowSettings
    return parse(model, with_overrides(values, list(overrides)), where=f"{file or 'settings'}: kubeflow").compiled


def _reaches_kubeflow(command: Callable[..., None]) -> Callable[..., None]:
    """Options of the commands that talk to a server, given to them as one `Server` under the name `server`."""

    @functools.wraps(command)
    def call(*, host: str, namespace: str, token_file: Path | None, ca_file: str, **others: Any) -> None:
        token = _token(token_file)
        server = _import("tamis_pipelines.remote").Server(host, namespace, token, ca_file)
        command(server=server, **others)

    for option in (
        click.option("--ca-file", default="", envvar="TAMIS_KUBEFLOW_CA", metavar="FILE", help="CA of the server."),
        click.option(
            "--token-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="File with a bearer token; otherwise the variable TAMIS_KUBEFLOW_TOKEN, if set.",
        ),
        click.option(
            "--namespace",
            default="",
            envvar="TAMIS_KUBEFLOW_NAMESPACE",
            help="Your profile, where the server has several.",
        ),
        click.option("--host", default="", envvar="KF_PIPELINES_ENDPOINT", metavar="URL", help="Kubeflow Pipelines."),
    ):
        call = option(call)
    return call


def _token(file: Path | None) -> str:
    if file is None:
        return os.environ.get("TAMIS_KUBEFLOW_TOKEN", "")
    if not file.is_file():
        raise SettingsError(f"no token file at {file}", action="check --token-file")
    return file.read_text(encoding="utf-8").strip()


def _orders_runs(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say what a run on the server is."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Show what would be sent, and send nothing."),
        click.option("--force", is_flag=True, help="Submit although settings name files of this machine."),
        click.option("--no-cache", is_flag=True, help="Run every step again, whatever Kubeflow has kept."),
        click.option(
            "--uploaded",
            default="",
            metavar="VERSION",
            help="Use this uploaded version ('newest' for the last) as it is.",
        ),
        click.option("--outcomes", default="", metavar="PATH", help="Folder in storage that notes how each run ended."),
        click.option("--root", default="", metavar="PATH", help="Where artifacts go; the server's place if left out."),
        click.option(
            "--service-account", default="", metavar="NAME", help="Account of the pods; the server's if left out."
        ),
        click.option("--experiment", default="tamis", show_default=True, help="Kubeflow's group for the run."),
        click.option("--name", default="", help="Name of the run; made from the settings file if left out."),
    ):
        command = option(command)
    return command


def _order(
    settings: Path,
    overrides: tuple[str, ...],
    folder: Path,
    *,
    name: str,
    experiment: str,
    service_account: str,
    root: str,
    outcomes: str,
    uploaded: str,
    no_cache: bool,
    force: bool,
) -> Any:
    """What the options of `_orders_runs` ask for; a pipeline that is not uploaded is compiled into `folder`."""
    remote = _import("tamis_pipelines.remote")
    parsed = _run_settings(settings, overrides)
    if not force:
        remote.check_reachable(parsed)
    if uploaded and no_cache:
        raise SettingsError(
            "--no-cache and --uploaded: caching is compiled into a package",
            action="leave --uploaded out, or upload a version with --set kubeflow.compiled.cached=false",
        )
    compiled = parsed.compiled.model_copy(update={"cached": False} if no_cache else {})
    package = None
    if not uploaded:
        package = _import("tamis_pipelines.packages").compile_one(parsed.pipeline, folder, compiled)
    return remote.Order(
        pipeline=parsed.pipeline,
        arguments=parsed.cluster_arguments(outcomes),
        name=name or settings.stem,
        experiment=experiment,
        package=package,
        version=uploaded,
        service_account=service_account,
        root=root,
    )


def _show(order: Any) -> None:
    """Print what a dry run would send."""
    import yaml

    what = f"version {order.version}" if order.version else "compiled now"
    click.echo(f"pipeline:   {order.pipeline} ({what})\nrun:        {order.name} in {order.experiment}\nparameters:")
    click.echo(textwrap.indent(yaml.safe_dump(order.arguments, sort_keys=True, allow_unicode=True), "  "), nl=False)


@main.command(
    epilog="\b\nExamples:\n  tamis submit settings.yaml --dry-run\n"
    "  tamis submit settings.yaml --host http://127.0.0.1:8080 --wait\n"
    "  tamis submit settings.yaml --set kubeflow.pods.rating.gpus=4 --service-account tamis-pipeline"
)
@_takes_run_settings
@_reaches_kubeflow
@_orders_runs
@click.option("--wait", is_flag=True, help="Say how the run goes until it ends; fail if it fails.")
@click.option("--timeout", type=click.FloatRange(min=0), default=0.0, help="Seconds to wait; 0: as long as it takes.")
@click.option("--every", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Seconds between looks.")
def submit(
    server: Any,
    settings: Path,
    overrides: tuple[str, ...],
    dry_run: bool,
    wait: bool,
    timeout: float,
    every: float,
    **order_options: Any,
) -> None:
    """Run the whole chain on Kubeflow.

    Takes the same settings file as `tamis run`; its section `kubeflow` says how large pods are and where they run.
    """
    with tempfile.TemporaryDirectory(prefix="tamis-") as folder:
        order = _order(settings, overrides, Path(folder), **order_options)
        if dry_run:
            return _show(order)
        kubeflow = _import("tamis_pipelines.remote").Kubeflow(server)
        run = kubeflow.submit(order)
    click.echo(f"run: {run.url}")
    if wait:
        kubeflow.follow(run, click.echo, every=every, timeout=timeout)


@main.command(
    epilog="\b\nExample:\n  tamis upload --settings settings.yaml --host http://127.0.0.1:8080 --version 2026-11"
)
@_reaches_kubeflow
@click.option(
    "--settings",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A run's settings file, of which only `kubeflow.compiled` counts here.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="NAME=VALUE", help="One setting below `kubeflow`; over the file's."
)
@click.option("--version", default="", help="Name of the version; made from the content if left out.")
def upload(server: Any, settings: Path | None, overrides: tuple[str, ...], version: str) -> None:
    """Upload the pipelines to Kubeflow, for its UI, for `--uploaded` and for schedules.

    A package whose content is there already is not uploaded again.
    """
    compiled = _compiled_settings(settings, overrides)
    with tempfile.TemporaryDirectory(prefix="tamis-") as folder:
        packages = _import("tamis_pipelines.packages").compile_all(Path(folder), compiled)
        kubeflow = _import("tamis_pipelines.remote").Kubeflow(server)
        for package in packages:
            name, made = kubeflow.upload(package.stem, package, version)
            click.echo(f"{package.stem} {name}: {made.url}")


@main.command(
    epilog="\b\nExamples:\n  tamis schedule settings.yaml --cron '0 0 3 * * *' --name nightly\n"
    "  tamis schedule settings.yaml --every 604800 --uploaded newest --name weekly --replace"
)
@_takes_run_settings
@_reaches_kubeflow
@_orders_runs
@click.option("--cron", default="", metavar="FIELDS", help="second minute hour day month weekday, as in '0 0 3 * * *'.")
@click.option("--every", type=click.IntRange(min=1), metavar="SECONDS", help="Instead of --cron: time between starts.")
@click.option("--at-once", type=click.IntRange(1, 10), default=1, show_default=True, help="Runs at the same time.")
@click.option("--replace", is_flag=True, help="Take the place of a schedule of the same name.")
def schedule(
    server: Any,
    settings: Path,
    overrides: tuple[str, ...],
    dry_run: bool,
    cron: str,
    every: int | None,
    at_once: int,
    replace: bool,
    **order_options: Any,
) -> None:
    """Run the whole chain on Kubeflow again and again, with data that grows for example."""
    with tempfile.TemporaryDirectory(prefix="tamis-") as folder:
        order = _order(settings, overrides, Path(folder), **order_options)
        if dry_run:
            return _show(order)
        kubeflow = _import("tamis_pipelines.remote").Kubeflow(server)
        made = kubeflow.schedule(order, cron=cron, every=every or 0, at_once=at_once, replace=replace)
    click.echo(f"schedule: {made.url}")


@main.command(
    epilog="\b\nExample:\n  tamis trainjob --selection s3://bucket/selections/ds2 --out s3://bucket/models/ds2 \\\n"
    "      --settings finetuning.yaml --nodes 2 --gpus 8 --cpu 32 --memory 400Gi --namespace tamis"
)
@click.option("--selection", required=True, metavar="PATH", help="The subset, where the cluster's pods see it: s3://…")
@click.option("--out", required=True, metavar="PATH", help="Where the model goes: s3://…")
@click.option("--settings", type=click.Path(path_type=Path), metavar="FILE", help="As of `tamis finetune`.")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="One setting; over the file's.")
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Nodes that train together.")
@click.option("--gpus", type=click.IntRange(min=0), help="GPUs of a node; the runtime's if left out.")
@click.option("--gpu-type", default="nvidia.com/gpu", show_default=True, help="Resource name of the GPU.")
@click.option("--cpu", default="", help="CPUs of a node, with --gpus.")
@click.option("--memory", default="", help="Memory of a node, with --gpus.")
@click.option("--image", default="", help="Full name of the image; the runtime's if left out.")
@click.option("--runtime", default="tamis-finetune", show_default=True, help="TrainingRuntime in the namespace.")
@click.option("--queue", default="", help="LocalQueue of Kueue.")
@click.option("--name", default="", help="Name of the TrainJob; made of what it is for if left out.")
@click.option("--namespace", default="", help="Of the TrainJob; the context's if left out.")
@click.option("--context", default="", help="Of the kubeconfig; its current one if left out.")
@click.option("--keep", is_flag=True, help="Leave the TrainJob in the cluster, however it ends.")
@click.option("--timeout", type=click.FloatRange(min=0), default=0.0, help="Seconds to wait; 0: as long as it takes.")
@click.option("--every", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Seconds between looks.")
@click.option("--dry-run", is_flag=True, help="Show the TrainJob, and make nothing.")
def trainjob(
    selection: str,
    out: str,
    settings: Path | None,
    overrides: tuple[str, ...],
    name: str,
    namespace: str,
    context: str,
    keep: bool,
    timeout: float,
    every: float,
    dry_run: bool,
    **nodes: Any,
) -> None:
    """Finetune on several nodes of a cluster, by Kubeflow Trainer.

    Makes a TrainJob, says how it goes with the first node's log, fails with the failed pods' last words, and removes it
    at the end. Started again, it follows the TrainJob that is there, or goes on from the last checkpoint.
    """
    from tamis.core.settings import load_yaml, parse, with_overrides

    on_trainer, trainjobs = _import("tamis.finetuning.on_trainer"), _import("tamis.finetuning.trainjobs")
    values = with_overrides(load_yaml(settings) if settings else {}, list(overrides))
    parsed = parse(_settings_of(STAGES["finetune"]), values, where=str(settings or "settings"))
    job = on_trainer.trainjob(parsed, on_trainer.TrainerSettings(**nodes), selection=selection, out=out, name=name)
    if dry_run:
        import yaml

        click.echo(yaml.safe_dump(job, sort_keys=False), nl=False)
        return
    jobs = trainjobs.TrainJobs(namespace, context=context, say=click.echo, every=every)
    jobs.run(job, keep=keep, timeout=timeout)
    click.echo(f"model: {out}")


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


@main.group()
def rating() -> None:
    """Look after raters and their prompts."""


@rating.command(epilog="\b\nExample:\n  tamis rating validate my-rater.yaml my-prompt.yaml")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
def validate(files: tuple[Path, ...]) -> None:
    """Check files of raters, prompts or the rating stage's settings; without FILES those that ship with Tamis."""
    validating = _import("tamis.rating.validating")
    for path in files or validating.shipped():
        click.echo(validating.describe(path))


@main.command(
    "compare-reports",
    epilog="\b\nExample:\n  tamis compare-reports work/report s3://bucket/other/report --out work/compared",
)
@click.argument("first")
@click.argument("second")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="Where the page goes.")
def compare_reports(first: str, second: str, out: Path) -> None:
    """Set two reports side by side: every number of both, and the difference."""
    click.echo(f"{_import('tamis.reporting.compare').compare_reports(first, second, out=out)}")
    click.echo(f"comparison: {out / 'comparison.html'}")


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
