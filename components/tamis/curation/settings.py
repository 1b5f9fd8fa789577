"""Settings of the curation stage."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tamis.core.references import DataPath
from tamis.core.scales import Scale
from tamis.core.settings import Settings, StageSettings

COMBINED = "combined"  # what the scores of all raters together are called
MOST_CLASSES = 6  # the paper's number, which selection and report are made for
_DIVERSITY_NEIGHBORS = 10
_OF_EXACT = (
    *("assume", "fill_missing", "neighbors", "copies", "copy_distance", "fit_samples", "per_source", "combine"),
    "posterior",
)


class GradesSettings(Settings):
    """Where human grades of some of the samples are: in a field of the pool's metadata, or in files."""

    column: str | None = Field(None, min_length=1, description="field of the pool's metadata that holds the grade")
    path: DataPath | tuple[DataPath, ...] | None = Field(
        None,
        min_length=1,
        description="file with the columns id and grade, and grader, note and weight where there are any: .jsonl, .csv "
        "or .parquet, local or in object storage; or a list of such files",
    )
    key: str | None = Field(
        None,
        min_length=1,
        description="with path, the files' column with ids of your own, which the pool has kept; a file without it, as "
        "a sheet of `tamis grade next`, is read by its column id, as all are if this is not given",
    )
    field: str | None = Field(
        None, min_length=1, description="with key, the kept field's name in the pool; that of the column by default"
    )
    scale: Scale | None = Field(
        None,
        description="the scale that the grades are on, {lowest: 1, highest: 5} say; it is stretched to 1..10; 1 to 10 "
        "if not given, unless the grades look like another",
    )
    min_matched_share: float = Field(
        0.5, ge=0, le=1, description="share of the graded samples, or of the pool's, that must find each other"
    )

    @model_validator(mode="after")
    def _check(self) -> GradesSettings:
        if (self.column is None) == (self.path is None):
            seen = "neither is given" if self.path is None else "both are given"
            raise ValueError(f"column or path, one of the two, says where the grades are; {seen}")
        if self.key is not None and self.path is None:
            raise ValueError("'key' is a column of files, and has a meaning only with path; leave it out")
        if self.field is not None and self.key is None:
            raise ValueError("with 'field', 'key' must name the files' column that is matched")
        return self

    @property
    def own_field(self) -> str | None:
        """The field of the pool's metadata by which grades find their samples; None where Tamis's ids do."""
        return None if self.key is None else self.field or self.key

    @property
    def pool_field(self) -> str | None:
        """The field of the pool's metadata that is read, as `column` or as `field`."""
        return self.column or self.own_field

    @property
    def paths(self) -> tuple[str, ...]:
        """The files; none where the grades are in the pool."""
        return (self.path,) if isinstance(self.path, str) else self.path or ()


class CurationSettings(StageSettings):
    """How the raters' errors are found and corrected (paper section 3)."""

    OUTPUT_REVISION: ClassVar[int] = 2

    mode: Literal["exact", "paper", "reference"] = Field(
        "exact",
        description="exact: from the whole graph, deterministic; paper: the paper's method in its rounds of draws; "
        "reference: what the paper's code does, each sample counted twice, to compare with published results",
    )
    value: Literal["overall", "expected"] = Field(
        "overall", description="which rating is used; expected: the mean under the rater's token probabilities, rounded"
    )
    lowest: int = Field(4, ge=1, le=10, description="ratings up to this one are score class 0")
    highest: int = Field(9, ge=1, le=10, description="ratings from this one on are the top score class")
    confidence: float | None = Field(
        None,
        ge=0,
        le=1,
        description="a rating is changed only to a class of at least this probability; null: 0 in exact mode, 0.5 in "
        "the others (the paper's)",
    )
    assume: Literal["cautious", "clusterable"] = Field(
        "cautious",
        description="cautious: only what the data can tell is corrected; clusterable: near samples are taken to share "
        "their true score, as in the paper, which one rater's ratings cannot show (exact mode)",
    )
    fill_missing: bool | Literal["auto"] = Field(
        "auto",
        description="give samples without a rating their most probable class; auto: where a rater was asked about a "
        "part of the pool only (exact mode)",
    )
    neighbors: int | Literal["auto"] = Field(
        "auto", description="neighbours used of each sample; auto: all of the graph, by their distance (exact mode)"
    )
    copies: Literal["exclude", "keep"] = Field(
        "exclude", description="exclude: samples with the same vector are no neighbours of each other (exact mode)"
    )
    copy_distance: float = Field(
        1e-5, ge=0, lt=1, description="cosine distance up to which samples are copies (exact mode)"
    )
    fit_samples: int = Field(20_000, ge=100, description="most samples that the model is fitted to (exact mode)")
    per_source: int | None = Field(
        None,
        ge=200,
        description="give each source of the pool with so many rated samples a T of its own; null: one T for all "
        "(exact mode)",
    )
    combine: bool = Field(
        False,
        description="add a rater 'combined': the model of all raters' ratings together (exact mode)",
    )
    posterior: bool = Field(
        False, description="also write each sample's probabilities of all score classes (exact mode)"
    )
    grades: GradesSettings | None = Field(
        None, description="human grades of some samples: a field of the pool's metadata, or files; null: there are none"
    )
    diversity: Literal["paper", "reference"] = Field(
        "paper", description="reference: as the paper's code computes it, on doubled samples and rounded"
    )
    diversity_neighbors: int = Field(
        _DIVERSITY_NEIGHBORS,
        ge=1,
        description="neighbours whose mean distance is the diversity; reference has its own",
    )
    seed: int = Field(0, ge=0, description="of the draws of the modes paper and reference")

    @model_validator(mode="after")
    def _check(self) -> CurationSettings:
        if self.highest <= self.lowest:
            raise ValueError(f"highest ({self.highest}) must be above lowest ({self.lowest})")
        if self.classes > MOST_CLASSES:
            raise ValueError(
                f"lowest {self.lowest} and highest {self.highest} make {self.classes} score classes; a run takes "
                f"{MOST_CLASSES} at most (on arrays, tamis.curation.curate takes any number)"
            )
        if isinstance(self.neighbors, int) and self.neighbors < 1:
            raise ValueError(f"neighbors ({self.neighbors}) must be 1 or more, or auto")
        if self.mode != "exact":
            changed = [name for name in _OF_EXACT if getattr(self, name) != type(self).model_fields[name].default]
            if changed:
                raise ValueError(f"{' and '.join(changed)} needs mode: exact, not {self.mode}; leave it out")
        if self.diversity == "reference" and self.diversity_neighbors != _DIVERSITY_NEIGHBORS:
            raise ValueError("diversity_neighbors has no meaning with diversity: reference; leave it out")
        return self

    @property
    def classes(self) -> int:
        """Number of score classes."""
        return self.highest - self.lowest + 1

    @property
    def threshold(self) -> float:
        """The confidence in force."""
        if self.confidence is not None:
            return self.confidence
        return 0.0 if self.mode == "exact" else 0.5
