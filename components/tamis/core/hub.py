"""Splits of data sets on the Hugging Face Hub, or of folders that the `datasets` library loads or has written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamis.core.errors import InputError, MissingExtraError
from tamis.core.hub_access import may_pass, with_datasets
from tamis.core.network import check_network
from tamis.core.saved import is_saved, load_saved


@dataclass(frozen=True)
class Wanted:
    """The split to read.

    Attributes:
        shown: what needs it, for errors, as in "source 'flan'".
        dataset: a name on the Hub, or a local folder.
        config: its configuration, if it has several.
        split: its split, or parts of it, as in "train[:100]"; None for `usual`.
        revision: a commit, branch or tag; not used for a folder.
        usual: the default split.
    """

    shown: str
    dataset: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    usual: str = "train"


def load_split(wanted: Wanted) -> tuple[Any, str | None, list[str]]:
    """Load a split.

    Returns:
        The data set, the name of its split (None if it has none), and the other splits if `wanted` names no split.

    Raises:
        InputError: when the data set, its configuration or its split does not exist or cannot be read.
        MissingExtraError: when `datasets` is not installed.
        SettingsError: when an environment variable names an unusable proxy or certificate.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError.of("datasets", "hub") from None
    name, split = wanted.dataset, wanted.split or wanted.usual
    if is_saved(name):
        return load_saved(wanted)
    local = Path(name).is_dir()
    if not local:
        check_network()
    try:
        with with_datasets():
            data = datasets.load_dataset(name, wanted.config, split=split, revision=None if local else wanted.revision)
        others = [str(other) for other in data.info.splits or () if str(other) != split and wanted.split is None]
        return data, split, others
    except datasets.exceptions.DatasetsError as error:
        permanent = not may_pass(error)
        problem, action = first_line(error), "check the name; a gated data set needs HF_TOKEN"
        if isinstance(error, datasets.exceptions.DatasetGenerationError):
            problem = f"{problem} ({first_line(error.__cause__ or error)})"
            action = "correct its files, or give them as `path`, which rejects only the bad rows"
    except FileNotFoundError as error:
        permanent = not may_pass(error)
        problem, action = first_line(error), "check the name; a gated data set needs HF_TOKEN"
    except ValueError as error:  # an unknown split or configuration
        permanent = True
        problem, action = first_line(error), "correct `split`, `config` or `revision`"
    except RuntimeError as error:  # a loading script
        permanent = True
        problem, action = first_line(error), "try the Hub's conversion to Parquet: `revision: refs/convert/parquet`"
    except ConnectionError as error:
        permanent = False
        problem = f"{first_line(error)}, and it is not in the local cache"
        action = "check the network, HF_ENDPOINT and HF_HUB_OFFLINE; without a network, give files as `path`"
    raise InputError(
        f"{wanted.shown}: cannot load the data set '{name}' (split {split}): {problem}",
        allowed="the name of a data set on the Hub, or a folder with its files",
        action=action,
        permanent=permanent,
    )


@contextmanager
def from_cache() -> Iterator[None]:
    """Within this context, the Hub's libraries use only this machine's cache."""
    import datasets
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def is_prepared(dataset: str) -> bool:
    """Whether a data set of the Hub is in this machine's cache, so that its rows can be read without a download."""
    from datasets import config

    return (Path(config.HF_DATASETS_CACHE) / dataset.replace("/", "___")).is_dir()


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class if it has no message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
