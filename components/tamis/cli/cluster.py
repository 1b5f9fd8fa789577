"""Commands for clusters: `trainjob` for Kubeflow Trainer, `outcomes`, and `wait`, `probe` and `fetch` for pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tamis.cli.loading import load, settings_from
from tamis.cli.stages import STAGES
from tamis.core.texts import printable


@click.command(
    epilog="\b\nExample:\n  tamis trainjob --selection s3://bucket/selections/ds2 --out s3://bucket/models/ds2 \\\n"
    "      --settings finetuning.yaml --nodes 2 --gpus 8 --cpu 32 --memory 400Gi --namespace tamis"
)
@click.option("--selection", required=True, metavar="PATH", help="The subset, at a path that pods can read: s3://…")
@click.option("--out", required=True, metavar="PATH", help="Where to write the model: s3://…")
@click.option("--settings", type=click.Path(path_type=Path), metavar="FILE", help="Settings as of `tamis finetune`.")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="Override one setting of the file.")
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True, help="Number of nodes.")
@click.option("--gpus", type=click.IntRange(min=0), help="GPUs per node. [default: the runtime's]")
@click.option("--gpu-type", default="nvidia.com/gpu", show_default=True, help="Resource name of the GPU.")
@click.option("--cpu", default="", help="CPUs per node; only with --gpus.")
@click.option("--memory", default="", help="Memory per node; only with --gpus.")
@click.option("--image", default="", help="Full name of the image. [default: the runtime's]")
@click.option("--runtime", default="tamis-finetune", show_default=True, help="TrainingRuntime in the namespace.")
@click.option("--queue", default="", help="LocalQueue of Kueue.")
@click.option("--name", default="", help="Name of the TrainJob. [default: a name made from its content]")
@click.option("--namespace", default="", help="Namespace of the TrainJob. [default: the context's]")
@click.option("--context", default="", help="Context of the kubeconfig. [default: the current one]")
@click.option("--keep", is_flag=True, help="Keep the TrainJob in the cluster after it ends.")
@click.option("--timeout", type=click.FloatRange(min=0), default=0.0, help="Seconds to wait. 0: no limit.")
@click.option("--every", type=click.FloatRange(min=0.1), default=5.0, show_default=True, help="Seconds between checks.")
@click.option("--force", is_flag=True, help="Start without testing the places of subset and model from here.")
@click.option("--dry-run", is_flag=True, help="Show the TrainJob without creating it.")
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
    force: bool,
    dry_run: bool,
    **nodes: Any,
) -> None:
    """Finetune on several nodes with Kubeflow Trainer.

    Creates a TrainJob, shows its progress and the first node's log, and removes it at the end. If it fails, the
    last messages of the failed pods are shown. If you start the command again, it follows the existing TrainJob, or
    continues from the last checkpoint. Nothing is created if the model exists already, or if the place for it contains
    another one or cannot be written.
    """
    on_trainer, trainjobs = load("tamis.finetuning.on_trainer"), load("tamis.cluster.trainjobs")
    parsed = settings_from(STAGES["finetune"].settings_model, settings, overrides)
    job = on_trainer.trainjob(parsed, on_trainer.TrainerSettings(**nodes), selection=selection, out=out, name=name)
    if dry_run:
        import yaml

        click.echo(yaml.safe_dump(job, sort_keys=False), nl=False)
        return
    if not force and load("tamis.finetuning.output").finished_model(parsed, selection=selection, out=out):
        click.echo(f"model: {out} (finished before)")
        return
    jobs = trainjobs.TrainJobs(namespace, context=context, say=click.echo, every=every)
    jobs.run(job, keep=keep, timeout=timeout)
    click.echo(f"model: {out}")


@click.command(epilog="\b\nExample:\n  tamis wait s3://bucket/run/pool s3://bucket/run/neighbors --timeout 86400")
@click.argument("artifacts", nargs=-1, required=True, metavar="PATH...")
@click.option("--timeout", type=click.FloatRange(min=0), default=86_400.0, show_default=True, help="Seconds to wait.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=15.0, show_default=True, help="Seconds between checks."
)
def wait(artifacts: tuple[str, ...], timeout: float, every: float) -> None:
    """Wait until artifacts are finished.

    On clusters without Kubeflow, the Job of each stage begins with this command.
    """
    load("tamis.cluster.waiting").wait_for(artifacts, timeout=timeout, every=every)


@click.command(epilog="\b\nExample:\n  tamis probe s3://bucket/tamis")
@click.argument("place", metavar="PATH")
@click.option("--create-bucket", is_flag=True, help="Create the S3 bucket first if it does not exist.")
def probe(place: str, create_bucket: bool) -> None:
    """Test whether a folder, or a prefix in object storage, can be written and read."""
    load("tamis.cluster.probe").probe(place, create_bucket=create_bucket)


@click.command(epilog="\b\nExample:\n  tamis outcomes s3://bucket/outcomes")
@click.argument("folder", metavar="FOLDER")
@click.option("--json", "as_json", is_flag=True, help="Print everything that is known, as a list in JSON.")
def outcomes(folder: str, as_json: bool) -> None:
    """Show how the runs in a folder for outcomes ended.

    FOLDER is the path that `tamis submit` had as --outcomes. A run that has begun and has no outcome is UNFINISHED: it
    still runs, or it was killed before its last step. The exit code is 1 if there is no run that can be read.
    """
    found = load("tamis.cluster.outcomes").read_outcomes(folder)
    if as_json:
        import json

        click.echo(json.dumps([outcome.model_dump(mode="json") for outcome in found], indent=2))
        return
    for outcome in found:
        name, times = outcome.name or outcome.workflow, f"{outcome.started or '?'} to {outcome.ended or '?'}"
        click.echo(printable(f"{outcome.state:<10} {name} ({outcome.run}), {times}"))
        if outcome.reason:
            click.echo(printable(f"           {outcome.reason}"))


@click.command(epilog="\b\nExample:\n  HF_HOME=/cache/hf tamis fetch models.yaml")
@click.argument("settings", type=click.Path(path_type=Path))
def fetch(settings: Path) -> None:
    """Download models and data sets into the cache.

    SETTINGS is a YAML file with a list `models`. Each entry has `kind: hub` (with repo, revision, type, files) or
    `kind: storage` (with uri, folder).
    """
    from tamis.core.settings import load as read_settings

    fetching = load("tamis.cluster.fetching")
    fetching.fetch(read_settings(fetching.FetchSettings, settings))
