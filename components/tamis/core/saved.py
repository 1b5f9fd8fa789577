"""Folders written by `save_to_disk` of the `datasets` library: one data set, or one folder per split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamis.core.errors import InputError, MissingExtraError, explained_os_errors

if TYPE_CHECKING:
    from tamis.core.hub import Wanted

_OF_ONE, _OF_SPLITS = "state.json", "dataset_dict.json"
# Files that describe a data set and have no rows.
DESCRIPTIONS = (_OF_ONE, _OF_SPLITS, "dataset_info.json", "dataset_infos.json")


def is_saved(path: str) -> bool:
    """Whether `path` is a local folder written by `save_to_disk`."""
    folder = Path(path)
    # Both files are required, because other programs also write a state.json.
    described = (folder / _OF_ONE).is_file() and (folder / "dataset_info.json").is_file()
    return described or (folder / _OF_SPLITS).is_file()


def load_saved(wanted: Wanted) -> tuple[Any, str | None, list[str]]:
    """Load the split that `wanted` names from the folder `wanted.dataset`.

    Returns:
        The data set, the name of its split (None if it has none), and the other splits of the folder.

    Raises:
        InputError: when the folder does not have the wanted split or configuration, has several splits and none is
            named, or cannot be read.
        MissingExtraError: when `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError.of("datasets", "hub") from None
    folder = wanted.dataset
    try:
        with explained_os_errors(f"reading {folder}"):
            found = datasets.load_from_disk(folder)
    except IndexError:  # raised for a split that was saved without rows
        raise InputError(
            f"{wanted.shown}: {folder} has a split without rows, which `datasets` cannot load",
            action="save it again without that split, or give the folder of a single split",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{wanted.shown}: {folder} is not a complete folder of `save_to_disk`: {error}", action="save it again"
        ) from None
    splits = dict(found) if isinstance(found, dict) else {_name_of(found, Path(folder)): found}
    _check_config(wanted, {data.info.config_name for data in splits.values()} - {None})
    names = [name for name in splits if name]
    if wanted.split is not None:
        return _selected(wanted, splits), wanted.split, []
    if len(splits) == 1:
        name, data = next(iter(splits.items()))
        return data, name or None, []
    if wanted.usual not in splits:
        raise InputError(
            f"{wanted.shown}: {folder} has several splits, and none of them is '{wanted.usual}'",
            allowed=", ".join(names),
            action="give the folder as `dataset`, and name one of the splits with `split`",
        )
    return splits[wanted.usual], wanted.usual, [name for name in names if name != wanted.usual]


def _name_of(data: Any, folder: Path) -> str:
    """The name of the split in a folder: its own name, or the folder's name beside other splits, or empty."""
    listing = folder.resolve().parent / _OF_SPLITS
    if data.split is None and listing.is_file() and folder.resolve().name in json.loads(listing.read_bytes())["splits"]:
        return folder.resolve().name
    return str(data.split or "")


def _check_config(wanted: Wanted, configs: set[str]) -> None:
    if wanted.config is not None and wanted.config not in configs:
        raise InputError(
            f"{wanted.shown}: {wanted.dataset} has no configuration '{wanted.config}'",
            allowed=", ".join(sorted(configs)) or "none: the saved data set has no configuration",
            action="leave out `config`, or give the folder of that configuration",
        )


def _selected(wanted: Wanted, splits: dict[str, Any]) -> Any:
    """The rows that `wanted.split` names; it may name parts of one or several splits: "train[:100]", "train+test"."""
    import datasets

    names = [name for name in splits if name]
    try:
        asked = datasets.ReadInstruction.from_spec(wanted.split)
        parts = asked.to_absolute({name: splits[name].num_rows for name in names})
    except (ValueError, AssertionError) as error:
        raise InputError(
            f"{wanted.shown}: {wanted.dataset} has no split '{wanted.split}': {error}",
            allowed=", ".join(names) or "none: the saved data set has no splits",
            action="correct `split`, or leave it out",
        ) from None
    taken = [splits[part.splitname].select(range(part.from_, part.to)) for part in parts]
    return taken[0] if len(taken) == 1 else datasets.concatenate_datasets(taken)
