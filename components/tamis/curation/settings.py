"""Settings of the curation stage."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tamis.core.references import DataPath
from tamis.core.scales import Scale
from tamis.core.settings import Settings, StageSettings

COMBINED = "combined"  # name of the scores of all raters together
MOST_CLASSES = 6  # the paper's number; selection and report support no more
_DIVERSITY_NEIGHBORS = 10
_OF_EXACT = (
    *("assume", "fill_missing", "neighbors", "copies", "copy_distance", "fit_samples", "per_source", "combine"),
    "posterior",
)


class GradesSettings(Settings):
    """Where the human grades of some samples are: in a field of the pool's metadata, or in files."""

    column: str | None = Field(None, min_length=1, description="field of the pool's metadata with the grade")
    path: DataPath | tuple[DataPath, ...] | None = Field(
        None,
        min_length=1,
        description="file or list of files with the columns id and grade, and optionally grader, note and weight: "
        ".jsonl, .csv or .parquet, local or in object storage",
    )
    key: str | None = Field(
        None,
        min_length=1,
        description="with path: the files' column with your own ids, which the pool must keep in its metadata; without "
        "key, and for files that lack this column, such as sheets of `tamis grade next`, the column id is used",
    )
    field: str | None = Field(
        None, min_length=1, description="with key: the field of the pool's metadata with your ids; default: as key"
    )
    scale: Scale | None = Field(
        None,
        description="the scale of the grades, for example {lowest: 1, highest: 5}, which is mapped to 1 to 10; the "
        "default is 1 to 10, but grades that look like another scale are an error",
    )
    min_matched_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="least share of the graded samples that must be in the pool, or of the pool's "
        "samples that must have a grade; a lower match is an error",
    )

    @model_validator(mode="after")
    def _check(self) -> GradesSettings:
        if (self.column is None) == (self.path is None):
            seen = "neither is given" if self.path is None else "both are given"
            raise ValueError(f"give the grades as either column or path; {seen}")
        if self.key is not None and self.path is None:
            raise ValueError("'key' is a column of files and works only with path; omit it")
        if self.field is not None and self.key is None:
            raise ValueError("'field' needs 'key', the files' column of ids")
        return self

    @property
    def own_field(self) -> str | None:
        """The field of the pool's metadata that identifies the graded samples; None if the grades have Tamis's ids."""
        return None if self.key is None else self.field or self.key

    @property
    def pool_field(self) -> str | None:
        """The field of the pool's metadata that is read, as `column` or as `field`."""
        return self.column or self.own_field

    @property
    def paths(self) -> tuple[str, ...]:
        """The files; none if the grades are in the pool."""
        return (self.path,) if isinstance(self.path, str) else self.path or ()


class CurationSettings(StageSettings):
    """How the raters' errors are estimated and corrected (paper section 3)."""

    OUTPUT_REVISION: ClassVar[int] = 4

    mode: Literal["exact", "paper", "reference"] = Field(
        "exact",
        description="exact: uses the whole graph, deterministic; paper: the paper's method, with rounds of random "
        "draws; reference: as in the paper's code, which counts each sample twice, for comparison with published "
        "results",
    )
    value: Literal["overall", "expected"] = Field(
        "overall", description="the rating to use; expected: the mean under the rater's token probabilities, rounded"
    )
    lowest: int = Field(4, ge=1, le=10, description="ratings up to this one are score class 0")
    highest: int = Field(9, ge=1, le=10, description="ratings from this one on are the top score class")
    confidence: float | None = Field(
        None,
        ge=0,
        le=1,
        description="a rating is changed only to a class with at least this probability; null: 0 in exact mode, 0.5 in "
        "the other modes, as in the paper",
    )
    assume: Literal["cautious", "clusterable"] = Field(
        "cautious",
        description="cautious: correct only errors that the data can show; clusterable: assume that near samples share "
        "their true score, as the paper does, although one rater's ratings cannot show it (exact mode)",
    )
    fill_missing: bool | Literal["auto"] = Field(
        "auto",
        description="give samples without a rating their most probable class; auto: only if a rater was asked to rate "
        "a part of the pool (exact mode)",
    )
    neighbors: int | Literal["auto"] = Field(
        "auto", description="number of neighbours to use; auto: all in the graph, weighted by distance (exact mode)"
    )
    copies: Literal["exclude", "keep"] = Field(
        "exclude", description="exclude: samples with the same vector do not count as neighbours (exact mode)"
    )
    copy_distance: float = Field(1e-5, ge=0, lt=1, description="largest cosine distance between copies (exact mode)")
    fit_samples: int = Field(20_000, ge=100, description="most samples to fit the model to (exact mode)")
    per_source: int | None = Field(
        None,
        ge=200,
        description="give each source with at least this many rated samples its own transition matrix T; null: one T "
        "for all (exact mode)",
    )
    combine: bool = Field(
        False,
        description="add a rater 'combined', the model of all raters together (exact mode)",
    )
    posterior: bool = Field(
        False, description="also write the probabilities of all score classes for each sample (exact mode)"
    )
    grades: GradesSettings | None = Field(
        None, description="human grades of some samples, in a field of the pool's metadata or in files; null: none"
    )
    diversity: Literal["paper", "reference"] = Field(
        "paper", description="reference: as in the paper's code, on doubled samples and rounded"
    )
    diversity_neighbors: int = Field(
        _DIVERSITY_NEIGHBORS,
        ge=1,
        description="number of nearest neighbours in the mean distance; not used with diversity: reference",
    )
    seed: int = Field(0, ge=0, description="seed of the random draws of the modes paper and reference")

    @model_validator(mode="after")
    def _check(self) -> CurationSettings:
        if self.highest <= self.lowest:
            raise ValueError(f"highest ({self.highest}) must be above lowest ({self.lowest})")
        if self.classes > MOST_CLASSES:
            raise ValueError(
                f"lowest {self.lowest} and highest {self.highest} give {self.classes} score classes; a run supports at "
                f"most {MOST_CLASSES} (for arrays, tamis.curation.curate supports any number)"
            )
        if isinstance(self.neighbors, int) and self.neighbors < 1:
            raise ValueError(f"neighbors ({self.neighbors}) must be 1 or more, or auto")
        if self.mode != "exact":
            changed = [name for name in _OF_EXACT if getattr(self, name) != type(self).model_fields[name].default]
            if changed:
                verb = "needs" if len(changed) == 1 else "need"
                raise ValueError(f"{' and '.join(changed)} {verb} mode: exact, not {self.mode}")
        if self.diversity == "reference" and self.diversity_neighbors != _DIVERSITY_NEIGHBORS:
            raise ValueError("diversity_neighbors is not used with diversity: reference; omit it")
        return self

    @property
    def classes(self) -> int:
        """Number of score classes."""
        return self.highest - self.lowest + 1

    @property
    def threshold(self) -> float:
        """The confidence to use: the setting, or the mode's default."""
        if self.confidence is not None:
            return self.confidence
        return 0.0 if self.mode == "exact" else 0.5
