"""What all figures share: the look, and SVG text that may stand inside a page.

Axes and text take the colour of the surrounding page and the background is transparent, so the
same figure reads on light and on dark. Colours are close to Okabe & Ito's, safe for colour-blind
readers.
"""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Stands for the colour of the page's text; no figure uses it for anything else.
INK = "#010203"
COLORS = ("#2a86c8", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
# The diamond is left to published values.
MARKERS = ("o", "s", "^", "v", "P", "X", "p", "h")
# In inches: a figure beside another one, and one that takes the whole page.
WIDTH, FULL_WIDTH = 5.8, 11.6
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tfdistill",
    # A name such as "$5 model" is text, not a formula.
    "text.parse_math": False,
    "font.size": 9.5,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
STYLE |= dict.fromkeys(
    ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"),
    INK,
)


def svg(draw: Callable[[Figure], None], height: float, label: str, width: float = WIDTH) -> str:
    """Return what `draw` draws as SVG text.

    Args:
        draw: Draws on an empty figure.
        height: In inches.
        label: What readers who see no figures are told.
        width: In inches.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _inline(buffer.getvalue(), label)


def is_wide(svg: str) -> bool:
    """Return whether a figure takes the whole width of a page."""
    return f'width="{96 * FULL_WIDTH:.0f}"' in svg


def _inline(text: str, label: str) -> str:
    """Return the part of a stand-alone SVG that may stand, more than once, inside HTML."""
    text = text[text.index("<svg") :]
    # Names of groups repeat from figure to figure, and nothing refers to them.
    text = re.sub(r'<g id="[^"]*"', "<g", text).replace(INK, "currentColor")
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[0]
    size = f'width="{float(width) * 4 / 3:.0f}" height="{float(height) * 4 / 3:.0f}"'
    text = re.sub(r'(width|height)="[^"]*pt" ?', "", text, count=2)
    return text.replace("<svg", f'<svg role="img" aria-label="{label}" {size}', 1).strip()
