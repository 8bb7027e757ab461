"""Which pixels a network expects: not all were trained on 0..255."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from tfdistill.utils import checks

# What stands for the pixels 0 and 255, or one of MODES.
PixelRange: TypeAlias = Sequence[float] | str
FULL = (0.0, 255.0)
# As `keras.applications.imagenet_utils.preprocess_input` names them: `caffe`, blue before green and
# red, less the mean of ImageNet; `torch`, 0..1, less the mean, over the deviation. Its mode `tf` is
# the range -1..1.
MODES = ("caffe", "torch")


def check(name: str, value: PixelRange) -> PixelRange:
    """Return what a network expects if it is two rising numbers or one of MODES.

    Raises:
        UsageError: Anything else.
    """
    if isinstance(value, str) and value in MODES:
        return value
    ends: Any = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if len(ends) != 2 or not all(map(checks.is_finite, ends)) or ends[0] >= ends[1]:
        raise checks.UsageError(
            f"{name} must be two numbers, what the network expects for the pixels 0 and 255, such "
            f"as [0, 1], or {' or '.join(MODES)}. Received: {name}={checks.shown(value)}."
        )
    return value


def is_full(value: PixelRange) -> bool:
    """Return whether a network takes the pixels 0..255 as they are."""
    return not isinstance(value, str) and tuple(value) == FULL


def kept(value: PixelRange) -> list[float] | str:
    """Return the value as a configuration keeps it."""
    return value if isinstance(value, str) else list(map(float, value))


def option(value: PixelRange) -> str:
    """Return the value as an option of a command takes it, such as `0,1`."""
    return value if isinstance(value, str) else f"{value[0]:g},{value[1]:g}"


def words(value: PixelRange) -> str:
    """Return e.g. `0..1`, for messages."""
    if isinstance(value, str):
        return f"Keras's preprocess_input in the mode {value} makes them"
    return f"{value[0]:g}..{value[1]:g}"
