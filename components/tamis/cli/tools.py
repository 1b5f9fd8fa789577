"""Tools around the stages: `compare`, `decontaminate`, `rating`, `grade`, `compare-reports`."""

from __future__ import annotations

from pathlib import Path

import click

from tamis.cli.loading import load


@click.command(
    epilog="\b\nExample:\n  tamis compare work/ds2 work/random --pool work/pool \\\n"
    "      --curation work/curation --out work/compared"
)
@click.argument("selections", nargs=-1, required=True)
@click.option("--pool", required=True, metavar="PATH", help="The pool artifact.")
@click.option("--curation", metavar="PATH", help="The curation artifact, for scores and diversity.")
@click.option("--out", required=True, metavar="FOLDER", help="Folder for the tables and the plot.")
def compare(selections: tuple[str, ...], pool: str, curation: str | None, out: str) -> None:
    """Compare subsets: overlap, sources, lengths, scores."""
    text = load("tamis.comparison.subsets").compare_report(list(selections), pool=pool, curation=curation, out=out)
    click.echo(text)


@click.command(
    epilog="\b\nExample:\n  tamis decontaminate mmlu/test.jsonl gsm8k/test.jsonl --pool work/pool --out work/clean\n"
    "  tamis select … --set exclude=work/clean/excluded.csv"
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--pool", required=True, metavar="PATH", help="The pool artifact.")
@click.option("--out", required=True, metavar="FOLDER", help="Folder for the list and the report.")
@click.option("--words", default=13, show_default=True, help="Length in words of a shared sequence.")
@click.option(
    "--common",
    default=10,
    show_default=True,
    help="A sequence in more samples than this excludes only samples that contain half of a text.",
)
def decontaminate(files: tuple[str, ...], pool: str, out: str, words: int, common: int) -> None:
    """Find samples that share sequences of words with evaluation data.

    FILE is jsonl, json, csv (its first row is data, too) or txt, local or in object storage.
    """
    report = load("tamis.decontamination.matching").report
    click.echo(report(list(files), pool=pool, out=out, words=words, common=common))


@click.group()
def rating() -> None:
    """Check raters and prompts, and find the samples to rate next."""


@rating.command(epilog="\b\nExample:\n  tamis rating validate my-rater.yaml my-prompt.yaml")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
def validate(files: tuple[Path, ...]) -> None:
    """Check files with raters, prompts or settings of the rating stage. Without FILES, check those of Tamis."""
    validating = load("tamis.rating.validating")
    for path in files or validating.shipped():
        click.echo(validating.describe(path))


@rating.command(
    "next",
    epilog="\b\nExample:\n  tamis rating next runs/first --subset best --size 1000\n"
    "  tamis rating next runs/first --subset best --budget 5 --target 0.01",
)
@click.argument("run")
@click.option("--subset", required=True, metavar="NAME", help="The subset to improve, selected by ds2.")
@click.option("--size", type=int, help="Number of samples. [default: the fewest that meet the target]")
@click.option("--budget", type=float, metavar="MONEY", help="As many samples as this buys, at the mean cost so far.")
@click.option("--target", default=0.02, show_default=True, help="Share of the subset that may still change.")
@click.option("--rater", metavar="NAME", help="Rater whose curated scores are used. [default: the subset's]")
@click.option("--out", metavar="FILE", help="File for the ids, .txt or .jsonl. [default: RUN/to-rate-1.txt (2, 3, …)]")
def next_to_rate(
    run: str, subset: str, size: int | None, budget: float | None, target: float, rater: str | None, out: str | None
) -> None:
    """Write the ids of the samples whose ratings are most likely to change a subset.

    RUN is the folder (work_dir) of a run that rated only a part of the pool (the rater's setting `sample`), with
    `curation.posterior: true`. Then name the file in the rater's setting `also` and run again. If the target is already
    met, nothing is written.
    """
    text = load("tamis.selection.to_rate").next_ratings(
        run, subset=subset, size=size, budget=budget, target=target, rater=rater, out=out
    )
    click.echo(text)


@click.group()
def grade() -> None:
    """Let people grade some of the samples."""


@grade.command(
    "next",
    epilog="\b\nExample:\n  tamis grade next runs/first --size 100\n"
    "  tamis run settings.yaml --set curation.grades.path=runs/first/to-grade.csv",
)
@click.argument("run")
@click.option("--size", default=100, show_default=True, help="Number of samples.")
@click.option("--rater", metavar="NAME", help="Rater whose scores are used, if there are several.")
@click.option("--out", metavar="FILE", help="The sheet, .csv or .jsonl. [default: RUN/to-grade.csv]")
@click.option("--random-share", default=0.5, show_default=True, help="Share of samples drawn at random.")
@click.option(
    "--graded", multiple=True, metavar="FILE", help="An earlier sheet, whose samples to skip. May be given repeatedly."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the random draw.")
@click.option("--blind", is_flag=True, help="Leave out the scores of raters and of the curation.")
def next_to_grade(
    run: str,
    size: int,
    rater: str | None,
    out: str | None,
    random_share: float,
    graded: tuple[str, ...],
    seed: int,
    blind: bool,
) -> None:
    """Write a sheet of samples for people to grade.

    RUN is the folder (work_dir) of a run. Some samples are drawn at random, to measure how many scores are right. The
    others are those with the least certain curated scores. When the sheet is graded, name it in the setting
    `curation.grades.path` and run again.
    """
    text = load("tamis.curation.to_grade").next_to_grade(
        run, size=size, rater=rater, out=out, random_share=random_share, graded=graded, seed=seed, blind=blind
    )
    click.echo(text)


@click.command(
    "compare-reports",
    epilog="\b\nExample:\n  tamis compare-reports work/report s3://bucket/other/report --out work/compared",
)
@click.argument("first")
@click.argument("second")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER", help="Folder for the page.")
def compare_reports(first: str, second: str, out: Path) -> None:
    """Compare two reports.

    Shows every number of both, and the differences.
    """
    click.echo(f"{load('tamis.comparison.reports').compare_reports(first, second, out=out)}")
    click.echo(f"comparison: {out / 'comparison.html'}")
