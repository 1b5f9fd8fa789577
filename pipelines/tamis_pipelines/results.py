"""The results folder of a local run: links to finished artifacts, which replace those of an earlier run."""

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

# The place of each kind of artifact. If a run has several of a kind, each has a folder with its name.
_RESULTS = [stage for stage in all_stages().values() if stage.place]
_SHELVES: dict[str, str] = {stage.makes: stage.place for stage in _RESULTS}
_SINGLE = [stage.makes for stage in _RESULTS if not stage.several]
_WITH_COPIES = f"{_SHELVES['pool']}/with-near-copies"  # the whole pool, where a run drops near-copies
_CHOSEN = tuple(f"{_SHELVES[kind]}/" for kind in ("ratings", "selection", "model"))  # named by the settings


class Results:
    """The folder of a run's results.

    Args:
        folder: where results appear.
        home: the working folder's `.tamis`, which keeps a note of what is in `folder`.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self._home = folder, home
        named = "" if folder == home.parent else f"-{folder.name}"
        self._note = home / f"laid-out{named}.json"

    def make_room(self, settings: RunSettings) -> None:
        """Check that the user's own files are not in the places of results, and warn of results that will be removed.

        Raises:
            StorageError: naming places that are in use.
        """
        earlier, places = self._laid_out(), _places_of(settings)
        if foreign := [
            self.folder / place for place in places if place not in earlier and _in_use(self.folder / place)
        ]:
            raise _in_the_way(foreign)
        if removed := self.removed(settings):
            log.warning(
                "%s has results of an earlier run that this run does not make; they are removed when it is complete: "
                "%s. To keep both, give this run a `name`",
                self.folder,
                ", ".join(removed),
            )

    def removed(self, settings: RunSettings) -> list[str]:
        """Return the places of an earlier run's ratings, subsets and models that a run of `settings` does not make."""
        others = set(self._laid_out()) - set(_places_of(settings))
        return sorted(place for place in others if place.startswith(_CHOSEN))

    def lay_out(self, runs: Path, *, whole: bool = True) -> list[str]:
        """Link every artifact in `runs` to its place, and remove artifacts of an earlier run.

        If the run is not `whole`, an earlier run's artifacts that it has not replaced stay, such as the report.

        Returns:
            The places, in order.

        Raises:
            StorageError: when other files are in the way of some artifacts (all others are linked), or when the folder
                cannot be written.
        """
        with explained_os_errors(f"writing {self.folder}"):
            places, blocked = self._put_in_place(runs, whole)
        if blocked:
            raise _in_the_way(blocked)
        return places

    def _put_in_place(self, runs: Path, whole: bool) -> tuple[list[str], list[Path]]:
        """Return the artifacts' places, and those where other files are in the way."""
        earlier, blocked = self._laid_out(), []
        artifacts = [Artifact.open(path.parent) for path in sorted(runs.rglob(MANIFEST))]
        without_copies = any(artifact.manifest.stage == "nearcopies" for artifact in artifacts)
        places = {_place_of(artifact.manifest, without_copies): artifact for artifact in artifacts}
        now = {place: artifact.manifest.key for place, artifact in places.items()}
        kept = {} if whole else {place: key for place, key in earlier.items() if place not in now}
        self._remember([*earlier.items(), *now.items()])  # both, in case of a kill before the next note
        for place in [place for place in earlier if place not in kept]:
            _clear(self.folder / place)
        for place, artifact in places.items():
            if any((self.folder / place / name).exists() for name in _files_of(artifact.manifest)):
                blocked.append(self.folder / place)
            else:
                self._put(artifact.folder, self.folder / place)
        self._remember([*kept.items(), *now.items()])
        if replaced := sorted(place for place, key in now.items() if earlier.get(place, key) != key):
            log.info("replaced results of an earlier run with other settings or inputs: %s", ", ".join(replaced))
        return sorted(places), blocked

    def _put(self, folder: Path, place: Path) -> None:
        """Link an artifact to its place, in one move unless the user has files there."""
        if place.exists():
            link_tree(folder, place)
            return
        waiting = self._home / "laying-out"
        shutil.rmtree(waiting, ignore_errors=True)
        link_tree(folder, waiting)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(waiting, place)

    def _remember(self, places: list[tuple[str, str]]) -> None:
        """Note where a run has put which artifacts, by their keys."""
        self._note.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(self._note, (json.dumps(places) + "\n").encode())

    def _laid_out(self) -> dict[str, str]:
        """Return the places of an earlier run's artifacts, with their keys."""
        noted = json.loads(self._note.read_bytes()) if self._note.is_file() else []
        found = {place: manifest_in(self.folder / place) for place, _ in noted}
        return {place: key for place, key in noted if (manifest := found[place]) is not None and manifest.key == key}


def _places_of(settings: RunSettings) -> list[str]:
    """Return every place in the results folder where the run may put an artifact."""
    cells = [cell.name for cell in settings.cells]
    names: dict[str, list[str]] = {kind: [""] for kind in _SINGLE}
    names |= {"ratings": [rater.name for rater in settings.raters]}
    names |= {kind: cells for kind in ("selection", "model", "evaluation", "judgement")}
    names["evaluation"] = [*cells, *(base.name for base in base_evaluations(settings))]
    names["scores"] = sorted({scores for cell in settings.cells if (scores := strategy_of(cell.subset).scores)})
    places = [str(Path(_SHELVES[kind]) / name) for kind, those in names.items() for name in those]
    return places + ([_WITH_COPIES] if settings.near_copies is not None else [])


def _place_of(manifest: Manifest, without_copies: bool) -> str:
    if without_copies and manifest.stage == "pool":
        return _WITH_COPIES
    return str(Path(_SHELVES[manifest.kind]) / manifest.name)


def _in_use(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _in_the_way(places: list[Path]) -> StorageError:
    return StorageError(
        f"{', '.join(map(str, places))}: there are other files in the place of the run's results",
        action="move these files, or choose another work_dir",
    )


def _clear(folder: Path) -> None:
    """Remove the files of the artifact in `folder`, and folders that are then empty; the user's own files stay."""
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
    return [*(file.name for file in manifest.files), MANIFEST]  # the manifest last: it says what the folder is
