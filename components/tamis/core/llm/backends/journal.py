"""What must outlive a kill of a rater that is asked by long jobs: which jobs there are and how far they are."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tamis.core.storage import Location, children, read_bytes, write_bytes

State = Literal["prepared", "uploaded", "created", "ended"]


class Entry(BaseModel):
    """One batch at the service.

    Attributes:
        token: made here; the batch carries it, so that one whose creation was not noted any more is found again.
        state: prepared: about to be uploaded; uploaded: about to be created; created: at work; ended: read.
        items: the batch's requests, each "sample-attempt".
        file, batch: ids at the service, once they are known.
        output, errors: ids of the files with what came of it, once they are known.
        unanswered: of an ended batch, those of the items that may be asked again.
    """

    model_config = ConfigDict(extra="forbid")

    token: str
    state: State
    items: list[str]
    file: str | None = None
    batch: str | None = None
    output: str | None = None
    errors: str | None = None
    unanswered: list[str] = []


class Journal:
    """Entries in a folder, local or in object storage, one file each, written whole."""

    def __init__(self, folder: Location) -> None:
        self._folder = folder

    def read(self) -> list[Entry]:
        """All entries, in no order that means anything. What is no entry is left out.

        Raises:
            StorageError: when the folder cannot be read.
        """
        found = []
        for location in children(self._folder):
            if location.name.endswith(".json") and not location.name.startswith("."):
                try:
                    found.append(Entry.model_validate(json.loads(read_bytes(location))))
                except (ValidationError, ValueError):
                    continue
        return found

    def write(self, entry: Entry) -> None:
        """Note how far a batch is; durable when this returns.

        Raises:
            StorageError: when it cannot be written.
        """
        write_bytes(self.place(entry), entry.model_dump_json().encode())

    def place(self, entry: Entry) -> Location:
        """The file of an entry."""
        return self._folder / f"{entry.token}.json"
