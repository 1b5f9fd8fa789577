"""Settings of a whole run: one section a stage, as in `examples/`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from tamis.core.errors import SettingsError
from tamis.core.settings import Settings, load_yaml, parse, with_overrides
from tamis.curation.settings import CurationSettings
from tamis.embedding.settings import EmbeddingSettings
from tamis.evaluation.settings import EvaluationSettings
from tamis.finetuning.settings import FinetuningSettings
from tamis.neighbors.settings import NeighborsSettings
from tamis.pool.settings import PoolSettings
from tamis.rating.settings import RatingSettings
from tamis.reporting.settings import ReportingSettings
from tamis.selection.settings import SelectionSettings
from tamis_pipelines.pods import KubeflowSettings

# Strategies that rank by scores of a stage that the pipelines do not have, and the command that makes them.
_SCORED = {"perplexity": "tamis score", "deita": "tamis score", "less": "tamis influence"}


class RunSettings(Settings):
    """What `tamis run` and the Kubeflow pipelines take.

    Without `finetuning` the run ends with the subsets and their report (pipeline `data-selection`); with it, a model is
    finetuned and evaluated per subset, beside the base model (pipeline `experiment`).
    """

    work_dir: Path = Field(description="folder for results and finished steps of local runs")
    pool: PoolSettings
    raters: list[RatingSettings] = Field(min_length=1, description="one or more; each rates the whole pool")
    embedding: EmbeddingSettings = EmbeddingSettings()
    neighbors: NeighborsSettings = NeighborsSettings()
    curation: CurationSettings = CurationSettings()
    subsets: list[SelectionSettings] = Field(min_length=1, description="one or more selections to make")
    finetuning: FinetuningSettings | None = Field(None, description="left out: no model is trained")
    evaluation: EvaluationSettings | None = Field(None, description="goes with finetuning")
    report: ReportingSettings = ReportingSettings()
    kubeflow: KubeflowSettings = Field(KubeflowSettings(), description="pods on a cluster; local runs ignore it")

    @model_validator(mode="after")
    def _fits_together(self) -> RunSettings:
        for section in ("raters", "subsets"):
            names = Counter(item.name for item in getattr(self, section))
            twice = [name for name, count in names.items() if count > 1]
            if twice:
                raise ValueError(f"two {section} are called '{twice[0]}'; give each a name of its own")
        for subset in self.subsets:
            if subset.strategy in _SCORED and (subset.strategy, subset.variant) != ("deita", "ds2-paper"):
                raise ValueError(
                    f"subset '{subset.name}': the strategy {subset.strategy} ranks by a model's scores, which no "
                    f"step of the pipeline makes; make them with `{_SCORED[subset.strategy]}` from the run's pool and "
                    "give them to `tamis select --scores`"
                )
        if self.neighbors.shard != "1/1":
            raise ValueError("neighbors.shard: a run searches for all samples; shards are for `tamis neighbors`")
        if (self.finetuning is None) != (self.evaluation is None):
            raise ValueError("finetuning and evaluation go together: give both sections, or neither")
        return self

    @property
    def pipeline(self) -> str:
        """Name of the pipeline that these settings ask for."""
        return "data-selection" if self.finetuning is None else "experiment"

    def arguments(self) -> dict[str, Any]:
        """The pipeline's parameters: one JSON value per section, with what was set and without the defaults.

        Raises:
            SettingsError: when a setting is null whose default is not: a pipeline parameter cannot say null.
        """
        given = self.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        again = type(self).model_validate(given)
        if again != self:
            section = next(name for name in type(self).model_fields if getattr(again, name) != getattr(self, name))
            raise SettingsError(f"{section}: a setting is null", action="leave it out, or give it a value")
        sections = set(type(self).model_fields) - {"work_dir", "kubeflow"}
        if self.finetuning is None:
            sections -= {"finetuning", "evaluation"}
        return {section: given.get(section, {}) for section in sections}

    def cluster_arguments(self, outcomes: str = "") -> dict[str, Any]:
        """All parameters of the pipeline on a cluster: `arguments`, and those of its pods.

        `outcomes` is a prefix in object storage where the run notes how it ended; nowhere if empty.
        """
        pods = self.kubeflow.arguments() | {"outcomes": outcomes}
        if self.finetuning is None:
            pods = {name: value for name, value in pods.items() if not name.startswith(("training_", "evaluation_"))}
        return self.arguments() | pods


def load_run(path: Path, overrides: Sequence[str] = ()) -> RunSettings:
    """Read the settings of a run.

    The file may have a section `variables`, whose values stand in for `${name}` in any other text of the file, so that
    a path used in several places is given once, also by `--set variables.name=value`.

    Raises:
        SettingsError: when the file is missing or wrong, or a variable is not defined.
    """
    values = with_overrides(load_yaml(path), list(overrides))
    variables = values.pop("variables", {})
    if not isinstance(variables, dict):
        raise SettingsError(f"{path}: variables: seen {variables!r}", allowed="a mapping of names to values")
    return parse(RunSettings, _filled(values, variables, path), where=str(path))


def _filled(value: Any, variables: Mapping[str, Any], path: Path) -> Any:
    """`value` with every `${name}` inside it replaced."""

    def replacement(match: re.Match[str]) -> str:
        if match[1] not in variables:
            allowed = ", ".join(variables) or "none: the file has no section `variables`"
            raise SettingsError(f"{path}: the variable ${{{match[1]}}} is not defined", allowed=allowed)
        return str(variables[match[1]])

    if isinstance(value, dict):
        return {key: _filled(inner, variables, path) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, variables, path) for inner in value]
    return re.sub(r"\$\{(\w+)\}", replacement, value) if isinstance(value, str) else value
