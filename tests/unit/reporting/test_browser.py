"""The page in a real browser, opened from a file."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.unit.reporting.conftest import Made

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = [
    "--headless",
    "--no-sandbox",  # a browser of root's has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
    "--dump-dom",
]
# The page has no script (and forbids them), so a page around it looks at it through a frame of the screen's width.
FRAME = """<!doctype html><body><iframe id="frame" width="{width}" height="800" src="{page}"></iframe><pre id="seen">
</pre><script>frame.onload = () => {{
  const inner = frame.contentDocument, root = inner.documentElement;
  seen.textContent = JSON.stringify({{
    title: inner.title, scroll: root.scrollWidth, client: root.clientWidth,
    wide: [...inner.querySelectorAll("main p, figure, svg, .table, h2, dl")]
      .filter(e => e.getBoundingClientRect().right > root.clientWidth + 1).map(e => e.className || e.tagName),
    smallest: Math.min(...[...inner.querySelectorAll("svg text")].map(e => e.getBoundingClientRect().height)),
  }});
}};</script></body>"""


@pytest.fixture(scope="module")
def browser() -> str:
    if BROWSER is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    return BROWSER


def look(browser: str, page: Path, folder: Path, width: int) -> dict[str, Any]:
    """What a browser makes of `page` in a frame of `width` pixels, and what the page asked the network for."""
    outer, log = folder / f"frame-{width}.html", folder / f"network-{width}.json"
    outer.write_text(FRAME.format(width=width, page=page.as_uri()), encoding="utf-8")
    command = [browser, *OPTIONS, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", outer.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="seen">(\{.*?\})</pre>', done.stdout, flags=re.DOTALL)
    assert found is not None, done.stdout[:2000]
    seen: dict[str, Any] = json.loads(unescape(found[1]))
    events = [event.get("params", {}) for event in json.loads(log.read_text(encoding="utf-8"))["events"]]
    # The browser's own requests (time, accounts) come from no origin; those of a page in a file come from "null".
    seen["requests"] = [
        e["url"] for e in events if "url" in e and e.get("initiator", "not an origin") != "not an origin"
    ]
    return seen


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_fits_its_screen_and_loads_nothing(width: int, browser: str, made: Made, tmp_path: Path) -> None:
    # Without its own policy, which would stop requests before they could be seen.
    html = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", made.text("report.html"))
    page = tmp_path / "page.html"
    page.write_text(html, encoding="utf-8")
    seen = look(browser, page, tmp_path, width)
    assert seen["title"] == "A & B <b>"
    assert seen["requests"] == []
    assert seen["scroll"] <= seen["client"] == width
    assert seen["wide"] == []
    assert seen["smallest"] >= 10, "texts in plots stay legible"


def test_a_request_of_a_page_would_be_seen(browser: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<!doctype html><img src="http://127.0.0.1:9/x.png"><p>text</p>', encoding="utf-8")
    assert look(browser, page, tmp_path, 390)["requests"] == ["http://127.0.0.1:9/x.png"]
