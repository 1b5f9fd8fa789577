"""The base class of measures: a measure is defined by the class of its settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import pyarrow as pa

from tamis.core.samples import Message
from tamis.core.settings import Settings
from tamis.core.tables import SCORES

if TYPE_CHECKING:
    from tamis.core.conversations import Format
    from tamis.scoring.settings import ScoringSettings


class Pass(Protocol):
    """One pass over the whole pool. It loads its model, or whatever else it needs, for the first samples."""

    def score(self, ids: pa.Array, conversations: Sequence[Sequence[Message]]) -> pa.Table:
        """Return a table with one row per sample, in order."""


class MeasureSettings(Settings, ABC):
    """Base of every measure's settings. A subclass has `kind`, a Literal of its name, and defaults for all fields.

    The artifact of its scores, and its section in a run's settings, have the measure's name.

    Attributes:
        SCHEMA: columns of its scores: those of `tables.SCORES`, and any others.
        POD: kind of pod on a cluster: "rating" for models, "base" if a GPU does not help.
        PACKAGES: the packages that it imports, and the extra of Tamis that installs each; `tamis doctor` checks them.
    """

    SCHEMA: ClassVar[pa.Schema] = SCORES
    POD: ClassVar[Literal["base", "rating"]] = "rating"
    PACKAGES: ClassVar[Mapping[str, str]] = {}

    kind: str

    def models(self) -> Mapping[str, str]:
        """Return the revision (`models.revision_of`) of each model by its role; they are part of the step's key."""
        return {}

    def tokenizer(self) -> tuple[str, str | None, Format] | None:
        """Return model, revision and format of the chat template that `tamis doctor` checks; None: no template."""
        return None

    @abstractmethod
    def passes(self, settings: ScoringSettings) -> dict[str, Pass]:
        """Return the passes over the pool, in order, by their names in the progress. Nothing is loaded yet."""

    def joined(self, *tables: pa.Table) -> pa.Table:
        """Combine the tables of all passes for some samples into their scores, with the columns of `SCHEMA`."""
        (table,) = tables
        return table
