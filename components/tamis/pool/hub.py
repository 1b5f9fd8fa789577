"""Data sets on the Hugging Face Hub, or in local folders that the `datasets` library loads."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamis.core.errors import InputError, MissingExtraError, StorageError
from tamis.core.hub import Wanted, first_line, load_split
from tamis.core.network import check_network
from tamis.core.progress import load_packages
from tamis.core.storage import fingerprint
from tamis.pool.openings import Guessed, Rows
from tamis.pool.pieces import Batch, InPieces, Piece

if TYPE_CHECKING:
    from tamis.pool.settings import Source

log = logging.getLogger(__name__)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT = 10  # seconds for a request for the commit of a branch
_ROWS = 1024  # in a piece


# Within `as_last_seen`: the commits that an earlier run found on the Hub, by data set.
_last_seen: ContextVar[Mapping[str, str] | None] = ContextVar("_last_seen", default=None)


@contextmanager
def as_last_seen(commits: Mapping[str, str]) -> Iterator[None]:
    """Within this context the commits of data sets are taken from `commits`, without a request to the Hub."""
    token = _last_seen.set(commits)
    try:
        yield
    finally:
        _last_seen.reset(token)


def revision_of(dataset: str, revision: str | None) -> str:
    """An identifier of the content of `dataset`: a fingerprint of a local folder, or the commit on the Hub.

    If the Hub does not answer, it is the name of the branch.

    Raises:
        SettingsError: when an environment variable names an unusable proxy or certificate.
    """
    if Path(dataset).is_dir():
        return f"sha256:{fingerprint(dataset)}"
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    if (seen := _last_seen.get()) is not None:
        return seen.get(dataset) or (revision or "main")
    return _commit(dataset, revision) or (revision or "main")


def _commit(dataset: str, revision: str | None) -> str | None:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise MissingExtraError.of("datasets", "hub") from None
    check_network()
    try:
        sha: str | None = HfApi().dataset_info(dataset, revision=revision, timeout=_TIMEOUT).sha
    except Exception as error:
        # The Hub may refuse or be unreachable. Loading from the cache may still work; if not, its error explains why.
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in {
            "huggingface_hub",
            "httpx",
            "httpx2",
            "httpcore",
            "requests",
        }:
            raise
        return None
    return sha


class DatasetReader(InPieces):
    """A split of a data set, memory-mapped and read in small batches of the wanted columns.

    Attributes:
        taken: facts for the manifest: the split, if it has a name, and the other splits, if none was named.
    """

    guessed = Guessed()
    uniform = True

    def __init__(self, source: Source, revision: str) -> None:
        # A branch is passed on by name, so that it is found in the cache without a network.
        pinned = revision if _COMMIT.fullmatch(revision) else source.revision
        wanted = Wanted(f"source '{source.name}'", str(source.dataset), source.config, source.split, pinned)
        self._data, split, others = load_split(wanted)
        self.taken: dict[str, Any] = ({"split": split} if split else {}) | ({"other_splits": others} if others else {})
        if others:
            log.warning(
                "source '%s': only the split '%s' is read; to read another, name it with `split`: %s",
                source.name,
                split,
                ", ".join(others),
            )
        self.columns: list[str] = list(self._data.column_names)
        self.total: int | None = self._data.num_rows

    def pieces(self, wanted: Sequence[str]) -> Iterator[Piece]:
        """All rows with the fields `wanted`."""
        columns = [name for name in self.columns if name in set(wanted)]
        for batch in self._data.select_columns(columns).with_format("arrow").iter(batch_size=_ROWS):
            yield Batch(batch)


class StreamReader:
    """The first rows of a data set, streamed over the network without downloading the rest.

    Its attributes are those of every reader.
    """

    guessed = Guessed()
    uniform = True

    def __init__(self, data: Any, total: int | None) -> None:
        self._data, self.total = data, total
        self.columns: list[str] = list(data.column_names or next(iter(data), {}))

    def rows(self, wanted: Sequence[str]) -> Rows:
        """The rows with the fields `wanted`, from the first one."""
        chosen = set(wanted)
        for number, row in enumerate(self._data):
            yield number, {name: value for name, value in row.items() if name in chosen}


def opened_as_stream(source: Source) -> StreamReader:
    """Open the data set of `source` to read its first rows.

    Raises:
        StorageError: when it cannot be reached or does not exist, which cannot be distinguished without a network.
        InputError: when it exists but has no such split or configuration, or cannot be read.
        MissingExtraError: when `datasets` is not installed.
        SettingsError: when an environment variable names an unusable proxy or certificate.
    """
    if not Path(str(source.dataset)).is_dir():
        check_network()
    try:
        load_packages("datasets")
        import datasets
    except ImportError:
        raise MissingExtraError.of("datasets", "hub") from None
    name, split = str(source.dataset), source.split or "train"
    try:
        data = datasets.load_dataset(name, source.config, split=split, revision=source.revision, streaming=True)
        info = (data.info.splits or {}).get(split)
        return StreamReader(data, getattr(info, "num_examples", None) or None)
    except (OSError, datasets.exceptions.DatasetsError) as error:  # ConnectionError and FileNotFoundError among them
        raise StorageError(f"cannot get the data set '{name}' from the Hub: {first_line(error)}") from None
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot load the data set '{name}' (split {split}): {first_line(error)}",
            allowed="the name of a data set on the Hub, or a folder with its files",
            action="correct the name, or leave it out and add it to the settings file later with `split` and `config`",
        ) from None
