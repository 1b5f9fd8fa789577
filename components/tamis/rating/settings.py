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
from tamis.llm.settings import BackendSettings, BudgetShare, PriceSettings, TopK, TopP
from tamis.rating import raters, shards
from tamis.rating.prompts import load_prompt

log = logging.getLogger(__name__)


def _part(value: Any) -> int | float:
    """A share, or a whole number of samples. Kubeflow passes whole numbers as floats."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not (0 < number < 1 or (number >= 2 and number % 1 == 0)):
        raise ValueError(
            "give a share of the pool between 0 and 1, or a number of samples, at least 2; leave it out to rate all"
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
        description="how rows are matched to samples: by sample id, by row in the sample's source, or by a kept field"
    )
    key: str | None = Field(
        None,
        description="the file's column with the sample id (default: 'id'), the row in the source (default: the order "
        "of the file), or the kept field (required)",
    )
    field: str | None = Field(
        None, description="with by: metadata, the name of the kept field in the pool; default: the same as 'key'"
    )
    source: str | None = Field(None, description="with by: row, the source in the pool that the whole file rates")
    source_column: str | None = Field(
        None,
        description="with by: row, the file's column with the name of the source; rows are numbered within each source",
    )
    first_row: Literal[0, 1] | None = Field(
        None,
        description="with by: row and key, the number of a source's first row in that column; default: 0, but if the "
        "numbers seem to start at 1, it must be set",
    )
    overall: str = Field("overall", min_length=1, description="column with the overall rating")
    rarity: str | None = Field(None, description="column with these scores, if there is one")
    complexity: str | None = Field(None, description="column with these scores, if there is one")
    informativeness: str | None = Field(None, description="column with these scores, if there is one")
    expected: str | None = Field(None, description="column with the mean overall rating, if there is one")
    scale: Literal["1-10", "classes"] | Scale | None = Field(
        None,
        description="the scale of the scores, such as {lowest: 1, highest: 5}: scores may then be fractions, and are "
        "mapped to 1..10; or classes: 0..5 as in the paper's files, stored as ratings 4..9, which compress to 0..5 "
        "again; default: 1-10, but if the scores seem to be on another scale, it must be set",
    )
    min_matched_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="fail when a smaller share of the file's rows, and of the pool's samples, is matched",
    )
    max_text_mismatch_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="with by: row, fail when the file has the data's texts (instruction, output, messages, …) and more "
        "than this share of them differ from the samples in the same rows",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ImportSettings:
        if self.by == "metadata" and self.key is None:
            raise ValueError("with by: metadata, 'key' must name the column of the file to match by")
        if self.by != "metadata" and self.field is not None:
            raise ValueError("'field' has an effect only with by: metadata; leave it out")
        for name in ("source", "source_column"):
            if self.by != "row" and getattr(self, name) is not None:
                raise ValueError(f"'{name}' has an effect only with by: row; leave it out")
        if self.first_row is not None and (self.by != "row" or self.key is None):
            raise ValueError("'first_row' has an effect only with by: row and a key; leave it out")
        if self.source is not None and self.source_column is not None:
            raise ValueError("set 'source' or 'source_column', not both")
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
    """One rater: its backend, its prompt and its limits (paper section 3.1).

    The extra key `rater` names a rater that ships with Tamis, or a YAML file with one. Its settings are used; settings
    next to `rater` override them.

    Validating these settings makes an `AskedRater`, or an `ImportedRater` if the backend has the kind "import".
    """

    OUTPUT_REVISION: ClassVar[int] = 1

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64, description="the rater's name in tables and plots"
    )
    backend: RaterBackend = Field(description=f"the engine; kind: {', '.join(BACKENDS)} or import")
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

    backend: AskedBackend = Field(description=f"the engine; kind: {', '.join(BACKENDS)}")
    prompt: Annotated[str, Reference("shipped", _prompt_read)] = Field(
        "ds2-v1", min_length=1, description="a prompt that ships with Tamis, or a YAML file with one"
    )
    temperature: float = Field(0.0, ge=0, le=5, description="0: take the most probable score")
    top_p: TopP = 1.0
    top_k: TopK = 0
    seed: int = Field(
        0, ge=0, description="seed of the draws; they also depend on the sample's id, but not on batches or shards"
    )
    max_attempts: int = Field(
        3, ge=1, le=20, description="how often a sample is asked about before its answer counts as unparsable"
    )
    price: PriceSettings | None = Field(None, description="what tokens cost; for estimates and max_cost")
    max_cost: MoneyLimit = Field(
        None,
        gt=0,
        description="stop before the ratings of the pool, including those of earlier runs, cost more than this",
    )
    budget_share: BudgetShare = None
    store: StoreUri | None = Field(
        None,
        min_length=1,
        description="folder, or prefix in object storage, that keeps every finished rating for this and later runs; "
        "default: a folder that all runs of the user share; set it on a cluster",
    )

    sample: Part | None = Field(
        None,
        description="rate only a part of the pool: a share of every source, below 1, or a total number of samples; a "
        "larger part contains every smaller one; default: all",
    )
    sample_seed: int = Field(0, ge=0, lt=2**63, description="with sample: seed of the draw")
    also: Annotated[tuple[FileName, ...], BeforeValidator(_files)] = Field(
        (),
        description="with sample: files (txt, jsonl, csv, parquet) with ids of samples to rate as well, as "
        "`tamis rating next` writes them",
    )
    shard: str | None = Field(
        None,
        pattern=r"^\d+/\d+$",
        description="rate only this shard of the pool, such as 3/8; job/8: the shard of this pod in an Indexed Job",
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
            raise ValueError("'max_cost' needs 'price', the price of the tokens")
        if self.sample is None and self.sample_seed:
            raise ValueError("'sample_seed' has an effect only with 'sample'; set 'sample' or leave it out")
        if self.sample is None and self.also:
            raise ValueError("'also' has an effect only with 'sample'; without it all samples are rated")
        return self

    def answers_known_by(self) -> dict[str, Any]:
        """See `RatingSettings.answers_known_by`."""
        drawn = ("top_p", "top_k", "seed") if self.temperature > 0 else ()
        names = {"prompt", "temperature", "store", *drawn}
        # Each address has a store of its own, unless the settings name one for all.
        no_part = {*self.backend.NOT_OF_ANSWERS, *(["base_url"] if self.store else [])}
        return self.model_dump(include=names) | {"backend": self.backend.model_dump(exclude=no_part)}

    def asked(self, samples: int) -> int:
        """How many of a pool's `samples` are rated, not counting `also`.

        If `sample` is a share, one more may be rated for every source but the first.
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
    """Settings of merging shards: none."""

    OUTPUT_REVISION: ClassVar[int] = RatingSettings.OUTPUT_REVISION
