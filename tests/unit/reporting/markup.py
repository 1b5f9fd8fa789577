"""Reading of a page for the tests: elements, text, and what refers to the outside."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "link", "br", "img", "hr", "input"}


@dataclass
class Element:
    """A start tag with its attributes, and all text inside it."""

    tag: str
    attributes: dict[str, str]
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).replace("\N{NO-BREAK SPACE}", " ").split())


class Page(HTMLParser):
    """All elements of a page, in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.unbalanced: list[str] = []
        self.feed(html)
        self.close()
        self.unbalanced += [element.tag for element in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1].tag == tag:
            self._open.pop()
        else:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.texts.append(data)

    def all(self, *tags: str) -> list[Element]:
        return [element for element in self.elements if element.tag in tags]

    @property
    def text(self) -> str:
        return self.all("body")[0].text

    def references(self) -> list[str]:
        """Everything in attributes and styles that a browser would load or follow."""
        found = []
        for element in self.elements:
            for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"):
                if name in element.attributes:
                    found.append(element.attributes[name])
            found += re.findall(r"url\(\s*['\"]?([^)'\"]*)", element.attributes.get("style", ""))
            found += re.findall(r"url\(\s*['\"]?([^)'\"]*)", element.attributes.get("clip-path", ""))
        for style in self.all("style"):
            found += re.findall(r"url\(\s*['\"]?([^)'\"]*)|@import\s+([^;]*)", "".join(style.texts))
        return [text for item in found for text in ([item] if isinstance(item, str) else item) if text]

    def rows(self, caption: str) -> list[list[str]]:
        """Cell texts of the tables with this caption, one list a row, header first."""
        rows: list[list[str]] = []
        inside = False
        for element in self.elements:
            if element.tag == "table":
                inside = False
            elif element.tag == "caption":
                inside = element.text == caption
            elif inside and element.tag == "tr":
                rows.append([])
            elif inside and element.tag in ("th", "td"):
                rows[-1].append(element.text)
        return rows
