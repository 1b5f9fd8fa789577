"""What benchmarks write: Markdown tables, in a results file whose sections are replaced one by one."""

from __future__ import annotations

import platform
from pathlib import Path


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def processor() -> str:
    """Its name where Linux says it, else the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


class Results:
    """A Markdown file: what stands above its sections is written anew, a section by its title, the others stay."""

    def __init__(self, path: Path, head: str) -> None:
        self.path, self.head = path, head
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        self.sections = {section.splitlines()[0]: section.strip() for section in text.split("\n## ")[1:]}

    def put(self, section: str) -> None:
        """Write `section`, which begins with "## " and its title."""
        self.sections[section.splitlines()[0].removeprefix("## ")] = section.removeprefix("## ")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\n\n## ".join([self.head, *self.sections.values()]) + "\n", encoding="utf-8")
