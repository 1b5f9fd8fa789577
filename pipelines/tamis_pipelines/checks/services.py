"""Services that a run asks: their keys, and whether they answer and know the model."""

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

_SECONDS = 5.0  # that a service may take to name its models


def asked_of(settings: RunSettings) -> dict[str, object]:
    """Who is asked, by dotted place: raters, the judge, those that it compares with."""
    found: dict[str, object] = {f"raters.{rater.name}.backend": rater.backend for rater in settings.raters}
    if (judging := settings.judging) is not None:
        found |= {"judging.judge.backend": judging.judge.backend, "judging.against": judging.against}
        found |= {f"judging.opponents.{name}": opponent for name, opponent in judging.opponents.items()}
    return found


def services_of(settings: RunSettings) -> Iterator[tuple[str, ServiceSettings]]:
    """Who has OpenAI's interface, with the dotted place of its model's name."""
    for where, one in asked_of(settings).items():
        if isinstance(one, ServiceSettings):
            yield f"{where}.model", one


def services(settings: RunSettings) -> Iterator[Check]:
    """Whether the keys are there, and what each service says when it is asked for its models, once."""
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
        yield _told(where, service, found[place])
    for where, other in asked_of(settings).items():
        if isinstance(other, BackendSettings) and not isinstance(other, ServiceSettings | LocalModelSettings):
            try:
                other.check()
            except TamisError as error:
                yield Check.refused(where, error)


def _told(where: str, service: ServiceSettings, models: list[str] | Check | None) -> Check:
    seen = f"{service.model} at {service.base_url or 'OpenAI'}"
    seen += "" if service.api_key_env is None else f", key in {service.api_key_env}"
    if isinstance(models, Check):
        return replace(models, what=where)
    if not models:
        return Check(where, "ok", f"{seen}; which models it has is not said")
    if service.model in models:
        return Check(where, "ok", f"{seen}, which answers")
    near = get_close_matches(service.model, models, 3, 0.4) or models[:3]
    return Check(
        where,
        "note",
        f"{seen}, which answers, but does not name this model among its {len(models)}",
        f"look whether one of these is meant: {', '.join(near)}",
    )


def _models_at(where: str, service: ServiceSettings) -> list[str] | Check | None:
    """The models that a service names; None where it does not say; why it cannot be asked."""
    if service.azure is not None or find_spec("openai") is None:  # Azure names what could be deployed
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
        return Check(where, "failed", f"{at} refuses the key: {said}", f"check the key in {service.api_key_env}")
    except openai.APIConnectionError as error:
        said = shortened(f"{type(error).__name__}: {error.__cause__ or error}")
        return Check(where, "failed", f"{at} does not answer: {said}", "start it, or correct base_url")
    except Exception:  # it answers, in a way of its own
        return None
