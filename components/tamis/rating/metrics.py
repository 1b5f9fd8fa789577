"""Progress as Prometheus metrics, if `TAMIS_METRICS_PORT` (`tamis rate --metrics-port`) names a port."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any

from tamis.core.errors import MissingExtraError, SettingsError
from tamis.core.tables import STATUSES
from tamis.llm.budget import Budget
from tamis.rating.records import Rating

PORT = "TAMIS_METRICS_PORT"


class Metrics:
    """Counts of one run, served over HTTP while it lasts; does nothing if no port is named. A context manager.

    Raises:
        SettingsError: when the port is invalid, or in use.
        MissingExtraError: when prometheus_client is not installed.
    """

    def __init__(self, rater: str, samples: int, reused: int) -> None:
        self._rater, self._samples, self._reused = rater, samples, reused
        self._server: Any = None

    def __enter__(self) -> Metrics:
        if not (port := os.environ.get(PORT)):
            return self
        try:
            import prometheus_client as prometheus
        except ImportError:
            raise MissingExtraError.of("prometheus_client", "metrics") from None
        registry = prometheus.CollectorRegistry()

        def gauge(name: str, about: str) -> Any:
            return prometheus.Gauge(f"tamis_rating_{name}", about, ["rater"], registry=registry).labels(self._rater)

        def counter(name: str, about: str, label: str, values: tuple[str, ...]) -> dict[str, Any]:
            made = prometheus.Counter(f"tamis_rating_{name}", about, ["rater", label], registry=registry)
            return {value: made.labels(self._rater, value) for value in values}

        gauge("pool_samples", "Samples that this worker rates, including those rated before").set(self._samples)
        gauge("reused_samples", "Samples whose ratings were already in the store").set(self._reused)
        self._rated = counter("samples", "Samples rated by this run", "status", STATUSES)
        self._tokens = counter("tokens", "Tokens of prompts and answers", "kind", ("prompt", "completion"))
        self._cost = gauge("cost", "Cost of all ratings so far, if the settings have a price")
        try:
            self._server, _ = prometheus.start_http_server(int(port), registry=registry)
        except (OSError, ValueError, OverflowError) as error:
            raise SettingsError(f"metrics cannot be served at port {port}: {error}", allowed="a free port") from None
        return self

    def count(self, rating: Rating, budget: Budget) -> None:
        """Count a rating of this run."""
        if self._server is None:
            return
        self._rated[rating.status].inc()
        self._tokens["prompt"].inc(rating.prompt_tokens or 0)
        self._tokens["completion"].inc(rating.completion_tokens or 0)
        if budget.cost is not None:
            self._cost.set(budget.cost)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
