"""What kinds of run measure besides figures, as their modules say: the types, and what must fit.

Reports read it without asking again; so it is held against this when a record is read.
"""

import base64
import functools
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfdistill.config.study import NETWORK
from tfdistill.utils import checks

# Sides of a picture, in pixels: those of images and of heat maps are far smaller.
MOST_PIXELS = 2**22
ENSEMBLE = "ensemble"


@dataclass
class _Group:
    training_error: float
    test_error: float
    multi_view_error: float | None = None
    single_view_error: float | None = None
    responses: list[tuple[float, float]] | None = None
    learned: list[tuple[bool, bool]] | None = None


@dataclass
class _MultiView:
    networks: list[_Group]


@dataclass
class _Spread:
    mean: float
    std: float


@dataclass
class _Coverage:
    name: str
    row: str
    ensemble: _Spread
    one: _Spread
    chance: _Spread
    blank: float


@dataclass
class _View:
    name: str
    map: str
    predicted: str
    probability: float
    right: bool


@dataclass
class _Image:
    id: int
    label: str
    png: str
    views: list[_View]


@dataclass
class _ChannelImage:
    id: int
    png: str
    map: str


@dataclass
class _Channel:
    number: int
    share: float
    images: list[_ChannelImage]


@dataclass
class _Channels:
    network: str
    label: str
    channels: list[_Channel]


@dataclass
class _Saliency:
    layer: str | None
    tested: int
    networks: list[_Coverage]
    images: list[_Image]
    channels: _Channels | None = None


_OF_KIND = {"multi_view": _MultiView, "saliency": _Saliency}


def check(config: Mapping[str, Any], extra: dict[str, Any]) -> None:
    """Raise unless `extra` is what a run of this configuration measures.

    Args:
        config: The record's configuration.
        extra: What it holds; empty where nothing was measured besides.

    Raises:
        UsageError: What is wrong.
    """
    kind, settings = config["kind"], config["settings"]
    if kind == NETWORK and extra:
        raise checks.UsageError("extra is not empty, which it is of a network")
    if kind not in _OF_KIND or not extra:
        return
    try:
        found = _schema(kind).validate_json(json.dumps(extra).encode(), strict=True)
    except ValueError as error:  # pydantic's
        raise checks.UsageError(f"extra.{problem(error)}") from None
    if isinstance(found, _MultiView):
        _check_groups(settings, found)
    else:
        _check_heat_maps(found)


def problem(error: Any) -> str:
    """Return what pydantic found wrong first, and where."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "it"
    return f"{where}: {first['msg']}"


@functools.cache
def _schema(kind: str) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(_OF_KIND[kind])


def _check_groups(settings: Mapping[str, Any], found: _MultiView) -> None:
    data = settings.get("data")
    if not (data is None or isinstance(data, dict) and _within(data.get("mu"), 1e-9, 1)):
        raise checks.UsageError(f"config.settings.data is {checks.shown(data)}")
    classes = data.get("classes") if data else 0
    if not found.networks:
        raise checks.UsageError("extra.networks is empty")
    for place, group in enumerate(found.networks):
        where = f"extra.networks.{place}"
        for name, value in vars(group).items():
            if value is None and data is not None:
                raise checks.UsageError(f"{where}.{name} is missing")
            if name.endswith("error") and value is not None:
                # Of no example at all it is no number.
                if not (math.isnan(value) or _within(value, 0, 1)):
                    raise checks.UsageError(f"{where}.{name} is {checks.shown(value)}")
            elif value is not None and len(value) != classes:
                raise checks.UsageError(f"{where}.{name} is not of {checks.shown(classes)} classes")


def _check_heat_maps(found: _Saliency) -> None:
    for number in (found.tested, *(image.id for image in found.images)):
        if not _within(number, 0, checks.LARGEST):
            raise checks.UsageError(f"extra has the number {checks.shown(number)}")
    names = {network.name for network in found.networks} | {ENSEMBLE}
    for place, image in enumerate(found.images):
        where = f"extra.images.{place}"
        _check_picture(f"{where}.png", image.png)
        if missing := names - {view.name for view in image.views}:
            raise checks.UsageError(f"{where}.views has none of {checks.shown(min(missing))}")
        for view in image.views:
            _check_picture(f"{where}.views.map", view.map)
            if not (math.isnan(view.probability) or _within(view.probability, 0, 1)):
                raise checks.UsageError(
                    f"{where}.views.probability is {checks.shown(view.probability)}"
                )

    if found.channels:
        _check_channels(found.channels, names - {ENSEMBLE})


def _check_channels(found: _Channels, names: set[str]) -> None:
    where = "extra.channels"
    if found.network not in names:
        raise checks.UsageError(f"{where}.network is {checks.shown(found.network)}")
    if not found.channels:
        raise checks.UsageError(f"{where}.channels is empty")
    for channel in found.channels:
        if not _within(channel.share, 0, 1):
            raise checks.UsageError(f"{where}.channels.share is {checks.shown(channel.share)}")
        if not channel.images:
            raise checks.UsageError(f"{where}.channels.images is empty")
        for number in (channel.number, *(image.id for image in channel.images)):
            if not _within(number, 0, checks.LARGEST):
                raise checks.UsageError(f"{where} has the number {checks.shown(number)}")
        for image in channel.images:
            _check_picture(f"{where}.channels.images.png", image.png)
            _check_picture(f"{where}.channels.images.map", image.map)


def _check_picture(where: str, text: str) -> None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as png:
            if png.width * png.height > MOST_PIXELS:
                raise ValueError(f"{png.width} x {png.height} pixels are too many")
            png.load()
    except (OSError, ValueError, SyntaxError) as error:
        reason = checks.first_line(error).rstrip(".")
        raise checks.UsageError(f"{where} is no PNG picture in base64 ({reason})") from None


def _within(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and low <= value <= high
