"""The settings file that `tamis init` writes: answers to its questions in, commented YAML out."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tamis.core.errors import InputError, SettingsError, StorageError
from tamis.core.storage import write_bytes
from tamis.reporting.numbers import clipped
from tamis_pipelines.looking import SHOWN, Data, rows_of
from tamis_pipelines.settings import load_run

LOCAL_MODEL, SERVICE_MODEL = "meta-llama/Llama-3.1-8B-Instruct", "gpt-4o-mini"
WORK_DIR, KEY = "runs/first", "OPENAI_API_KEY"
_MOST = 10_000  # samples of a subset, where the user says nothing
_SHARE = 0.1  # of the pool, where the user says nothing
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")


@dataclass(frozen=True)
class Answers:
    """What the user said.

    Attributes:
        data: the samples, by source.
        backend: settings of the rater's backend, with `keep` where ratings are imported.
        size: of the subsets, a number or a share of the pool.
        base_model: the model to finetune; None to only select.
        encoder: the model for embeddings; None for the default.
        work_dir: where results go.
    """

    data: Sequence[Data]
    backend: dict[str, Any]
    size: float
    base_model: str | None
    encoder: str | None
    work_dir: str


def usual_size(data: Sequence[Data]) -> float:
    """The size of a subset where nothing is said: a tenth of the pool, and 10,000 samples at most."""
    rows = rows_of(data)
    return _SHARE if rows is None else min(_MOST, max(1, int(rows * _SHARE)))


def size_in(text: str, data: Sequence[Data]) -> float:
    """The size of a subset: a number of samples, or a share of the pool below 1.

    Raises:
        SettingsError: when it is neither.
        InputError: when there are not so many samples.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf") or (number > 1 and number % 1):
        raise SettingsError(f"size: seen '{text}'", allowed="a number of samples, or a share of the pool below 1")
    rows = rows_of(data)
    if rows is not None and number > rows:
        raise InputError(f"{number:,.0f} samples are asked of {rows:,}", allowed=f"{rows:,} at most")
    return number if number < 1 else int(number)


def write(answers: Answers, file: Path, *, force: bool) -> None:
    """Write the settings to `file`, once it is certain that they can be read.

    Raises:
        StorageError: when the file is there already, unless `force`, or cannot be written.
        SettingsError: when the answers make no settings.
    """
    refuse_to_replace(file, force)
    text = as_yaml(answers, file)
    with tempfile.TemporaryDirectory(prefix="tamis-") as temporary:
        draft = Path(temporary) / "settings.yaml"
        draft.write_text(text, encoding="utf-8")
        load_run(draft)
    write_bytes(file, text.encode())


def refuse_to_replace(file: Path, force: bool) -> None:
    """Raises StorageError when `file` is there, unless `force`."""
    if file.exists() and not force:
        raise StorageError(f"{file} is there already", action="name another file, or replace it with --force")


def as_yaml(answers: Answers, file: Path) -> str:
    """The settings as YAML with comments, for `file`."""
    sections = [_head(file), _place(answers), _pool(answers), _rater(answers), _encoder(answers), _subsets(answers)]
    return "\n".join([*sections, _training(answers)])


def _head(file: Path) -> str:
    return f"""\
# Settings of a run, begun by `tamis init`. Paths are relative to the folder that tamis is started in.
#
#   tamis doctor {file}     checks everything, spends nothing
#   tamis plan {file}       steps, hours and money
#   tamis run {file}
#
# Each section has more settings; the help of its command lists them, as `tamis rate --help` does those of a rater.
"""


def _place(answers: Answers) -> str:
    return f"""\
work_dir: {_said(answers.work_dir)}  # results and finished steps
# name: second          # another run in the same work_dir that shall leave the results of this one
"""


