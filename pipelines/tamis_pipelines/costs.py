"""What a rating, a judged answer and a verdict cost at services, by the rates in the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tamis.llm.settings import BackendSettings, PriceSettings

if TYPE_CHECKING:
    from tamis.judging.settings import JudgingSettings, ServiceContestant
    from tamis.rating.settings import AskedRater
    from tamis_pipelines.rates import RatesSettings


@dataclass(frozen=True)
class Request:
    """One request to a service: tokens sent and received, and its price."""

    sent: float
    answered: float
    price: float


def rating(rater: AskedRater, service: BackendSettings, rates: RatesSettings) -> Request:
    """Return the request that rates one sample."""
    sent = rates.prompt_tokens + rates.tokens_per_sample
    return _request(sent, rates.answer_tokens + _thoughts(service), _price(service, rater.price), rates)


def answer(contestant: ServiceContestant, rates: RatesSettings) -> Request:
    """Return the request for a contestant's answer to one prompt."""
    return _request(rates.prompt_tokens, rates.written_tokens, contestant.price, rates)


def verdict(judging: JudgingSettings, service: BackendSettings, rates: RatesSettings) -> Request:
    """Return the request for a judge's verdict on two answers in one order."""
    sent = rates.prompt_tokens + 2 * rates.written_tokens
    return _request(sent, rates.answer_tokens + _thoughts(service), _price(service, judging.price), rates)


def prompts_of(judging: JudgingSettings, rates: RatesSettings) -> int:
    """Return the number of prompts in a match: the sum of their limits, or the rates' number if one has no limit."""
    limits = [prompts.limit for prompts in judging.prompts]
    return rates.judged_prompts if None in limits else sum(limit for limit in limits if limit)


def _price(service: BackendSettings, price: PriceSettings | None) -> PriceSettings | None:
    """Return the given price; zero for a backend whose tokens are free."""
    return price if service.PRICED else PriceSettings(input=0, output=0)


def _thoughts(service: BackendSettings) -> int:
    return int(getattr(service, "thinking_tokens", 0))


def _request(sent: float, answered: float, price: PriceSettings | None, rates: RatesSettings) -> Request:
    """Return a request at the service's own price; without one, at the rates' price."""
    known = price or PriceSettings(input=rates.input_price, output=rates.output_price)
    return Request(sent, answered, known.of(sent, answered))
