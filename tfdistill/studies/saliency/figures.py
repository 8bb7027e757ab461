"""Heat maps of the study `saliency`: images in lines, networks in columns, each map on its image.

The image is grey under the map, whose colours run from dark violet over orange to light yellow, so
that they also differ in lightness. What a network says stands under its map; what is wrong has a
cross and bold type.
"""

import base64
import io
from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tfdistill.records import Record
from tfdistill.reporting.svg import COLORS, FULL_WIDTH, svg

WRONG = COLORS[1]
# Pixels of a tile's side; a map is drawn over its image at this resolution.
TILE = 64
SMALLEST, LARGEST = 6.5, 10.0


def grid(record: Record, headings: Mapping[str, str]) -> str:
    """Return the heat maps of some networks as SVG text.

    Args:
        record: Of the run that made them (`run`).
        headings: Names of networks, or `ensemble`, each with the heading of its column.

    Returns:
        SVG text with a line for each of the record's images; "" where it has none.
    """
    images = record.extra["images"]
    if not images:
        return ""
    side = FULL_WIDTH / (len(headings) + 1)  # in inches
    longest = max(len(view["predicted"]) for image in images for view in image["views"])
    size = float(np.clip(72 * side / (0.62 * (longest + 3)), SMALLEST, LARGEST))

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(images), len(headings) + 1, squeeze=False)
        for line, image in zip(axes, images, strict=True):
            views = {view["name"]: view for view in image["views"]}
            pixels = _rgb(image["png"])
            _tile(line[0], _nearest(pixels), f"{image['label']}\nnumber {image['id']}", size)
            for place, name in zip(line[1:], headings, strict=True):
                _view(place, pixels, views[name], size)
        for place, heading in zip(axes[0], ["image", *headings.values()], strict=True):
            place.set_title(heading.replace("-", "-\n"), fontsize=size)
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.04, wspace=0, hspace=0)

    height = 0.5 + len(images) * (side + 2.6 * size / 72)
    return svg(draw, height, "Where networks look in images", FULL_WIDTH)


def channels(record: Record) -> str:
    """Return the images in which single channels are most active as SVG text, a line for each."""
    shown = record.extra["channels"]["channels"]
    columns = max(len(channel["images"]) for channel in shown)
    side = FULL_WIDTH / columns

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(shown), columns, squeeze=False)
        for line, channel in zip(axes, shown, strict=True):
            for place in line[len(channel["images"]) :]:
                place.set_visible(False)
            for place, image in zip(line, channel["images"], strict=False):
                heat = _rgb(image["map"])[..., 0]
                _tile(place, _overlay(_rgb(image["png"]), heat), f"number {image['id']}", SMALLEST)
            line[0].set_ylabel(
                f"channel {channel['number']}\n{100 * channel['share']:.0f} %", fontsize=LARGEST
            )
        figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.04, wspace=0, hspace=0)

    height = 0.3 + len(shown) * (side + 2 * SMALLEST / 72)
    return svg(draw, height, "What single channels respond to", FULL_WIDTH)


def _view(axes, pixels: np.ndarray, view: dict, size: float) -> None:
    text = f"{view['predicted']}\n{100 * view['probability']:.0f} %"
    _tile(axes, _overlay(pixels, _rgb(view["map"])[..., 0]), text, size)
    if not view["right"]:
        axes.set_xlabel(f"✗ {text}", fontsize=size, color=WRONG, fontweight="bold", labelpad=2)


def _tile(axes, pixels: np.ndarray, text: str, size: float) -> None:
    axes.imshow(pixels, interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(text, fontsize=size, labelpad=2)


def _overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return an image in darkened grey under its heat map, `[TILE, TILE, 3]` in 0..1."""
    grey = 0.75 * _nearest(pixels) @ np.array([0.299, 0.587, 0.114])
    heat = _bilinear(heat)
    color = matplotlib.colormaps["inferno"](heat)[..., :3]
    weight = (0.2 + 0.6 * heat)[..., None]
    return (1 - weight) * grey[..., None] + weight * color


def _rgb(png: str) -> np.ndarray:
    """Return a PNG in base64 as `[h, w, 3]` in 0..1."""
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(png)), format="png")
    return np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else pixels[..., :3]


def _nearest(pixels: np.ndarray) -> np.ndarray:
    rows, columns = (np.arange(TILE) * side // TILE for side in pixels.shape[:2])
    return pixels[rows][:, columns]


def _bilinear(values: np.ndarray) -> np.ndarray:
    """Return `[h, w]` at the tile's size; beyond the outermost centres it stays as there."""
    for _ in range(2):  # columns, then rows
        side = values.shape[0]
        centers = (np.arange(TILE) + 0.5) * side / TILE - 0.5
        values = np.stack([np.interp(centers, np.arange(side), column) for column in values.T])
    return values
