"""Settings of the stage `describe`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from tamis.core.references import HubTokenizer
from tamis.core.settings import StageSettings
from tamis.signals.columns import SIGNALS

if TYPE_CHECKING:
    SignalName = str
else:
    SignalName = Literal[tuple(SIGNALS)]


class DescribeSettings(StageSettings):
    """Which signals are computed for every sample."""

    OUTPUT_REVISION: ClassVar[int] = 1

    signals: tuple[SignalName, ...] | None = Field(
        None, description="names of the signals; null: all, but `tokens` only with a tokenizer"
    )
    tokenizer: HubTokenizer | None = Field(
        None, description="model or folder whose tokenizer counts tokens; null: tokens are not counted"
    )
    tokenizer_revision: str | None = Field(None, description="commit or tag of a tokenizer on the Hub")

    @model_validator(mode="after")
    def _fits_together(self) -> DescribeSettings:
        if self.signals is not None:
            if not self.signals:
                raise ValueError(f"signals is empty; allowed: null for all, or some of {', '.join(SIGNALS)}")
            if len(set(self.signals)) < len(self.signals):
                raise ValueError("a signal is listed twice; list each once")
            if "tokens" in self.signals and self.tokenizer is None:
                raise ValueError("the signal tokens needs a tokenizer; set tokenizer, or remove tokens")
            if "tokens" not in self.signals and self.tokenizer is not None:
                raise ValueError("tokenizer is set, but signals does not have tokens; add tokens, or omit tokenizer")
        if self.tokenizer is None and self.tokenizer_revision is not None:
            raise ValueError("tokenizer_revision works with tokenizer only; omit it")
        return self

    @property
    def active(self) -> tuple[str, ...]:
        """The names of the signals that are computed, in the registry's order."""
        if self.signals is not None:
            return tuple(name for name in SIGNALS if name in self.signals)
        return tuple(name for name in SIGNALS if name != "tokens" or self.tokenizer is not None)
