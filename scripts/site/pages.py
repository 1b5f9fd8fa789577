"""Files outside docs/ that are pages of the site, and the targets of links between pages."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
_FENCE = re.compile(r"^( *(```|~~~).*?^ *\2 *$)", re.MULTILINE | re.DOTALL)
_ALONE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "LICENSE": "licence.md",
    "components/tamis/demo/README.md": "demo.md",
}
# Folders to which pages link. In the site, such links lead to the first page of the folder.
_FOLDERS = {"docs/decisions": "decisions/", "benchmarks/results": "benchmarks/", "examples": "examples/"}
_FOLDERS["examples/extension"] = "examples/extension-"
_LANGUAGES = {".yaml": "yaml", ".py": "python", ".toml": "toml", "": "text"}


def pages() -> dict[str, str]:
    """The site path of every file outside docs/ that is a page, or is shown as one."""
    found = dict(_ALONE)
    for file in sorted(ROOT.glob("components/tamis/*/README.md")):
        found.setdefault(_path(file), f"stages/{file.parent.name}.md")
    for file in sorted(ROOT.glob("benchmarks/results/*.md")):
        found[_path(file)] = f"benchmarks/{file.stem}.md"
    for file in sorted([*ROOT.glob("examples/*.yaml"), ROOT / "components/tamis/demo/settings.yaml"]):
        found[_path(file)] = f"examples/{'demo' if file.stem == 'settings' else file.stem}.md"
    for file in sorted(
        [*ROOT.glob("examples/extension/*.toml"), *ROOT.glob("examples/extension/tamis_extension/[!_]*.py")]
    ):
        found[_path(file)] = f"examples/extension-{file.stem}.md"
    return found


def text_of(source: str) -> str:
    """The Markdown of a page: the file's text. Settings, code and the licence become a code block under a heading."""
    text = (ROOT / source).read_text(encoding="utf-8")
    if source.endswith(".md"):
        return text
    title, language = "Licence" if source == "LICENSE" else source, _LANGUAGES[Path(source).suffix]
    return f"# {title}\n\n```{language}\n{text}```\n"


def relinked(markdown: str, source: str, target: str, places: dict[str, str]) -> str:
    """Markdown whose relative links lead to pages of the site.

    Links to other files are not changed, and the build reports them.

    Args:
        markdown: the page's text.
        source: the page's path in the repository; links are relative to it.
        target: the page's path in the site.
        places: the site's path of each file or folder of the repository.
    """

    def replaced(link: re.Match[str]) -> str:
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        if there not in places:
            return link[0]
        return posixpath.relpath(places[there], posixpath.dirname(target) or ".") + (link[2] or "")

    parts = _FENCE.split(markdown)  # text, fence, the fence's mark, text, …
    return "".join(
        _LINK.sub(replaced, part) if place % 3 == 0 else part for place, part in enumerate(parts) if place % 3 < 2
    )


def folders(names: list[str]) -> dict[str, str]:
    """The page for a link to each folder, given the site's pages in order."""
    return {
        folder: first
        for folder, start in _FOLDERS.items()
        if (first := next((name for name in names if name.startswith(start)), None))
    }


def _path(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()
