"""What must outlive a kill of a rater that is asked by long jobs: which jobs there are and how far they are."""

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
    """The run that looks after an entry."""

    model_config = ConfigDict(extra="forbid")

    machine: str
    pid: int
    run: str


class Entry(BaseModel):
    """One batch at the service.

    Attributes:
        number: of the entry in the journal, from 1; None for those of version 0.1.
        owner: who looks after it; None for those of version 0.1.
        token: made here; the batch carries it, so that one whose creation was not noted any more is found again.
        state: prepared: about to be uploaded; uploaded: about to be created; created: at work; ended: read.
        items: the batch's requests, each "sample-attempt".
        file, batch: ids at the service, once they are known.
        output, errors: ids of the files with what came of it, once they are known.
        unanswered: of an ended batch, those of the items that may be asked again.
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
    """Entries in a folder, local or in object storage, one file each, written whole.

    Two runs cannot add entries at once without one of them knowing of the other's. Storage that fails once it has
    worked is tried again for as long as a store's is, ten minutes.

    Args:
        folder: of the entries.
        check: called before each writing; raises where the folder's storage is another one than at the start.
    """

    def __init__(self, folder: Location, check: Callable[[], None] = lambda: None) -> None:
        self._folder, self._last, self._check = folder, 0, check
        self._worked = False

    def read(self, known: Collection[str] = ()) -> list[Entry]:
        """All entries but those whose files' names are `known`, in no order that means anything.

        Raises:
            StorageError: when the folder cannot be read, or what is in it: to leave an entry out is to pay twice.
        """
        names = self._tried(lambda: children(self._folder), _TO_READ)
        there = [one for one in names if one.name.endswith(".json") and one.name not in known]
        found = [self._read(location) for location in there if not location.name.startswith(".")]  # is being written
        self._last = max([self._last, *(entry.number or 0 for entry in found)])
        return found

    def add(self, entry: Entry) -> bool:
        """Add an entry, durably, if none was added since the last `read`; whether it was.

        Raises:
            StorageError: when it cannot be written.
        """
        entry.number = self._last + 1
        place, data = self.place(entry), entry.model_dump_json().encode()

        def create() -> bool:
            self._check()
            # A try that met a fault may have been made all the same.
            return create_bytes(place, data) or read_bytes(place) == data

        added = self._tried(create, PATIENCE)
        self._last += added
        return added

    def refresh(self, entry: Entry) -> Entry:
        """Bring an entry up to date with what others have noted of it.

        Raises:
            StorageError: when it cannot be read.
        """
        for name, value in self._read(self.place(entry)):
            setattr(entry, name, value)
        return entry

    def write(self, entry: Entry) -> None:
        """Note how far a batch is; durable when this returns.

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
                return None  # it does not come back by waiting

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
            f"{location} is no entry of a journal of batches: {where}: {first['msg']}",
            allowed="entries that this version of Tamis, or an earlier one, has written",
            action="go on with the version that wrote it; or delete it: what was sent with it is then sent, and paid "
            "for, again",
        ) from None
