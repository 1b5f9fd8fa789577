"""The HTML page: what it says, that it stands alone, that texts of the data stay texts."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from tamis.reporting import style
from tests.unit.reporting.conftest import HOSTILE, Made
from tests.unit.reporting.markup import Page


@pytest.fixture(scope="module")
def page(made: Made) -> Page:
    return Page(made.text("report.html"))


def test_every_tag_is_closed(page: Page) -> None:
    assert page.unbalanced == []


def test_the_page_refers_to_nothing_outside_itself(page: Page) -> None:
    references = page.references()
    assert len(references) > 20
    assert [text for text in references if not text.startswith("#") and text != "data:,"] == []


def test_links_inside_the_page_lead_somewhere(page: Page) -> None:
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    assert {text.removeprefix("#") for text in page.references() if text.startswith("#")} <= set(ids)


def test_nothing_on_the_page_can_run_or_load(page: Page, made: Made) -> None:
    assert page.all("script", "iframe", "object", "embed", "img") == []
    assert not [name for element in page.elements for name in element.attributes if name.startswith("on")]
    policy = next(e for e in page.all("meta") if e.attributes.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy.attributes["content"]


def test_hostile_texts_are_shown_and_not_interpreted(page: Page, made: Made) -> None:
    assert "<script>alert(1)" not in made.text("report.html")
    assert "<script>alert(1)</script>" in page.text
    assert page.all("h1")[0].text == "A & B <b>"
    assert "This rater is weak & <i>small</i>." in page.text
    assert any(HOSTILE[:40] in element.text for element in page.all("td")), "the reason of an unrated sample"


def test_no_file_holds_a_control_character(made: Made) -> None:
    for name in ("report.html", "results.csv", "results.md"):
        assert re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", made.text(name)) is None


def test_headings_go_down_one_level_at_a_time(page: Page) -> None:
    levels = [int(element.tag[1]) for element in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_the_contents_list_every_section_in_order(page: Page) -> None:
    titles = ["Pool", "Ratings", "Curation", "Truth", "Bias", "Subsets", "Experiment", "Evaluation"]
    titles.append("Cost and reproduction")
    assert [element.text for element in page.all("h2")] == titles
    assert [element.text for element in page.all("li")][: len(titles)] == titles


def test_every_plot_is_described_in_words(page: Page) -> None:
    plots = [element for element in page.all("svg")]
    assert len(plots) == len(page.all("figure")) == len(page.all("figcaption")) > 15
    assert all(len(element.attributes["aria-label"]) > 20 for element in plots)
    assert all(element.attributes["role"] == "img" for element in plots)


def test_every_table_has_a_caption_and_scrolls_in_a_named_box(page: Page) -> None:
    boxes = [element for element in page.all("div") if element.attributes.get("class") == "scroll"]
    captions = [element.text for element in page.all("caption")]
    assert len(boxes) == len(page.all("table")) == len(captions)
    assert [element.attributes["aria-label"] for element in boxes] == captions
    assert all(element.attributes["tabindex"] == "0" for element in boxes)


def test_plots_take_their_colours_from_the_theme(made: Made) -> None:
    html = made.text("report.html")
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}\b", drawings)
    used = set(re.findall(r"var\(--(\w+)\)", drawings)) - {"font"}
    assert {"ink", "muted", "accent"} <= used <= set(style.LIGHT) == set(style.DARK)


def test_plots_are_written_as_svg_and_png(made: Made) -> None:
    svgs = sorted((made.folder / "plots").glob("*.svg"))
    pngs = sorted((made.folder / "plots").glob("*.png"))
    assert [path.stem for path in svgs] == [path.stem for path in pngs]
    assert len(svgs) == made.manifest.facts["plots"]
    for path in svgs:
        text = path.read_text(encoding="utf-8")
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert "prefers-color-scheme:dark" in text
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pngs)


@pytest.mark.parametrize("theme", ["LIGHT", "DARK"])
def test_texts_stand_out_from_what_is_behind_them(theme: str) -> None:
    colours = getattr(style, theme)
    pairs = [(text, "paper") for text in ("ink", "muted", "accent", "alert")] + [("ink", "wash")]
    pairs += [("ink", name) for name in ("s0", "s1", "s2")] + [("paper", name) for name in ("s3", "s4", "s5")]
    pairs += [("paper", name) for name in style.CATEGORIES]
    weak = {pair: ratio for pair in pairs if (ratio := _contrast(colours[pair[0]], colours[pair[1]])) < 4.5}
    assert weak == {}


def _contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
