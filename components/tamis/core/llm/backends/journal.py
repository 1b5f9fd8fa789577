"""What must outlive a kill of a rater that is asked by long jobs: which jobs there are and how far they are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tamis.core.errors import StorageError
from tamis.core.storage import Location, children, create_bytes, read_bytes, write_bytes

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

    Two runs cannot add entries at once without one of them knowing of the other's.
    """

    def __init__(self, folder: Location) -> None:
        self._folder, self._last = folder, 0

    def read(self, known: Collection[str] = ()) -> list[Entry]:
        """All entries but those whose files' names are `known`, in no order that means anything.

        Raises:
            StorageError: when the folder cannot be read, or what is in it: to leave an entry out is to pay twice.
        """
        there = [one for one in children(self._folder) if one.name.endswith(".json") and one.name not in known]
        found = [_entry(location) for location in there if not location.name.startswith(".")]  # "." is being written
        self._last = max([self._last, *(entry.number or 0 for entry in found)])
        return found

    def add(self, entry: Entry) -> bool:
        """Add an entry, durably, if none was added since the last `read`; whether it was.

        Raises:
            StorageError: when it cannot be written.
        """
        entry.number = self._last + 1
        added = create_bytes(self.place(entry), entry.model_dump_json().encode())
        self._last += added
        return added

    def refresh(self, entry: Entry) -> Entry:
        """Bring an entry up to date with what others have noted of it.

        Raises:
            StorageError: when it cannot be read.
        """
        for name, value in _entry(self.place(entry)):
            setattr(entry, name, value)
        return entry

    def write(self, entry: Entry) -> None:
        """Note how far a batch is; durable when this returns.

        Raises:
            StorageError: when it cannot be written.
        """
        write_bytes(self.place(entry), entry.model_dump_json().encode())

    def place(self, entry: Entry) -> Location:
        """The file of an entry."""
        return self._folder / (f"{entry.token}.json" if entry.number is None else f"{entry.number:06d}.json")


def _entry(location: Location) -> Entry:
    try:
        return Entry.model_validate_json(read_bytes(location))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise StorageError(
            f"{location} is no entry of a journal of batches: {where}: {first['msg']}",
            allowed="entries that this version of Tamis, or an earlier one, has written",
            action="go on with the version that wrote it; or delete it: what was sent with it is then sent, and paid "
            "for, again",
        ) from None
