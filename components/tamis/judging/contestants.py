"""The contestants, whose answers are compared: their names and models, and the backends that write the answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tamis.core.artifacts import Artifact
from tamis.core.conversations import Format
from tamis.core.errors import SettingsError
from tamis.core.settings import hash_of
from tamis.core.steps import Uri
from tamis.core.storage import fingerprint
from tamis.judging.questions import given_answers
from tamis.judging.settings import (
    AnswersContestant,
    AnswerSettings,
    ArtifactContestant,
    JudgingSettings,
    ModelContestant,
    ServiceContestant,
)
from tamis.llm.backend import Backend
from tamis.llm.backends.openai import OpenAISettings
from tamis.llm.backends.transformers import TransformersSettings
from tamis.llm.backends.vllm import VllmSettings
from tamis.llm.forms import Form
from tamis.llm.settings import PriceSettings, ServiceSettings

Choice = ModelContestant | ServiceContestant | AnswersContestant


@dataclass(frozen=True)
class _Plain:
    """A prompt that is only the question, answered in free text. A question that is too long is not asked."""

    before: str = ""
    after: str = ""
    marker: str | None = None
    form: Form | None = None


@dataclass(frozen=True)
class Contestant:
    """One of the two models that are compared.

    Attributes:
        name: name in tables.
        model: name of the model, which tells its family.
        given: existing answers by question id; None if they are to be written.
        key: everything that the answers depend on besides the question.
        price: price of a service's tokens.
    """

    name: str
    model: str
    given: Mapping[str, str] | None = None
    key: Mapping[str, Any] = field(default_factory=dict)
    price: PriceSettings | None = None
    _backend: Backend | None = None

    @property
    def backend(self) -> Backend:
        """The engine that writes its answers, unless they are given."""
        assert self._backend is not None
        return self._backend


def artifact_of(settings: JudgingSettings, which: str, given: Uri | None) -> Uri | None:
    """The model artifact of the contestant `which`, "model" or "against": the one given, or the one in the settings.

    Raises:
        SettingsError: unless exactly one of artifact and setting is given.
    """
    chosen = getattr(settings, which)
    if (chosen is None) == (given is None):
        raise SettingsError(
            f"{which}: {'missing' if chosen is None else 'given twice, as an artifact and as a setting'}",
            allowed=f"a model artifact (--{which} PATH), or the setting '{which}'",
            action="give exactly one of them",
        )
    return chosen.path if isinstance(chosen, ArtifactContestant) else given


def choice_of(settings: JudgingSettings, which: str) -> Choice | None:
    """The settings of the contestant `which`; None if it is an artifact."""
    chosen = getattr(settings, which)
    return None if isinstance(chosen, ArtifactContestant) else chosen


def name_of(chosen: Choice | None, artifact: Artifact | None) -> str:
    """The name of a contestant."""
    if chosen is None:
        assert artifact is not None
        return artifact.name or "model"
    if chosen.name is not None:
        return chosen.name
    last = getattr(chosen, "model", "model").rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last)


def file_of(chosen: Choice | None) -> str | None:
    """Fingerprint of the file or model behind a contestant; None if its settings are all that is known."""
    if isinstance(chosen, AnswersContestant):
        return fingerprint(chosen.path)
    if isinstance(chosen, ModelContestant):
        from tamis.core.models import revision_of

        return revision_of(chosen.model, chosen.revision)
    return None


def open_contestant(chosen: Choice | None, artifact: Artifact | None, answers: AnswerSettings) -> Contestant:
    """Prepare a contestant. No weights are loaded yet.

    Raises:
        ModelError: when its model cannot be used.
        InputError: when its file of answers cannot be read.
    """
    name = name_of(chosen, artifact)
    if isinstance(chosen, AnswersContestant):
        given = given_answers(chosen)
        return Contestant(name, chosen.written_by or "", given, {"answers": hash_of(sorted(given.items()))})
    from tamis.llm.backends.sampling import Sampling

    sampling = Sampling(answers.temperature, answers.top_p, answers.top_k, answers.seed)
    key: dict[str, Any] = {"temperature": answers.temperature}
    if answers.temperature > 0:
        key |= {"top_p": answers.top_p, "top_k": answers.top_k, "seed": answers.seed}
    if isinstance(chosen, ServiceContestant):
        backend = _service(chosen, answers).open(_Plain(), sampling)
        # Local servers often serve different models under one name, so the address is part of the key.
        asked = {"address": chosen.base_url, "name": chosen.asked_model}
        key = {"sampling": key, "service": asked, **backend.identity}
        return Contestant(name, chosen.model, key=key, price=chosen.price, _backend=backend)
    if chosen is None:
        assert artifact is not None
        model, path, revision = str(artifact.manifest.config.get("model") or ""), str(artifact.folder), None
        style: Format = "chat"
        own = {"model": f"artifact:{artifact.manifest.content_hash}"}
    else:
        model, path, revision, style = chosen.model, chosen.model, chosen.revision, chosen.format
        own = {}
    backend = _local(path, revision, answers).open(_Plain(), sampling, style=style)
    return Contestant(name, model, key={"sampling": key, "format": style, **backend.identity, **own}, _backend=backend)


def _local(path: str, revision: str | None, answers: AnswerSettings) -> TransformersSettings | VllmSettings:
    common = {
        "model": path,
        "revision": revision,
        "precision": answers.precision,
        "structured": False,
        "max_sample_tokens": answers.max_prompt_tokens,
        "max_new_tokens": answers.max_new_tokens,
    }
    if answers.engine == "transformers":
        return TransformersSettings(**common, batch_tokens=answers.batch_tokens)
    return VllmSettings(
        **common,
        tensor_parallel=answers.tensor_parallel,
        data_parallel=answers.data_parallel,
        engine=answers.engine_arguments,
    )


def _service(chosen: ServiceContestant, answers: AnswerSettings) -> OpenAISettings:
    reached = {name: getattr(chosen, name) for name in ServiceSettings.model_fields}
    return OpenAISettings(
        **reached,
        structured="none",
        logprobs=False,
        max_new_tokens=answers.max_new_tokens,
        max_sample_tokens=answers.max_prompt_tokens,
        answer_limit=chosen.answer_limit,
        seeded=chosen.seeded,
        extra=chosen.extra,
    )