def _pool(answers: Answers) -> str:
    sources = "".join(_source(data, answers.backend.get("keep")) for data in answers.data)
    return f"""\
pool:
  sources:  # as many as you like: a path, or the name of a data set on the hub (dataset), or a recipe
{sources}"""


def _source(data: Data, keep: list[str] | None) -> str:
    seen = f"layout: {clipped(data.layout, SHOWN)}" if data.layout else "not looked at: the pool tells the layout"
    seen += f"; not used: {clipped(', '.join(data.unused), SHOWN)}" if data.unused else ""
    place = "path" if "path" in data.source else "dataset"
    lines = [f"    - name: {_said(data.source['name'])}", f"      {place}: {_said(data.source[place])}  # {seen}"]
    told = "  # told by their names; correct them if they are others" if data.guessed else ""
    for name, value in data.source.items():
        if name not in ("name", place):
            lines.append(f"      {name}: {_said(value)}{told if name == 'fields' else ''}")
    lines += [f"      keep: {_said(keep)}  # by which the ratings find their samples"] if keep else []
    return "".join(f"{line}\n" for line in lines)


def _rater(answers: Answers) -> str:
    backend = {name: value for name, value in answers.backend.items() if name != "keep"}
    said = "{" + ", ".join(f"{name}: {_said(value)}" for name, value in backend.items()) + "}"
    after = {
        "transformers": "    # On GPUs `kind: vllm` is faster; it needs the extra vllm.\n"
        "    # sample: 0.2        # rate a part only; curation predicts the rest\n",
        "openai": "    # price: {input: 0.15, output: 0.60}   # of 1,000,000 tokens; `tamis plan` then knows the cost\n"
        "    # max_cost: 20                         # needs price; ends before more is spent\n",
        "import": "",
    }
    name = "imported" if backend["kind"] == "import" else _name_of(str(backend["model"]))
    return f"""\
raters:  # a second one, of another family of models, shows errors that a single rater cannot
  - name: {_said(name)}
    backend: {said}
{after[backend["kind"]]}"""


def _encoder(answers: Answers) -> str:
    from tamis.embedding.settings import EmbeddingSettings

    model = answers.encoder or EmbeddingSettings().model
    return f"""\
embedding:
  model: {_said(model)}  # makes a vector of every sample: a hub name, or a folder
"""


def _subsets(answers: Answers) -> str:
    size = f"{answers.size:g}" if answers.size < 1 else f"{answers.size:d}"
    return f"""\
subsets:  # size: a number of samples, or a share of the pool below 1
  - {{name: best, strategy: ds2, size: {size}}}       # the highest curated scores, the rarest samples first
  - {{name: random, strategy: random, size: {size}}}  # what choosing is compared with
"""


def _training(answers: Answers) -> str:
    if answers.base_model is None:
        return """\
# With these sections a model is finetuned on every subset, and evaluated beside the base model.
# finetuning:
#   model: meta-llama/Llama-3.1-8B
# evaluation:
#   suite: quick        # a first look; paper: the benchmarks of the DS2 paper
"""
    return f"""\
finetuning:  # LoRA with the settings of the DS2 paper; `tamis finetune --help` lists them
  model: {_said(answers.base_model)}

evaluation:
  suite: quick  # a first look; paper: the benchmarks of the DS2 paper
"""


def _name_of(model: str) -> str:
    """A rater's name out of its model's."""
    last = re.split(r"[/\\]", model.rstrip("/\\"))[-1].lower()
    return re.sub(r"[^a-z0-9._-]+", "-", last).strip("._-")[:64] or "rater"


def _said(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_said(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_said, value)) + "]"
    text = str(value)
    plain = _PLAIN.fullmatch(text) and yaml.safe_load(text) == value
    if plain or not isinstance(value, str):
        return text if plain else json.dumps(value)
    # YAML's own escapes: those of JSON are two halves for a character beyond the first 65,536, which YAML takes apart.
    return yaml.safe_dump(value, default_style='"', width=float("inf")).strip()
