"""Settings of the pool stage."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from tamis.core.references import DataPath, HubDataset
from tamis.core.samples import FIELDS
from tamis.core.settings import Settings, StageSettings
from tamis.pool import recipes

Schema = Literal["auto", "messages", "conversations", "instruction", "prompt_completion"]


class Source(Settings):
    """One source of samples: local or remote files, a data set of the Hugging Face hub, or a known recipe."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: str = Field(min_length=1, description="what the samples' column `source` says; unique in the pool")
    path: DataPath | None = Field(
        None,
        min_length=1,
        description="file, folder or glob, or a file or folder in object storage; see the README for formats",
    )
    dataset: HubDataset | None = Field(
        None, min_length=1, description="data set on the hub, or a folder that `datasets` loads"
    )
    recipe: str | None = Field(None, description="one of: " + ", ".join(recipes.names()))
    config: str | None = Field(None, description="configuration of the data set")
    split: str | None = Field(None, description='split of the data set; "train" if not given')
    revision: str | None = Field(None, description="commit, branch or tag of the data set")
    schema_: Schema = Field("auto", alias="schema", description="how rows become conversations; auto: by their fields")
    fields: dict[str, str] = Field({}, description="other names of the schema's fields, as in {prompt: question}")
    where: dict[str, str | int | float | bool] = Field(
        {}, description="take only the rows that have these values, as in {language: en}"
    )
    keep: list[str] = Field([], description="fields of the row that the column `metadata` keeps")
    limit: int | None = Field(
        None, ge=1, description="at most so many samples: the first, or drawn when `seed` is given"
    )
    seed: int | None = Field(None, ge=0, description="draw the `limit` samples at random, by this seed")

    @model_validator(mode="after")
    def _consistent(self) -> Source:
        origins = [name for name in ("path", "dataset", "recipe") if getattr(self, name) is not None]
        if len(origins) != 1:
            raise ValueError(
                f"exactly one of path, dataset, recipe must be given, not {' and '.join(origins) or 'none of them'}"
            )
        if self.recipe is not None and self.recipe not in recipes.names():
            raise ValueError(f"there is no recipe '{self.recipe}'; allowed: {', '.join(recipes.names())}")
        fixed = {"path": ("config", "split", "revision"), "recipe": ("config", "split", "schema_", "fields", "where")}
        for name in fixed.get(origins[0], ()):
            if name in self.model_fields_set and getattr(self, name):
                raise ValueError(f"'{name.rstrip('_')}' has no meaning beside '{origins[0]}'; leave it out")
        if self.seed is not None and self.limit is None and self.recipe is None:
            raise ValueError("'seed' draws `limit` samples; give a limit too, or leave the seed out")
        if not candidates(self.schema_, self.fields):
            known = FIELDS if self.schema_ == "auto" else {self.schema_: FIELDS[self.schema_]}
            allowed = "; ".join(f"{schema}: {', '.join(names)}" for schema, names in known.items())
            raise ValueError(f"no schema has all the fields {', '.join(self.fields)}; allowed: {allowed}")
        return self


class PoolSettings(StageSettings):
    """Which sources make the pool, and what is tolerated in them."""

    OUTPUT_REVISION: ClassVar[int] = 1

    sources: list[Source] = Field(min_length=1, description="read in this order; of equal samples the first one stays")
    max_reject_share: float = Field(
        0.1, ge=0, le=1, description="fail when more than this share of a source's rows is unusable"
    )
    max_lost_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="fail when more than this share of a source's samples has fields that change what is taught and "
        "are not read: a system prompt, history, tools, thoughts, images, weights",
    )
    max_json_mib: int = Field(512, ge=1, description="largest JSON array file, which is read in one piece")
    max_row_mib: int = Field(16, ge=1, description="a longer line of JSONL or CSV is rejected")

    @model_validator(mode="after")
    def _unique_names(self) -> PoolSettings:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {', '.join(twice)}; each needs its own name")
        return self


def candidates(schema: Schema, fields: dict[str, str]) -> list[str]:
    """The schemas that `schema` allows and that have every field that `fields` renames."""
    allowed = list(FIELDS) if schema == "auto" else [schema]
    return [name for name in allowed if set(fields) <= set(FIELDS[name])]
