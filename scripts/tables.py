"""Tables in READMEs that are generated from the code. `make tables` writes them, and a test checks them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tamis.core.stages import described
from tamis.selection.strategies import STRATEGIES
from tamis.selection.strategies.base import Strategy

ROOT = Path(__file__).resolve().parents[1]
_BEGIN, _END = "<!-- {name}: made by `make tables` -->\n", "<!-- end -->\n"


def strategies() -> str:
    """The strategies with their order and what they need."""
    rows = [f"| `{name}` | {strategy.about} | {_needs(strategy)} |" for name, strategy in STRATEGIES.items()]
    return "\n".join(["| strategy | order | needs |", "| --- | --- | --- |", *rows]) + "\n"


def _needs(strategy: Strategy) -> str:
    needs = []
    if strategy.scores:
        needs.append(f"`scores` of [{strategy.producer}](../{described(strategy.producer)[0].room}/README.md)")
    if strategy.rated:
        needs.append("`curation`")
    if strategy.neighbors:
        needs.append("`neighbors`")
    if "embedded" in strategy.columns:
        needs.append("`embeddings`")
    return ", ".join(needs)


TABLES: dict[str, tuple[str, Callable[[], str]]] = {
    "strategies": ("components/tamis/selection/README.md", strategies),
}


def with_table(text: str, name: str, table: str) -> str:
    """A README's text with the table inserted between its marks."""
    before, begin, rest = text.partition(_BEGIN.format(name=name))
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"no marks of the table {name}")
    return before + begin + table + end + after


def main() -> None:
    """Write all tables."""
    for name, (place, table) in TABLES.items():
        file = ROOT / place
        file.write_text(with_table(file.read_text(encoding="utf-8"), name, table()), encoding="utf-8")


if __name__ == "__main__":
    main()
