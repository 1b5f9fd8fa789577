"""The style of the page and its plots: the colours of both themes, matplotlib's settings, SVG and PNG.

Plots are drawn in the colours of the light theme. In their SVG each colour becomes a CSS variable, so one file is
legible on light and dark backgrounds and uses the page's typeface. PNGs keep the light theme on white.
"""

from __future__ import annotations

import io
import re
import warnings
from html import escape
from pathlib import Path
from typing import Any

from tamis.reporting.blocks import Figure
from tamis.reporting.numbers import printable

# Everywhere else colours are used by name. No two values of the light theme are equal, so a value identifies its name.
LIGHT = {
    "paper": "#ffffff",
    "ink": "#1c2127",
    "muted": "#5b646f",
    "line": "#dde1e6",
    "wash": "#f5f6f8",
    "accent": "#0b665e",
    "raw": "#8a949f",
    "alert": "#a8480f",
    "s0": "#e0e9e7",
    "s1": "#b9d5cf",
    "s2": "#89bbb2",
    "s3": "#3b827a",
    "s4": "#21736b",
    "s5": "#0a4b47",
    "c0": "#2f6f97",
    "c1": "#8f6114",
    "c2": "#4c7830",
    "c3": "#97496f",
    "c4": "#655aa6",
    "c5": "#1f7b77",
    "c6": "#a34a3a",
    "c7": "#69717b",
}
DARK = {
    "paper": "#14171a",
    "ink": "#e6e9ec",
    "muted": "#9aa4af",
    "line": "#2e343b",
    "wash": "#1b1f24",
    "accent": "#5cc0b1",
    "raw": "#6d7782",
    "alert": "#eb9a63",
    "s0": "#22312f",
    "s1": "#2a4a46",
    "s2": "#336c65",
    "s3": "#4a958a",
    "s4": "#76bcae",
    "s5": "#b5e3d8",
    "c0": "#5b9fca",
    "c1": "#d39c52",
    "c2": "#86b566",
    "c3": "#c07a9e",
    "c4": "#978dd0",
    "c5": "#5fbab5",
    "c6": "#cf7a6a",
    "c7": "#9aa1aa",
}
CATEGORIES = tuple(f"c{i}" for i in range(8))
SCALE = tuple(f"s{i}" for i in range(6))
FONT = '"Helvetica Neue", "Segoe UI", "Liberation Sans", Arial, Roboto, sans-serif'
_PNG_SCALE = 2  # pixels of a PNG per pixel of the page

_RC: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so layouts are the same on every machine
    "font.size": 11,
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.labelsize": 11,
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.8,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "xtick.major.pad": 5,
    "ytick.major.pad": 5,
    "legend.frameon": False,
    "legend.handlelength": 0.9,
    "legend.handleheight": 0.9,
    "legend.columnspacing": 1.2,
    "legend.borderpad": 0,
    "legend.borderaxespad": 0.3,
    "legend.fontsize": 11,
    "text.parse_math": False,  # a rater may be called "a$b$c"
    "svg.fonttype": "none",  # text stays text: the reader's typeface, selectable
    "svg.hashsalt": "tamis",
}


def save(figure: Figure, folder: Path) -> str:
    """Write `figure` into `folder` as `<name>.svg` and `<name>.png`.

    Returns:
        The SVG for the page: no namespace or prologue, ids of its own, described for screen readers.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with mpl.rc_context({**mpl.rcParamsDefault, **_RC}), warnings.catch_warnings():
        canvas = Canvas(figsize=(figure.width / 72, figure.height / 72), dpi=72)
        canvas.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03))
        FigureCanvasAgg(canvas)
        figure.draw(canvas.add_subplot())
        # Names in a script that matplotlib's font lacks appear as boxes in the PNG; the SVG uses the reader's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        canvas.draw_without_rendering()
        canvas.set_layout_engine("none")  # laid out once is enough for both files
        canvas.savefig(
            folder / f"{figure.name}.png", dpi=72 * _PNG_SCALE, facecolor=LIGHT["paper"], metadata={"Software": None}
        )
        buffer = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        canvas.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    body = _themed(buffer.getvalue())
    (folder / f"{figure.name}.svg").write_text(_standalone(figure, body), encoding="utf-8")
    return _inline(figure, body)


def variables(theme: dict[str, str]) -> str:
    """The colours of a theme as CSS declarations."""
    return "".join(f"--{name}:{value};" for name, value in theme.items())


def _themed(svg: str) -> str:
    """The content of matplotlib's <svg>, with variables for colours and typeface, without unused ids and spaces."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    for name, value in LIGHT.items():
        body = body.replace(value, f"var(--{name})")
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", body)
    body = body.replace("xlink:href", "href").replace(' transform="rotate(-0 ', ' transform="rotate(0 ')
    used = set(re.findall(r"#(\w+)", body))
    body = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r' transform="rotate\(0 [^"]*\)"', "", body)
    return re.sub(r"\s*\n\s*", "\n", body).strip()


def _opening(figure: Figure, attributes: str) -> str:
    size = f'width="{figure.width}" height="{figure.height}" viewBox="0 0 {figure.width} {figure.height}"'
    return f'<svg {attributes}{size} role="img" aria-label="{escape(printable(figure.alt))}">'


def _standalone(figure: Figure, body: str) -> str:
    style = (
        f"svg{{{variables(LIGHT)}--font:{FONT.replace(chr(34), chr(39))}}}"
        f"@media(prefers-color-scheme:dark){{svg{{{variables(DARK)}}}}}"
    )
    opening = _opening(figure, 'xmlns="http://www.w3.org/2000/svg" ')
    return f"{opening}\n<title>{escape(printable(figure.caption))}</title>\n<style>{style}</style>\n{body}\n</svg>\n"


def _inline(figure: Figure, body: str) -> str:
    """`body` for the page: ids are prefixed with the figure's name, since they must be unique on the page."""
    body = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{figure.name}-", body)
    return f"{_opening(figure, '')}\n{body}\n</svg>"
