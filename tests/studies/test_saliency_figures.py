"""Heat maps as a picture: every image, network and answer is there, each map on its place."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import matplotlib.image
import numpy as np
import pytest

from tfdistill.records import Record
from tfdistill.reporting.svg import INK, is_wide
from tfdistill.studies.saliency import figures


def png(values):
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, np.asarray(values, np.uint8), cmap="gray", vmin=0, vmax=255)
    return base64.b64encode(buffer.getvalue()).decode()


def view(name, predicted="cat", right=True, heat=((0, 255), (0, 0))):
    heat = {"map": png(heat), "predicted": predicted}
    return {"name": name, **heat, "probability": 0.876, "right": right}


def record(images=2, **changes):
    views = [view("a"), view("b", "dog", right=False), view("ensemble")]
    shown = [
        {"id": 40 + number, "label": "cat", "png": png(np.zeros((8, 8))), "views": views} | changes
        for number in range(images)
    ]
    return Record("heat-maps", "heat maps", 0, "", {}, extra={"images": shown})


HEADINGS = {"a": "F1", "b": "F2", "ensemble": "ensemble"}


def texts(svg):
    return [text.strip() for text in ElementTree.fromstring(svg).itertext() if text.strip()]


def tiles(svg):
    found = re.findall(r'href="data:image/png;base64,([^"]*)"', svg)
    return [matplotlib.image.imread(io.BytesIO(base64.b64decode(data))) for data in found]


def test_every_image_has_a_line_and_every_network_a_column():
    svg = figures.grid(record(images=2), HEADINGS)
    assert len(tiles(svg)) == 2 * 4
    shown = texts(svg)
    assert all(shown.count(heading) == 1 for heading in ("image", "F1", "F2"))
    assert shown.count("number 40") == shown.count("number 41") == 1
    assert shown.count("88 %") == 2 * 3


def test_only_the_networks_asked_for_are_shown():
    svg = figures.grid(record(images=1), {"ensemble": "together"})
    assert len(tiles(svg)) == 2 and "together" in texts(svg) and "✗ dog" not in texts(svg)


def test_what_is_wrong_has_a_cross_and_bold_type():
    svg = figures.grid(record(images=1), HEADINGS)
    assert texts(svg).count("✗ dog") == 1 and "✗ cat" not in texts(svg)
    bold = re.findall(r"<text style=\"font-weight: 700[^>]*>([^<]*)<", svg)
    assert "✗ dog" in bold and "cat" not in bold


@pytest.mark.parametrize("row, column", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_map_lies_where_the_network_looks(row, column):
    heat = np.zeros((2, 2))
    heat[row, column] = 255
    # A dark image, so that brightness is the map's.
    tile = figures._overlay(np.zeros((8, 8, 3)), heat / 255).sum(axis=-1)
    quarters = tile.reshape(2, figures.TILE // 2, 2, figures.TILE // 2).mean(axis=(1, 3))
    assert np.unravel_index(quarters.argmax(), (2, 2)) == (row, column)
    corner = tile[-row, -column]  # the brightest place, as far from the others as can be
    assert corner == tile.max()


def test_maps_of_any_shape_fill_the_tile():
    tile = figures._bilinear(np.array([[0.0, 1.0, 0.0]]))
    assert tile.shape == (figures.TILE, figures.TILE)
    assert (tile == tile[:1]).all() and tile[0].argmax() in (31, 32)


def test_colour_images_keep_their_colours_and_grey_ones_are_grey():
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, red)
    colour = record(images=1, png=base64.b64encode(buffer.getvalue()).decode())
    first = tiles(figures.grid(colour, HEADINGS))[0]
    np.testing.assert_allclose(first[..., :3], np.broadcast_to([1, 0, 0], (*first.shape[:2], 3)))


def test_the_picture_takes_the_colour_of_the_page_and_loads_nothing():
    svg = figures.grid(record(), HEADINGS)
    assert "currentColor" in svg and INK not in svg and is_wide(svg)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg)
    assert svg == figures.grid(record(), HEADINGS)


def test_without_images_there_is_no_picture():
    assert figures.grid(record(images=0), HEADINGS) == ""
