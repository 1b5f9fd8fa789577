"""Stage 5, curation: estimate the raters' errors, correct scores where that does no harm, and score diversity.

For arrays: `from tamis.curation import curate`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tamis.curation.model import curate

__all__ = ["curate"]


def __getattr__(name: str) -> Any:
    # numpy and scipy are loaded when the function is used, not by the command line.
    if name == "curate":
        from tamis.curation.model import curate

        return curate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
