"""`init`: write a first settings file from questions or options."""

from __future__ import annotations

import glob
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tamis.cli.loading import load
from tamis.core.errors import SettingsError, TamisError

_NONE = "none"
_SIDES = ("question", "answer")
_OPTIONS_OF = {"local": ("model",), "service": ("model", "base_url", "api_key_env")}
_OPTIONS_OF["import"] = ("ratings", "score_column", "by_field", "scale")


def _several(text: str) -> list[str]:
    """The paths in an answer: the answer itself if that path exists, otherwise its words, split as by a shell."""
    if os.path.exists(text) or glob.glob(text):
        return [text]
    try:
        return shlex.split(text) or [text]
    except ValueError:  # an unclosed quote
        return [text]


def _only_one(paths: tuple[str, ...]) -> str | None:
    if len(paths) > 1:
        raise SettingsError(
            f"--ratings is given {len(paths)} times",
            allowed="the ratings of one rater",
            action="give one, and add the others to the file later, under `raters`",
        )
    return paths[0] if paths else None


@click.command(
    epilog="\b\nExamples:\n  tamis init\n"
    "  tamis init --data 'data/*.jsonl' --size 1000 --work-dir runs/first\n"
    "  tamis init mine.yaml --data pool.csv --ratings scores.csv --scale 1-5\n"
    "  tamis init --data 'data/*.jsonl' --data more/chats.json --data hub:allenai/tulu-v2-sft-mixture"
)
@click.argument("file", default="settings.yaml", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--data",
    metavar="PATH",
    multiple=True,
    callback=lambda _context, _option, paths: list(paths) or None,
    help="The samples: a file, a folder or a pattern, a path in object storage (s3://…), or hub:NAME for a data set on "
    "the Hub; may be given several times. "
    "With this option, no questions are asked.",
)
@click.option("--prompt-field", metavar="NAME", help="The field with the question, if the layout is unusual.")
@click.option("--answer-field", metavar="NAME", help="The field with the answer.")
@click.option("--rater", type=click.Choice([*_OPTIONS_OF]), help="Where ratings come from. [default: local]")
@click.option("--model", metavar="NAME", help="The rater's model: a Hub name, a folder, or the service's model name.")
@click.option("--base-url", metavar="URL", help="The service's endpoint, up to /v1. [default: OpenAI's]")
@click.option("--api-key-env", metavar="NAME", help="Environment variable with the service's key; none: no key.")
@click.option(
    "--ratings",
    metavar="FILE",
    multiple=True,
    callback=lambda _context, _option, paths: _only_one(paths),
    help="Existing ratings of one rater. Add other raters to the settings file later.",
)
@click.option("--score-column", metavar="NAME", help="The ratings' column with the score. [default: a common name]")
@click.option(
    "--by-field",
    metavar="NAME",
    help="The field by which ratings are matched to samples; DATA=RATINGS if its names differ in the two files.",
)
@click.option("--scale", metavar="LOW-HIGH", help="The ratings' lowest and highest possible score, as in 1-5.")
@click.option(
    "--size", metavar="NUMBER", help="Samples to select, or a share below 1. [default: a tenth, at most 10000]"
)
@click.option(
    "--base-model", metavar="NAME", help="Model to finetune on the subsets; none: only select. [default: none]"
)
@click.option("--encoder", metavar="NAME", help="Model for the embeddings.")
@click.option("--work-dir", metavar="FOLDER", help="Folder for results. [default: runs/first]")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
def init(file: Path, force: bool, **given: Any) -> None:
    """Write a first settings file, with comments.

    Asks six questions and shows what it finds in the first rows of the data. Files with different layouts become
    separate sources. Options replace questions; with --data, no questions are asked. FILE is settings.yaml by default.
    """
    starting = load("tamis_pipelines.starting")
    starting.refuse_to_replace(file, force)
    _check(given)
    ask = _Questions(asking=given["data"] is None)
    data = _data(ask, given)
    answers = starting.Answers(
        data=data,
        backend=_backend(ask, given, data, starting),
        size=ask(
            "4/6 Number of samples to select, or a share below 1",
            given["size"],
            f"{starting.usual_size(data):g}",
            lambda text: starting.size_in(text, data),
        ),
        base_model=ask("5/6 Base model to finetune on the subsets and evaluate", given["base_model"], _NONE, _or_none),
        encoder=given["encoder"],
        work_dir=ask("6/6 Folder for results", given["work_dir"], starting.WORK_DIR),
    )
    starting.write(answers, file, force=force)
    click.echo(f"written: {file}\nnext:\n  tamis doctor {file}\n  tamis plan {file}\n  tamis run {file}")
    click.echo(f"or, on Kubeflow:\n  tamis submit {file} --dry-run")


