"""On a cluster: `trainjob` for Kubeflow Trainer; `wait`, `probe`, `fetch` for pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tamis.cli.loading import load, settings_from
from tamis.cli.stages import STAGES


@click.command(
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
    """Finetune on several nodes, by Kubeflow Trainer.

    Makes a TrainJob, says how it goes with the first node's log, fails with the failed pods' last words, and removes it
    at the end. Started again, it follows the TrainJob that is there, or goes on from the last checkpoint.
    """
    on_trainer, trainjobs = load("tamis.finetuning.on_trainer"), load("tamis.cluster.trainjobs")
    parsed = settings_from(STAGES["finetune"].settings_model, settings, overrides)
    job = on_trainer.trainjob(parsed, on_trainer.TrainerSettings(**nodes), selection=selection, out=out, name=name)
    if dry_run:
        import yaml

        click.echo(yaml.safe_dump(job, sort_keys=False), nl=False)
        return
    jobs = trainjobs.TrainJobs(namespace, context=context, say=click.echo, every=every)
    jobs.run(job, keep=keep, timeout=timeout)
    click.echo(f"model: {out}")


@click.command(epilog="\b\nExample:\n  tamis wait s3://bucket/run/pool s3://bucket/run/neighbors --timeout 86400")
@click.argument("artifacts", nargs=-1, required=True, metavar="PATH...")
@click.option("--timeout", type=click.FloatRange(min=0), default=86_400.0, show_default=True, help="Seconds to wait.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=15.0, show_default=True, help="Seconds between two looks."
)
def wait(artifacts: tuple[str, ...], timeout: float, every: float) -> None:
    """Wait until artifacts are finished.

    For clusters without Kubeflow, where each stage's Job begins with this.
    """
    load("tamis.cluster.waiting").wait_for(artifacts, timeout=timeout, every=every)


@click.command(epilog="\b\nExample:\n  tamis probe s3://bucket/tamis")
@click.argument("place", metavar="PATH")
@click.option("--create-bucket", is_flag=True, help="Make the S3 bucket first, if it is not there.")
def probe(place: str, create_bucket: bool) -> None:
    """Try whether a folder, or a place in object storage, can be written and read."""
    load("tamis.cluster.probe").probe(place, create_bucket=create_bucket)


@click.command(epilog="\b\nExample:\n  HF_HOME=/cache/hf tamis fetch models.yaml")
@click.argument("settings", type=click.Path(path_type=Path))
def fetch(settings: Path) -> None:
    """Fetch models and data sets into the cache.

    SETTINGS is a YAML file with a list `models`; each is of `kind: hub` (repo, revision, type, files) or of
    `kind: storage` (uri, folder).
    """
    from tamis.core.settings import load as read_settings

    fetching = load("tamis.cluster.fetching")
    fetching.fetch(read_settings(fetching.FetchSettings, settings))
