"""Settings of the pool stage."""

from __future__ import annotations

import codecs
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from tamis.core.conditions import conditions
from tamis.core.references import DataPath, HubDataset
from tamis.core.samples import FIELDS
from tamis.core.settings import Processes, Settings, StageSettings
from tamis.pool import recipes

Schema = Literal["auto", "messages", "conversations", "instruction", "prompt_completion"]


class Source(Settings):
    """A source of samples: local or remote files, a data set on the Hugging Face Hub, or a recipe."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: str = Field(min_length=1, description="name of the source, for the column `source`; unique in the pool")
    path: DataPath | None = Field(
        None,
        min_length=1,
        description="a file, folder or glob, or a file or folder in object storage; see the README for formats",
    )
    dataset: HubDataset | None = Field(
        None, min_length=1, description="a data set on the Hub, or a folder that `datasets` loads"
    )
    recipe: str | None = Field(None, description="one of the known data sets: " + ", ".join(recipes.names()))
    config: str | None = Field(None, description="configuration of the data set")
    split: str | None = Field(None, description="split of the data set; null: train")
    revision: str | None = Field(None, description="commit, branch or tag of the data set")
    schema_: Schema = Field("auto", alias="schema", description="layout of the rows; auto: detected from their fields")
    fields: dict[str, str] = Field({}, description="names of the schema's fields in the rows, as in {prompt: question}")
    where: dict[str, Any] = Field(
        {},
        description='use only rows with these values, as in {language: en, score: {">=": 4}}; see the README',
    )
    encoding: str | None = Field(
        None, description="encoding of the text files, such as windows-1252; null: guessed for each file"
    )
    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="character between the fields of CSV files; null: guessed"
    )
    keep: list[str] = Field([], description="fields of the rows to keep in the column `metadata`")
    limit: int | None = Field(
        None, ge=1, description="largest number of samples: the first ones, or a random draw if `seed` is given"
    )
    seed: int | None = Field(None, ge=0, description="seed for drawing the `limit` samples at random")

    @field_validator("where")
    @classmethod
    def _conditions(cls, where: dict[str, Any]) -> dict[str, Any]:
        conditions(where)  # a fault is found before anything is read
        return where

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str | None) -> str | None:
        try:
            return None if encoding is None else codecs.lookup(encoding).name
        except LookupError:
            raise ValueError(f"Python knows no encoding {encoding!r}; allowed: utf-8, utf-16, windows-1252 …") from None

    @model_validator(mode="after")
    def _consistent(self) -> Source:
        origins = [name for name in ("path", "dataset", "recipe") if getattr(self, name) is not None]
        if len(origins) != 1:
            raise ValueError(
                f"give exactly one of path, dataset and recipe, not {' and '.join(origins) or 'none of them'}"
            )
        if self.recipe is not None and self.recipe not in recipes.names():
            raise ValueError(f"there is no recipe '{self.recipe}'; allowed: {', '.join(recipes.names())}")
        of_files = ("encoding", "delimiter")
        fixed = {
            "path": ("config", "split", "revision"),
            "dataset": of_files,
            "recipe": ("config", "split", "schema_", "fields", "where", *of_files),
        }
        for name in fixed.get(origins[0], ()):
            if name in self.model_fields_set and getattr(self, name):
                raise ValueError(f"'{name.rstrip('_')}' cannot be used with '{origins[0]}'; leave it out")
        if self.seed is not None and self.limit is None and self.recipe is None:
            raise ValueError("'seed' draws `limit` samples; also give a limit, or leave out the seed")
        if not candidates(self.schema_, self.fields):
            known = FIELDS if self.schema_ == "auto" else {self.schema_: FIELDS[self.schema_]}
            allowed = "; ".join(f"{schema}: {', '.join(names)}" for schema, names in known.items())
            raise ValueError(f"no schema has all the fields {', '.join(self.fields)}; allowed: {allowed}")
        return self


class PoolSettings(StageSettings):
    """The sources of the pool, and limits for unusable rows."""

    OUTPUT_REVISION: ClassVar[int] = 4

    sources: list[Source] = Field(min_length=1, description="read in this order; of equal samples, the first is kept")
    max_reject_share: float = Field(
        0.1, ge=0, le=1, description="fail when more than this share of a source's rows is unusable"
    )
    max_lost_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="fail when more than this share of a source's samples has fields that change what a model learns "
        "and are not read: a system prompt, history, tools, thoughts, images, weights",
    )
    max_json_mib: int = Field(512, ge=1, description="largest JSON array, in MiB; it is loaded completely")
    max_row_mib: int = Field(16, ge=1, description="longest line of JSONL or CSV, in MiB; longer lines are rejected")

    processes: Processes = Field(
        None,
        ge=1,
        description="processes that parse rows, each with up to 450 MB of memory; null: 1 per core, up to 8",
    )

    @model_validator(mode="after")
    def _unique_names(self) -> PoolSettings:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {', '.join(twice)}; names must be unique")
        return self


def candidates(schema: Schema, fields: dict[str, str]) -> list[str]:
    """The schemas allowed by `schema` that have every field in `fields`."""
    allowed = list(FIELDS) if schema == "auto" else [schema]
    return [name for name in allowed if set(fields) <= set(FIELDS[name])]