class _Questions:
    """Takes the value of an option, asks for it, or takes the default if no questions are asked."""

    def __init__(self, asking: bool) -> None:
        self.asking = asking

    def __call__(
        self, question: str, given: str | None, usual: str | None, read: Callable[[str], Any] = lambda text: text
    ) -> Any:
        if given is not None:
            return read(given)
        if not self.asking:
            return read(usual) if usual is not None else None

        def understood(text: str) -> Any:
            try:
                return read(text)
            except TamisError as error:
                raise click.UsageError(str(error)) from None  # click shows the error and asks again

        return click.prompt(question, default=usual, value_proc=understood)


def _check(given: dict[str, Any]) -> None:
    """Infer the rater from its options, and reject options that have no effect."""
    implied = [kind for kind, option in (("import", "ratings"), ("service", "base_url")) if given[option] is not None]
    given["rater"] = given["rater"] or (implied[0] if implied else None)
    if given["rater"] is None and given["data"] is not None:
        given["rater"] = "local"
    if given["rater"] is None:
        return
    if given["rater"] == "import" and given["data"] is not None and given["ratings"] is None:
        raise SettingsError("--rater import: there is no file with ratings", action="name it with --ratings")
    others = {option for options in _OPTIONS_OF.values() for option in options} - {*_OPTIONS_OF[given["rater"]]}
    if idle := sorted(f"--{option.replace('_', '-')}" for option in others if given[option] is not None):
        raise SettingsError(
            f"{', '.join(idle)}: no effect with --rater {given['rater']}", action="leave out one of the two"
        )


def _data(ask: _Questions, given: dict[str, Any]) -> Any:
    looking = load("tamis_pipelines.looking")

    def look(paths: list[str]) -> Any:
        try:
            return looking.look_at_data(paths, given["prompt_field"], given["answer_field"])
        except looking.UnknownLayoutError as error:
            if not ask.asking:
                raise
            click.echo(f"{error.problem}; its fields: {', '.join(error.columns)}")
            fields = [click.prompt(f"  Field with the {what}", type=click.Choice(error.columns)) for what in _SIDES]
            return looking.look_at_data(paths, *fields)

    if given["data"] is not None:
        data = look(given["data"])
    else:
        question = "1/6 Your data: files, folders, patterns such as data/*.jsonl, or hub:NAME"
        data = ask(question, None, None, lambda text: look(_several(text)))
    for line in looking.described(data):
        click.echo(f"  {line}")
    return data


def _backend(ask: _Questions, given: dict[str, Any], data: Any, starting: Any) -> dict[str, Any]:
    kinds = ", ".join(_OPTIONS_OF)
    kind = ask(f"2/6 Where ratings come from ({kinds} of existing ratings)", given["rater"], "local", _one_of_the_kinds)
    if kind == "import":
        return _import(ask, given, data)
    if kind == "local":
        question = "3/6 The rater's model: a Hub name, or a folder"
        return {"kind": "transformers", "model": ask(question, given["model"], starting.LOCAL_MODEL)}
    backend = {"kind": "openai", "model": ask("3/6 The service's model", given["model"], starting.SERVICE_MODEL)}
    address = ask("  The service's endpoint, up to /v1 (none: OpenAI's)", given["base_url"], _NONE, _or_none)
    key = ask("  Environment variable with its key (none: no key)", given["api_key_env"], starting.KEY, _or_none)
    backend |= {"base_url": address} if address else {}
    return backend | ({} if key == starting.KEY else {"api_key_env": key})


def _import(ask: _Questions, given: dict[str, Any], data: Any) -> dict[str, Any]:
    looking = load("tamis_pipelines.looking_at_ratings")

    def look(path: str) -> Any:
        column, scale = given["score_column"], given["scale"]
        try:
            column = looking.score_column(path, column)
        except looking.UnknownScoresError as error:
            if not ask.asking:
                raise
            click.echo(f"  {error.problem}; its columns: {', '.join(error.columns)}")
            column = click.prompt("  Column with the score", type=click.Choice(error.columns))
        if scale is None and ask.asking and (seen := looking.scores_in(path, column)) is not None:
            click.echo(f"  scores from {seen[0]:g} to {seen[1]:g}")
            scale = ask("  Lowest and highest possible score, as in 1-5", None, None)
        return looking.look_at_ratings(path, data, column=column, field=given["by_field"], scale=scale)

    found: dict[str, Any] = ask("3/6 The file with ratings; it may be the data file", given["ratings"], None, look)
    return found


def _one_of_the_kinds(text: str) -> str:
    if text not in _OPTIONS_OF:
        raise SettingsError(f"seen '{text}'", allowed=", ".join(_OPTIONS_OF))
    return text


def _or_none(text: str) -> str | None:
    return None if text.lower() == _NONE else text
