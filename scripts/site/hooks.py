"""MkDocs hooks: pages from outside docs/, and the generated reference."""

from __future__ import annotations

import re
from typing import Any

import pages
import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_sources: dict[str, str] = {}  # each page's path in the repository, by its path in the site
_places: dict[str, str] = {}  # paths in the site, by paths of files and folders in the repository


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace folders in the navigation by lists of their pages."""
    generated = [*reference.pages(), *pages.pages().values()]
    decisions = [f"decisions/{file.name}" for file in sorted((pages.ROOT / "docs/decisions").glob("*.md"))]
    config.nav = _filled(config.nav, [*generated, *decisions])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and collect the targets of links."""
    _sources.clear()
    _places.clear()
    for source, target in pages.pages().items():
        files.append(File.generated(config, target, content=pages.text_of(source)))
        _sources[target] = source
    for target, text in reference.pages().items():
        files.append(File.generated(config, target, content=text))
        _sources[target] = f"docs/{target}"
    for file in files:
        if file.src_uri not in _sources and not file.src_uri.startswith("assets/"):
            _sources[file.src_uri] = f"docs/{file.src_uri}"
    _places.update({source: target for target, source in _sources.items()})
    _places.update(pages.folders(sorted(_sources)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links so that they lead to the site's pages."""
    return pages.relinked(markdown, _sources[page.file.src_uri], page.file.src_uri, _places)


def _filled(nav: Any, names: list[str]) -> Any:
    if isinstance(nav, list):
        return [_filled(item, names) for item in nav]
    if isinstance(nav, dict):
        return {title: _filled(item, names) for title, item in nav.items()}
    if isinstance(nav, str) and nav.endswith("/"):
        return [name for name in names if re.fullmatch(re.escape(nav) + r"[^/]+\.md", name)]
    return nav
