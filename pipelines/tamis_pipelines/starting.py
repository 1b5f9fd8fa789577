"""The settings file that `tamis init` writes: turns the user's answers into YAML with comments."""

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
_MOST = 10_000  # default size of a subset, at most
_SHARE = 0.1  # default size of a subset, as a share of the pool
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")


@dataclass(frozen=True)
class Answers:
    """The user's answers.

    Attributes:
        data: the samples, by source.
        backend: settings of the rater's backend; for imported ratings also `keep`.
        size: size of the subsets, a number or a share of the pool.
        base_model: the model to finetune; None: no training.
        encoder: the model for embeddings; None: the default.
        work_dir: folder for results.
    """

    data: Sequence[Data]
    backend: dict[str, Any]
    size: float
    base_model: str | None
    encoder: str | None
    work_dir: str


def usual_size(data: Sequence[Data]) -> float:
    """Return the default size of a subset: a tenth of the pool, but at most 10,000 samples."""
    rows = rows_of(data)
    return _SHARE if rows is None else min(_MOST, max(1, int(rows * _SHARE)))


def size_in(text: str, data: Sequence[Data]) -> float:
    """Return the size of a subset in `text`: a number of samples, or a share of the pool below 1.

    Raises:
        SettingsError: when it is neither.
        InputError: when the pool has fewer samples.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf") or (number > 1 and number % 1):
        raise SettingsError(f"size: seen '{text}'", allowed="a number of samples, or a share of the pool below 1")
    rows = rows_of(data)
    if rows is not None and number > rows:
        raise InputError(f"size: seen {number:,.0f}, but the data have {rows:,} rows", allowed=f"at most {rows:,}")
    return number if number < 1 else int(number)


def write(answers: Answers, file: Path, *, force: bool) -> None:
    """Write the settings to `file`, after checking that they can be read.

    Raises:
        StorageError: when the file exists and `force` is not set, or when it cannot be written.
        SettingsError: when the answers do not give valid settings.
    """
    refuse_to_replace(file, force)
    text = as_yaml(answers, file)
    with tempfile.TemporaryDirectory(prefix="tamis-") as temporary:
        draft = Path(temporary) / "settings.yaml"
        draft.write_text(text, encoding="utf-8")
        load_run(draft)
    write_bytes(file, text.encode())


def refuse_to_replace(file: Path, force: bool) -> None:
    """Raise a StorageError if `file` exists, unless `force` is set."""
    if file.exists() and not force:
        action = "choose another file, or replace this one with --force"
        raise StorageError(f"{file} already exists", action=action, permanent=True)


def as_yaml(answers: Answers, file: Path) -> str:
    """Return the settings as YAML with comments, for `file`."""
    sections = [_head(file), _place(answers), _pool(answers), _rater(answers), _encoder(answers), _subsets(answers)]
    return "\n".join([*sections, _training(answers)])


def _head(file: Path) -> str:
    return f"""\
# Settings of a run, written by `tamis init`. Paths are relative to the folder in which you start tamis.
#
#   tamis doctor {file}     checks everything; costs nothing
#   tamis plan {file}       shows steps, hours and costs
#   tamis run {file}
#   tamis submit {file}     runs it on Kubeflow; data must be in object storage or on the Hub
#
# Each section has more settings. The help of its command lists them; for raters, see `tamis rate --help`.
"""


def _place(answers: Answers) -> str:
    return f"""\
work_dir: {_inline(answers.work_dir)}  # folder for results and finished steps
# name: second          # name of another run in the same work_dir, which leaves these results alone
"""


def _pool(answers: Answers) -> str:
    sources = "".join(_source(data, answers.backend.get("keep")) for data in answers.data)
    return f"""\
pool:
  sources:  # any number; each has a path, a data set on the Hugging Face Hub (dataset: NAME) or a recipe
{sources}"""


def _source(data: Data, keep: list[str] | None) -> str:
    seen = f"layout: {clipped(data.layout, SHOWN)}" if data.layout else "not read; the pool will find the layout"
    seen += f"; not used: {clipped(', '.join(data.unused), SHOWN)}" if data.unused else ""
    place = "path" if "path" in data.source else "dataset"
    lines = [f"    - name: {_inline(data.source['name'])}", f"      {place}: {_inline(data.source[place])}  # {seen}"]
    guessed = "  # guessed from their names; correct them if they are wrong" if data.guessed else ""
    for name, value in data.source.items():
        if name not in ("name", place):
            lines.append(f"      {name}: {_inline(value)}{guessed if name == 'fields' else ''}")
    lines += [f"      keep: {_inline(keep)}  # matches ratings to samples"] if keep else []
    return "".join(f"{line}\n" for line in lines)


def _rater(answers: Answers) -> str:
    backend = {name: value for name, value in answers.backend.items() if name != "keep"}
    said = "{" + ", ".join(f"{name}: {_inline(value)}" for name, value in backend.items()) + "}"
    after = {
        "transformers": "    # On GPUs, `kind: vllm` is faster; it needs the extra vllm.\n"
        "    # sample: 0.2        # rate only a part; curation predicts the rest\n",
        "openai": "    # price: {input: 0.15, output: 0.60}   # per million tokens; lets `tamis plan` show the cost\n"
        "    # max_cost: 20                         # stops before more is spent; needs price\n",
        "import": "",
    }
    name = "imported" if backend["kind"] == "import" else _name_of(str(backend["model"]))
    return f"""\
raters:  # a second rater from another model family reveals errors that one rater alone cannot
  - name: {_inline(name)}
    backend: {said}
{after[backend["kind"]]}"""


def _encoder(answers: Answers) -> str:
    from tamis.embedding.settings import EmbeddingSettings

    model = answers.encoder or EmbeddingSettings().model
    return f"""\
embedding:
  model: {_inline(model)}  # computes a vector for every sample: a name on the Hugging Face Hub, or a folder
"""


def _subsets(answers: Answers) -> str:
    size = f"{answers.size:g}" if answers.size < 1 else f"{answers.size:d}"
    return f"""\
subsets:  # size: a number of samples, or a share of the pool below 1
  - {{name: best, strategy: ds2, size: {size}}}       # the highest curated scores; among equal ones the rarest samples
  - {{name: random, strategy: random, size: {size}}}  # for comparison
"""


def _training(answers: Answers) -> str:
    if answers.base_model is None:
        return """\
# With these sections, a model is finetuned on every subset and evaluated next to the base model.
# finetuning:
#   model: meta-llama/Llama-3.1-8B
# evaluation:
#   suite: quick        # small benchmarks for a first impression; paper: the benchmarks of the DS2 paper
"""
    return f"""\
finetuning:  # LoRA with the settings of the DS2 paper; `tamis finetune --help` lists them
  model: {_inline(answers.base_model)}

evaluation:
  suite: quick  # small benchmarks for a first impression; paper: the benchmarks of the DS2 paper
"""


def _name_of(model: str) -> str:
    """Return a name for a rater, from its model's name."""
    last = re.split(r"[/\\]", model.rstrip("/\\"))[-1].lower()
    return re.sub(r"[^a-z0-9._-]+", "-", last).strip("._-")[:64] or "rater"


def _inline(value: Any) -> str:
    """Return a value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_inline(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    text = str(value)
    plain = _PLAIN.fullmatch(text) and yaml.safe_load(text) == value
    if plain or not isinstance(value, str):
        return text if plain else json.dumps(value)
    # YAML's own escapes: JSON writes characters beyond the first 65,536 as two halves, which YAML does not join.
    return yaml.safe_dump(value, default_style='"', width=float("inf")).strip()
