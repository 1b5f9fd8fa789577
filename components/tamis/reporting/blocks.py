"""The parts of a section. The page, the Markdown file and the CSV file are three views of the same sections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Tone = Literal["", "good", "bad", "muted"]


@dataclass(frozen=True)
class Cell:
    """A table cell: its text, and whether it is good or bad news, or unimportant (muted)."""

    text: str
    tone: Tone = ""
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table. The first column names the row; the others hold numbers unless named in `words`."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    words: Sequence[str] = ()
    note: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph. A `lead` paragraph says what was found; Markdown has only these."""

    kind: ClassVar[str] = "text"
    text: str
    lead: bool = False


@dataclass(frozen=True)
class Warnings:
    """Things that the reader must know before using the numbers, one sentence each."""

    kind: ClassVar[str] = "warnings"
    texts: Sequence[str]


@dataclass(frozen=True)
class Heading:
    """The heading of a part of a section; `anchor` is unique on the page."""

    kind: ClassVar[str] = "heading"
    title: str
    anchor: str


@dataclass(frozen=True)
class Figure:
    """A plot. `draw` paints it on axes of `width` x `height` pixels; `alt` describes it in words."""

    name: str
    caption: str
    alt: str
    draw: Callable[[Axes], None]
    width: int = 340
    height: int = 220


@dataclass(frozen=True)
class Figures:
    """Plots side by side, or one below the other on narrow screens."""

    kind: ClassVar[str] = "figures"
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Correction:
    """One sample whose rating was corrected, with shortened texts."""

    raw: int
    score: int
    confidence: float | None
    source: str
    instruction: str
    response: str
    truth: str = ""
    neighbors: Sequence[tuple[str, float, str]] = ()
    """For each of the nearest samples: the raw score class as text, the cosine distance, the instruction."""


@dataclass(frozen=True)
class Corrections:
    """Corrected samples, the most confident first."""

    kind: ClassVar[str] = "corrections"
    items: Sequence[Correction]


@dataclass(frozen=True)
class Sample:
    """One sample of a list, with shortened texts.

    `mark` is its place in a word or two, `why` a sentence that explains the place.
    """

    mark: str
    reasons: Sequence[str]
    instruction: str
    response: str
    why: str = ""


@dataclass(frozen=True)
class Listing:
    """Samples with details, collapsed under a summary; `note` is a sentence about all of them."""

    kind: ClassVar[str] = "listing"
    summary: str
    items: Sequence[Sample]
    note: str = ""


@dataclass(frozen=True)
class Details:
    """Preformatted text, collapsed under a summary."""

    kind: ClassVar[str] = "details"
    summary: str
    text: str


Block: TypeAlias = Text | Table | Warnings | Heading | Figures | Corrections | Listing | Details


@dataclass(frozen=True)
class KeyFigure:
    """A number for the top of the page."""

    value: str
    label: str


@dataclass(frozen=True)
class Result:
    """One number for `results.csv`: `subject` is the rater, subset or model, `measure` what was measured."""

    section: str
    subject: str
    measure: str
    value: float | None
    stderr: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass
class Section:
    """A section of the report.

    `clause` becomes part of the headline's sentence of counts, `sentence` is another sentence of the headline; both may
    be empty. `first` puts the sentence before those of all other sections, because human grades support it.
    """

    anchor: str
    title: str
    blocks: list[Block] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    key_figures: list[KeyFigure] = field(default_factory=list)
    clause: str = ""
    sentence: str = ""
    first: bool = False

    def add(self, *blocks: Block) -> None:
        """Append blocks."""
        self.blocks.extend(blocks)

    def measured(
        self,
        subject: str,
        measure: str,
        value: float | None,
        *,
        stderr: float | None = None,
        interval: tuple[float, float] | None = None,
        n: int | None = None,
    ) -> None:
        """Append a number for `results.csv`."""
        low, high = interval or (None, None)
        self.results.append(Result(self.anchor, subject, measure, value, stderr, low, high, n))

    @property
    def figures(self) -> list[Figure]:
        """All its plots, in order."""
        return [figure for block in self.blocks if isinstance(block, Figures) for figure in block.figures]
