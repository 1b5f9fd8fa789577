"""What services take for a rating, a judged answer and a verdict, at the stated rates."""

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
    """One request to a service: tokens sent and answered, and its price."""

    sent: float
    answered: float
    price: float


def rating(rater: AskedRater, service: BackendSettings, rates: RatesSettings) -> Request:
    """The rating of one sample."""
    sent = rates.prompt_tokens + rates.tokens_per_sample
    return _request(sent, rates.answer_tokens + _thoughts(service), _price(service, rater.price), rates)


def answer(contestant: ServiceContestant, rates: RatesSettings) -> Request:
    """A contestant's answer to one prompt."""
    return _request(rates.prompt_tokens, rates.written_tokens, contestant.price, rates)


def verdict(judging: JudgingSettings, service: BackendSettings, rates: RatesSettings) -> Request:
    """A judge's verdict on two answers in one order."""
    sent = rates.prompt_tokens + 2 * rates.written_tokens
    return _request(sent, rates.answer_tokens + _thoughts(service), _price(service, judging.price), rates)


def prompts_of(judging: JudgingSettings, rates: RatesSettings) -> int:
    """Prompts of a match, as far as the settings limit them."""
    limits = [prompts.limit for prompts in judging.prompts]
    return rates.judged_prompts if None in limits else sum(limit for limit in limits if limit)


def _price(service: BackendSettings, price: PriceSettings | None) -> PriceSettings | None:
    """The price that is given; none of a backend whose tokens cost nothing."""
    return price if service.PRICED else PriceSettings(input=0, output=0)


def _thoughts(service: BackendSettings) -> int:
    return int(getattr(service, "thinking_tokens", 0))


def _request(sent: float, answered: float, price: PriceSettings | None, rates: RatesSettings) -> Request:
    """Tokens cost what the service's own section says, else the rates."""
    known = price or PriceSettings(input=rates.input_price, output=rates.output_price)
    return Request(sent, answered, known.of(sent, answered))
