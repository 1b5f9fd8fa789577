"""The signals by name. To add one, put a file here, or declare an entry point "tamis.signals" in a package."""

from __future__ import annotations

from tamis.core.registry import Registry
from tamis.signals.columns.base import Signal

SIGNALS: Registry[Signal] = Registry(__name__, "SIGNAL", "tamis.signals", Signal, name_of=lambda signal: signal.name)
