"""What a measure of scoring is: the class of its settings says it all."""

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
    """Looks at the whole pool once. What it needs, such as a model, it loads when the first samples come."""

    def score(self, ids: pa.Array, conversations: Sequence[Sequence[Message]]) -> pa.Table:
        """A table with one row per sample, in order."""


class MeasureSettings(Settings, ABC):
    """Base of the settings of every measure; a subclass has `kind`, a Literal of its name, and defaults for the rest.

    The artifact of its scores and the section of a run's settings are called like the measure.

    Attributes:
        SCHEMA: columns of its scores: those of `tables.SCORES`, and any others.
        POD: kind of pod on a cluster: "rating" for models, "base" where no GPU helps.
        PACKAGES: packages that it imports, to the extras of Tamis that bring them; `tamis doctor` looks for them.
    """

    SCHEMA: ClassVar[pa.Schema] = SCORES
    POD: ClassVar[Literal["base", "rating"]] = "rating"
    PACKAGES: ClassVar[Mapping[str, str]] = {}

    kind: str

    def models(self) -> Mapping[str, str]:
        """Roles of models to their revisions (`models.revision_of`); they enter the step's key."""
        return {}

    def tokenizer(self) -> tuple[str, str | None, Format] | None:
        """Model, revision and format of the chat template that `tamis doctor` tries; None: none is needed."""
        return None

    @abstractmethod
    def passes(self, settings: ScoringSettings) -> dict[str, Pass]:
        """What looks at the pool, one after the other, by what the progress calls it. Nothing is loaded yet."""

    def joined(self, *tables: pa.Table) -> pa.Table:
        """The scores of some samples, in the form of `SCHEMA`, out of what each pass made of them."""
        (table,) = tables
        return table
