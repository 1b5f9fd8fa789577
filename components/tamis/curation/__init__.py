"""Stage 5, curation: find the raters' errors, correct what can be corrected without harm, score diversity.

On arrays: `from tamis.curation import curate`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tamis.curation.model import curate

__all__ = ["curate"]


def __getattr__(name: str) -> Any:
    # numpy and scipy are loaded when the function is asked for, not with the command line.
    if name == "curate":
        from tamis.curation.model import curate

        return curate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
