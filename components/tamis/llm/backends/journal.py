"""The journal of batches: notes each batch and its state, so that a killed run can continue."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tamis.core.errors import StorageError
from tamis.core.storage import Location, children, create_bytes, exists, missing, read_bytes, write_bytes
from tamis.llm.store import PATIENCE, tried_again

_TO_READ = 30.0  # seconds that reading is tried for; nothing is lost where it is given up
T = TypeVar("T")
State = Literal["prepared", "uploaded", "created", "ended"]


class Owner(BaseModel):
    """The run that owns an entry."""

    model_config = ConfigDict(extra="forbid")

    machine: str
    pid: int
    run: str


class Entry(BaseModel):
    """One batch at the service.

    Attributes:
        number: number of the entry in the journal, from 1; None for entries of version 0.1.
        owner: the run that owns it; None for entries of version 0.1.
        token: random token in the batch's metadata, to find a batch whose creation could not be noted.
        state: prepared: not uploaded yet; uploaded: not created yet; created: in progress; ended: read.
        items: requests of the batch, each "sample-attempt".
        file, batch: ids at the service, once known.
        output, errors: ids of the files with results, once known.
        unanswered: items of an ended batch that may be sent again.
    """

    model_config = ConfigDict(extra="forbid")

    number: int | None = None
    owner: Owner | None = None
    token: str
    state: State
    items: list[str]
    file: str | None = None
    batch: str | None = None
    output: str | None = None
    errors: str | None = None
    unanswered: list[str] = []


class Journal:
    """Entries in a folder, local or in object storage, one file per entry.

    If two runs add entries at the same time, one of them fails and learns about the other. If storage fails after it
    has worked, it is retried for ten minutes, as for a store.

    Args:
        folder: folder of the entries.
        check: called before each write; raises an error if the folder has been replaced.
    """

    def __init__(self, folder: Location, check: Callable[[], None] = lambda: None) -> None:
        self._folder, self._last, self._check = folder, 0, check
        self._worked = False

    def read(self, known: Collection[str] = ()) -> list[Entry]:
        """All entries except those whose file names are `known`, in any order.

        Raises:
            StorageError: when the folder, or an entry, cannot be read; without an entry, a batch would be paid twice.
        """
        names = self._tried(lambda: children(self._folder), _TO_READ)
        there = [one for one in names if one.name.endswith(".json") and one.name not in known]
        found = [
            self._read(location) for location in there if not location.name.startswith(".")
        ]  # a file that is being written
        self._last = max([self._last, *(entry.number or 0 for entry in found)])
        return found

    def add(self, entry: Entry) -> bool:
        """Add an entry durably, unless another one was added since the last `read`; return whether it was added.

        Raises:
            StorageError: when it cannot be written.
        """
        entry.number = self._last + 1
        place, data = self.place(entry), entry.model_dump_json().encode()

        def create() -> bool:
            self._check()
            # A failed try may have created it nevertheless.
            return create_bytes(place, data) or read_bytes(place) == data

        added = self._tried(create, PATIENCE)
        self._last += added
        return added

    def refresh(self, entry: Entry) -> Entry:
        """Update an entry with what other runs have noted.

        Raises:
            StorageError: when it cannot be read.
        """
        for name, value in self._read(self.place(entry)):
            setattr(entry, name, value)
        return entry

    def write(self, entry: Entry) -> None:
        """Note the state of a batch durably.

        Raises:
            StorageError: when it cannot be written.
        """
        data = entry.model_dump_json().encode()

        def write() -> None:
            self._check()
            write_bytes(self.place(entry), data)

        self._tried(write, PATIENCE)

    def place(self, entry: Entry) -> Location:
        """The file of an entry."""
        return self._folder / (f"{entry.token}.json" if entry.number is None else f"{entry.number:06d}.json")

    def _read(self, location: Location) -> Entry:
        def read() -> bytes | None:
            try:
                return read_bytes(location)
            except StorageError:
                if exists(location):
                    raise
                return None  # waiting does not bring it back

        return _entry(location, self._tried(read, _TO_READ))

    def _tried(self, do: Callable[[], T], patience: float) -> T:
        done = tried_again(do, "the journal of batches cannot be used", patience if self._worked else 0.0)
        self._worked = True
        return done


def _entry(location: Location, data: bytes | None) -> Entry:
    if data is None:
        raise missing(str(location))
    try:
        return Entry.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise StorageError(
            f"{location} is not an entry of a journal of batches: {where}: {first['msg']}",
            allowed="entries written by this version of Tamis or an earlier one",
            action="continue with the version that wrote it; or delete it; its requests are then paid for again",
            permanent=True,
        ) from None
