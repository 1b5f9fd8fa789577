"""Checks the services that a run uses: their keys, that they answer, and that they have the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches
from importlib.util import find_spec

from tamis.core.errors import TamisError
from tamis.llm.client import connect_for_files
from tamis.llm.faults import shortened
from tamis.llm.settings import BackendSettings, LocalModelSettings, ServiceSettings
from tamis_pipelines.checks.check import Check
from tamis_pipelines.settings import RunSettings

_SECONDS = 5.0  # how long a service may take to list its models


def asked_of(settings: RunSettings) -> dict[str, object]:
    """Return everyone that answers prompts, by setting: raters, the judge, and the opponents."""
    found: dict[str, object] = {f"raters.{rater.name}.backend": rater.backend for rater in settings.raters}
    if (judging := settings.judging) is not None:
        found |= {"judging.judge.backend": judging.judge.backend, "judging.against": judging.against}
        found |= {f"judging.opponents.{name}": opponent for name, opponent in judging.opponents.items()}
    return found


def services_of(settings: RunSettings) -> Iterator[tuple[str, ServiceSettings]]:
    """Yield everyone that uses OpenAI's interface, with the setting of its model."""
    for where, one in asked_of(settings).items():
        if isinstance(one, ServiceSettings):
            yield f"{where}.model", one


def services(settings: RunSettings) -> Iterator[Check]:
    """Check that keys are set, and ask each service once for its models."""
    found: dict[tuple[str | None, str | None], list[str] | Check | None] = {}
    for where, service in services_of(settings):
        try:
            service.api_key()
        except TamisError as error:
            yield Check.refused(where, error)
            continue
        place = (service.base_url, service.api_key_env)
        if place not in found:
            found[place] = _models_at(where, service)
        yield _answered(where, service, found[place])
    for where, other in asked_of(settings).items():
        if isinstance(other, BackendSettings) and not isinstance(other, ServiceSettings | LocalModelSettings):
            try:
                other.check()
            except TamisError as error:
                yield Check.refused(where, error)


def _answered(where: str, service: ServiceSettings, models: list[str] | Check | None) -> Check:
    seen = f"{service.model} at {service.base_url or 'OpenAI'}"
    seen += "" if service.api_key_env is None else f", key in {service.api_key_env}"
    if isinstance(models, Check):
        return replace(models, what=where)
    if not models:
        return Check(where, "ok", f"{seen}; the service does not list its models")
    if service.model in models:
        return Check(where, "ok", f"{seen}; the service answers and has this model")
    near = get_close_matches(service.model, models, 3, 0.4) or models[:3]
    return Check(
        where,
        "note",
        f"{seen}; the service answers, but its list of {len(models)} models does not have this one",
        f"check the model's name; similar names: {', '.join(near)}",
    )


def _models_at(where: str, service: ServiceSettings) -> list[str] | Check | None:
    """Return the models that a service lists; None if it lists none; or a failed check that says what is wrong."""
    if service.azure is not None or find_spec("openai") is None:  # Azure lists models that are not deployed
        return None
    import openai

    at = service.base_url or "OpenAI"
    try:
        client = connect_for_files(service).with_options(timeout=_SECONDS)
        return [str(model.id) for model in client.models.list()]
    except TamisError as error:
        return Check.refused(where, error)
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        said = shortened(str(error))
        return Check(where, "failed", f"{at} rejects the key: {said}", f"check the key in {service.api_key_env}")
    except openai.APIConnectionError as error:
        said = shortened(f"{type(error).__name__}: {error.__cause__ or error}")
        return Check(where, "failed", f"{at} does not answer: {said}", "start the server, or correct base_url")
    except Exception:  # the service answers, but not to this request
        return None
