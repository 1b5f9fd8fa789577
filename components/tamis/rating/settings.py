"""Settings of the rating stage."""

from __future__ import annotations

import logging
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, field_validator, model_validator

from tamis.core.references import DataPath, Reference, StoreUri
from tamis.core.registry import one_of
from tamis.core.scales import Scale
from tamis.core.settings import MoneyLimit, Settings, StageSettings
from tamis.llm.backends import BACKENDS
from tamis.llm.settings import BackendSettings, BudgetShare, PriceSettings
from tamis.rating import raters, shards
from tamis.rating.prompts import load_prompt

log = logging.getLogger(__name__)


def _part(value: Any) -> int | float:
    """A share, or a whole number of samples; Kubeflow hands whole numbers over as floats."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not (0 < number < 1 or (number >= 2 and number % 1 == 0)):
        raise ValueError(
            "give a share of the pool above 0 and below 1, or a whole number of samples from 2 on; leave it out for all"
        )
    return float(number) if number < 1 else int(number)


def _files(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _prompt_read(settings: AskedRater) -> str:
    """Read the prompt."""
    return f"{settings.prompt}, version {load_prompt(settings.prompt).version}"


Part = Annotated[int | float, BeforeValidator(_part)]
FileName = Annotated[DataPath, Field(min_length=1)]


class ImportSettings(Settings):
    """Ratings from a JSONL, CSV or Parquet file, local or in object storage."""

    kind: Literal["import"] = Field("import", description="the ratings exist already")
    path: DataPath = Field(min_length=1, description="the file: .jsonl, .csv or .parquet, local or in object storage")
    by: Literal["id", "row", "metadata"] = Field(
        description="how rows find their samples: by sample id, by row in the sample's source, or by a kept field"
    )
    key: str | None = Field(
        None,
        description="the file's column with the sample id ('id' if not given), the row in the source (the order of the "
        "file if not given), or the kept field (which must be given)",
    )
    field: str | None = Field(
        None, description="with by: metadata, the kept field's name in the pool; 'key' by default"
    )
    source: str | None = Field(None, description="with by: row, the pool's source that the whole file is about")
    source_column: str | None = Field(
        None, description="with by: row, the file's column with the pool's source; rows then count within each source"
    )
    first_row: Literal[0, 1] | None = Field(
        None,
        description="with by: row and key, the number of a source's first row in that column; 0 if not given, unless "
        "the numbers look counted from 1",
    )
    overall: str = Field("overall", min_length=1, description="column with the overall rating")
    rarity: str | None = Field(None, description="column, if there is one")
    complexity: str | None = Field(None, description="column, if there is one")
    informativeness: str | None = Field(None, description="column, if there is one")
    expected: str | None = Field(None, description="column with the mean overall rating, if there is one")
    scale: Literal["1-10", "classes"] | Scale | None = Field(
        None,
        description="the scale of the scores, {lowest: 1, highest: 5} say, which may be fractions then and are "
        "stretched to 1..10; or classes: 0..5 as in the paper's files, kept as ratings 4..9, which compress to 0..5 "
        "again; 1-10 if not given, unless the scores look like another",
    )
    min_matched_share: float = Field(
        0.5, ge=0, le=1, description="share of the rows given, or of the pool's samples, that must find each other"
    )
    max_text_mismatch_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="with by: row, fail when the file has the data's texts (instruction, output, messages, …) and more "
        "than this share of them are not those of the samples at their rows",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ImportSettings:
        if self.by == "metadata" and self.key is None:
            raise ValueError("with by: metadata, 'key' must name the file's column that is matched")
        if self.by != "metadata" and self.field is not None:
            raise ValueError("'field' has a meaning only with by: metadata; leave it out")
        for name in ("source", "source_column"):
            if self.by != "row" and getattr(self, name) is not None:
                raise ValueError(f"'{name}' has a meaning only with by: row; leave it out")
        if self.first_row is not None and (self.by != "row" or self.key is None):
            raise ValueError("'first_row' has a meaning only with by: row and a key; leave it out")
        if self.source is not None and self.source_column is not None:
            raise ValueError("give 'source' or 'source_column', not both")
        if self.scale == "classes" and self.expected is not None:
            raise ValueError("'expected' is a mean on the scale 1-10; leave it out with scale: classes")
        return self


if TYPE_CHECKING:
    AskedBackend: TypeAlias = BackendSettings
    RaterBackend: TypeAlias = BackendSettings | ImportSettings
else:
    AskedBackend = one_of(*BACKENDS.values())
    RaterBackend = one_of(*BACKENDS.values(), ImportSettings)


class RatingSettings(StageSettings):
    """One rater: who rates, how it is asked and what is tolerated (paper section 3.1).

    The extra key `rater` names a rater that ships with Tamis, or a YAML file of one: its settings are taken, and those
    beside `rater` override them.

    Validating these settings makes an `AskedRater`, or an `ImportedRater` if the backend has the kind "import".
    """

    OUTPUT_REVISION: ClassVar[int] = 1

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64, description="the rater's name in tables and plots"
    )
    backend: RaterBackend = Field(description=f"what answers: kind: {', '.join(BACKENDS)} or import")
    max_failure_share: float = Field(
        0.05, ge=0, le=1, description="fail when more than this share of the samples gets no rating"
    )

    @model_validator(mode="wrap")
    @classmethod
    def _by_backend(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Any:
        if isinstance(values, dict) and "rater" in values:
            values = raters.merged(values)
        if cls is not RatingSettings or isinstance(values, RatingSettings):
            return handler(values)
        backend = values.get("backend") if isinstance(values, dict) else None
        kind = backend.get("kind") if isinstance(backend, dict) else getattr(backend, "kind", None)
        return (ImportedRater if kind == "import" else AskedRater).model_validate(values)

    def answers_known_by(self) -> dict[str, Any]:
        """What ratings depend on besides the samples, as far as settings tell. Raters with equal ones share ratings."""
        return {"backend": self.backend.model_dump()}


class AskedRater(RatingSettings):
    """A rater that is a language model, in this process or behind a service."""

    backend: AskedBackend = Field(description=f"what answers: kind: {', '.join(BACKENDS)}")
    prompt: Annotated[str, Reference("shipped", _prompt_read)] = Field(
        "ds2-v1", min_length=1, description="a prompt that ships with Tamis, or a YAML file of one"
    )
    temperature: float = Field(0.0, ge=0, le=5, description="0 takes the most probable score")
    top_p: float = Field(1.0, gt=0, le=1, description="sample from the most probable that hold this share; 1: from all")
    top_k: int = Field(0, ge=0, description="sample from so many most probable; 0: from all")
    seed: int = Field(0, ge=0, description="draws depend on this and the sample's id, not on batches or shards")
    max_attempts: int = Field(
        3, ge=1, le=20, description="how often a sample is asked before its answer counts as unparsable"
    )
    price: PriceSettings | None = Field(None, description="what the tokens cost; for projections and max_cost")
    max_cost: MoneyLimit = Field(
        None, gt=0, description="stop before the pool's ratings, those of earlier runs included, cost more than this"
    )
    budget_share: BudgetShare = None
    store: StoreUri | None = Field(
        None,
        min_length=1,
        description="folder, or prefix in object storage, that keeps every finished rating, for this and later runs; "
        "if not given, a folder in the user's data that all runs share; on a cluster, name one",
    )

    sample: Part | None = Field(
        None,
        description="rate only a part of the pool: a share below 1 of every source, or a number of samples in all; a "
        "larger part holds every smaller one; left out: all",
    )
    sample_seed: int = Field(0, ge=0, lt=2**63, description="with sample: another seed draws other samples")
    also: Annotated[tuple[FileName, ...], BeforeValidator(_files)] = Field(
        (),
        description="with sample: files (txt, jsonl, csv, parquet) with the ids of samples that are rated too, as "
        "`tamis rating next` writes them",
    )
    shard: str | None = Field(
        None,
        pattern=r"^\d+/\d+$",
        description="rate only this share of the pool, as in 3/8; job/8 is the pod's own in an Indexed Job",
    )

    @field_validator("shard", mode="before")
    @classmethod
    def _resolve_shard(cls, value: Any) -> Any:
        return shards.resolved(value) if isinstance(value, str) else value

    @field_validator("shard")
    @classmethod
    def _check_shard(cls, value: str | None) -> str | None:
        return value if value is None else str(shards.Shard.read(value))

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.max_cost is not None and self.price is None:
            raise ValueError("'max_cost' needs 'price', what the tokens cost")
        if self.sample is None and self.sample_seed:
            raise ValueError("'sample_seed' needs 'sample', how much of the pool is rated")
        if self.sample is None and self.also:
            raise ValueError("'also' needs 'sample': without it all samples are rated")
        return self

    def answers_known_by(self) -> dict[str, Any]:
        """See `RatingSettings.answers_known_by`."""
        drawn = ("top_p", "top_k", "seed") if self.temperature > 0 else ()
        names = {"prompt", "temperature", "store", *drawn}
        # Each address has a store of its own, unless the settings name one for all.
        no_part = {*self.backend.NOT_OF_ANSWERS, *(["base_url"] if self.store else [])}
        return self.model_dump(include=names) | {"backend": self.backend.model_dump(exclude=no_part)}

    def asked(self, samples: int) -> int:
        """How many of a pool's `samples` are rated, without those of `also`.

        With a share it may be up to one more for every source but the first.
        """
        if self.sample is None:
            return samples
        part = self.sample if self.sample >= 1 else math.ceil(Fraction(str(self.sample)) * samples)
        return min(int(part), samples)


class ImportedRater(RatingSettings):
    """A rater whose ratings exist already, in a file."""

    backend: ImportSettings = Field(description="the file: kind: import")

    @model_validator(mode="before")
    @classmethod
    def _nothing_without_effect(cls, values: Any) -> Any:
        """Leave out settings of asked raters that have their default, and refuse others."""
        if not isinstance(values, dict):
            return values
        own = {}
        for name, value in values.items():
            if name in cls.model_fields or name not in AskedRater.model_fields:
                own[name] = value
            elif name == "seed":  # earlier versions took any
                log.warning("rater '%s': 'seed' has no effect on imported ratings; leave it out", values.get("name"))
            elif (tuple(value) if isinstance(value, list) else value) != AskedRater.model_fields[name].default:
                raise ValueError(f"'{name}' has no effect on imported ratings; leave it out")
        return own

    def for_key(self) -> dict[str, Any]:
        """The settings as JSON values for the key of a step, with those that it held when imports could set them."""
        return _ONCE_IN_KEYS | super().for_key()


RatingSettings.VARIANTS = (AskedRater, ImportedRater)
# Imported ratings keep the keys that they had in version 0.4.
_ONCE_IN_KEYS = {
    "prompt": "ds2-v1",
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "seed": 0,
    "max_attempts": 3,
    "price": None,
    "max_cost": None,
    "store": None,
    "sample": None,
    "sample_seed": 0,
    "also": [],
    "shard": None,
}


class MergeSettings(StageSettings):
    """Merging shards has nothing to set."""

    OUTPUT_REVISION: ClassVar[int] = RatingSettings.OUTPUT_REVISION
