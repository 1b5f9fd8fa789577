"""Where the results of a local run lie: links to finished artifacts, in place of an earlier run's."""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path

from tamis.core.artifacts import MANIFEST, Artifact, Manifest, manifest_in
from tamis.core.errors import StorageError, explained_os_errors
from tamis.core.stages import all_stages
from tamis.core.storage import link_tree, write_bytes
from tamis.selection.settings import strategy_of
from tamis_pipelines.experiment import base_evaluations
from tamis_pipelines.settings import RunSettings

log = logging.getLogger(__name__)

# Where each kind lies. Those that a run has several of get a folder each, by name.
_RESULTS = [stage for stage in all_stages().values() if stage.place]
_SHELVES: dict[str, str] = {stage.makes: stage.place for stage in _RESULTS}
_SINGLE = [stage.makes for stage in _RESULTS if not stage.several]
_CHOSEN = tuple(f"{_SHELVES[kind]}/" for kind in ("ratings", "selection", "model"))  # named by the settings


class Results:
    """The folder of a run's results.

    Args:
        folder: where they appear.
        home: the working folder's `.tamis`, which keeps the note of what is in `folder`.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self._home = folder, home
        named = "" if folder == home.parent else f"-{folder.name}"
        self._note = home / f"laid-out{named}.json"

    def make_room(self, settings: RunSettings) -> None:
        """Make sure that no place of a result is one of the user's files or folders; say what the run will replace.

        Raises:
            StorageError: naming places that are in use.
        """
        earlier, places = self._laid_out(), _places_of(settings)
        if foreign := [
            self.folder / place for place in places if place not in earlier and _in_use(self.folder / place)
        ]:
            raise _in_the_way(foreign)
        if gone := self.gone(settings):
            log.warning(
                "%s holds results of an earlier run that this one does not make; they go when it is whole: %s. To keep "
                "both, give this run a `name`",
                self.folder,
                ", ".join(gone),
            )

    def gone(self, settings: RunSettings) -> list[str]:
        """Places of an earlier run's ratings, subsets and models that a run of `settings` does not make."""
        others = set(self._laid_out()) - set(_places_of(settings))
        return sorted(place for place in others if place.startswith(_CHOSEN))

    def lay_out(self, runs: Path, *, whole: bool = True) -> list[str]:
        """Link every artifact in `runs` to its place, in place of an earlier run's.

        Where the run is not `whole`, artifacts of an earlier run stay that it has not made anew, such as the report.

        Returns:
            The places, in order.

        Raises:
            StorageError: when other files are in the way of some; the others are there then. Or when the folder cannot
                be written.
        """
        with explained_os_errors(f"writing {self.folder}"):
            places, blocked = self._put_in_place(runs, whole)
        if blocked:
            raise _in_the_way(blocked)
        return places

    def _put_in_place(self, runs: Path, whole: bool) -> tuple[list[str], list[Path]]:
        """Returns: the artifacts' places, and those where other files are in the way."""
        earlier, blocked = self._laid_out(), []
        artifacts = [Artifact.open(path.parent) for path in sorted(runs.rglob(MANIFEST))]
        places = {_place_of(artifact.manifest): artifact for artifact in artifacts}
        now = {place: artifact.manifest.key for place, artifact in places.items()}
        kept = {} if whole else {place: key for place, key in earlier.items() if place not in now}
        self._remember([*earlier.items(), *now.items()])  # both, for a kill in between
        for place in [place for place in earlier if place not in kept]:
            _clear(self.folder / place)
        for place, artifact in places.items():
            if any((self.folder / place / name).exists() for name in _files_of(artifact.manifest)):
                blocked.append(self.folder / place)
            else:
                self._put(artifact.folder, self.folder / place)
        self._remember([*kept.items(), *now.items()])
        if replaced := sorted(place for place, key in now.items() if earlier.get(place, key) != key):
            log.info("other settings or inputs than the earlier run's, so replaced: %s", ", ".join(replaced))
        return sorted(places), blocked

    def _put(self, folder: Path, place: Path) -> None:
        """Link an artifact to its place; it appears in one move, unless files of the user's lie there as well."""
        if place.exists():
            link_tree(folder, place)
            return
        waiting = self._home / "laying-out"
        shutil.rmtree(waiting, ignore_errors=True)
        link_tree(folder, waiting)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(waiting, place)

    def _remember(self, places: list[tuple[str, str]]) -> None:
        """Note which artifacts, by their keys, a run has put where."""
        self._note.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(self._note, (json.dumps(places) + "\n").encode())

    def _laid_out(self) -> dict[str, str]:
        """Where artifacts of an earlier run lie, with their keys."""
        noted = json.loads(self._note.read_bytes()) if self._note.is_file() else []
        found = {place: manifest_in(self.folder / place) for place, _ in noted}
        return {place: key for place, key in noted if (manifest := found[place]) is not None and manifest.key == key}


def _places_of(settings: RunSettings) -> list[str]:
    """Every place, within the folder of results, that the run may put an artifact in."""
    cells = [cell.name for cell in settings.cells]
    names: dict[str, list[str]] = {kind: [""] for kind in _SINGLE}
    names |= {"ratings": [rater.name for rater in settings.raters]}
    names |= {kind: cells for kind in ("selection", "model", "evaluation", "judgement")}
    names["evaluation"] = [*cells, *(base.name for base in base_evaluations(settings))]
    names["scores"] = sorted({scores for cell in settings.cells if (scores := strategy_of(cell.subset).scores)})
    return [str(Path(_SHELVES[kind]) / name) for kind, those in names.items() for name in those]


def _place_of(manifest: Manifest) -> str:
    return str(Path(_SHELVES[manifest.kind]) / manifest.name)


def _in_use(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _in_the_way(places: list[Path]) -> StorageError:
    return StorageError(
        f"{', '.join(map(str, places))}: other files are where results of the run belong",
        action="move them, or choose another work_dir",
    )


def _clear(folder: Path) -> None:
    """Remove the files of the artifact in `folder`, and folders that are empty then; what a user put there stays."""
    manifest = manifest_in(folder)
    for name in _files_of(manifest) if manifest else ():
        (folder / name).unlink(missing_ok=True)
    for below in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        _remove_if_empty(below)
    _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


def _files_of(manifest: Manifest) -> list[str]:
    return [*(file.name for file in manifest.files), MANIFEST]  # the manifest last: it tells what the folder is
