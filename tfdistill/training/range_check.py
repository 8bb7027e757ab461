"""Does a trained network see pixels in the range that it was trained on? Measured beforehand.

One that was trained on pixels of 0..1 answers images of 0..255, too, without an error and wrongly;
what it teaches is wrong as well, with a finished report at the end.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from tfdistill.models.pixel_range import FULL, from_pixels
from tfdistill.training.teacher_check import FEWEST, SURE
from tfdistill.utils import checks

RANGES = (FULL, (0.0, 1.0), (-1.0, 1.0))
# So many images tell one range from another; a network that is as good needs no other range.
ENOUGH, GOOD = 150, 0.9
# By so much must it be better in another range.
LEAST = 0.1


def check_range(
    name: str,
    network: keras.Model,
    right: Callable[[keras.Model], np.ndarray],
    seen: Sequence[float] = FULL,
    input_shape: Sequence[int | None] | None = None,
) -> None:
    """Raise if a network is right on many more images where it sees pixels of another range.

    Args:
        name: Of the network, for messages.
        network: From pixels 0..255, `[batch, height, width, channels]`.
        right: Returns how much a network is right of each image, `[n]` in 0..1.
        seen: The range that `network` brings pixels to.
        input_shape: As of `from_pixels`.

    Raises:
        UsageError: More than 10 points more, and more than three standard errors; it names the
            range.

    Example:
        >>> check_range("teacher.keras", network, lambda each: each(x).numpy().argmax(-1) == y)
    """
    as_seen = np.asarray(right(network), float)
    if len(as_seen) < FEWEST or as_seen.mean() > GOOD:
        return
    found = {}
    for other in RANGES:
        if other != tuple(seen):
            found[other] = right(from_pixels(network, other, seen, input_shape))
    best = max(found, key=lambda other: found[other].mean())
    gains = found[best] - as_seen
    if gains.mean() <= max(LEAST, SURE * gains.std() / np.sqrt(len(gains))):
        return
    low, high = best
    raise checks.UsageError(
        f"{name} is right on {as_seen.mean():.0%} of {len(gains)} images where it sees pixels as "
        f"{seen[0]:g}..{seen[1]:g}, and on {found[best].mean():.0%} where as {low:g}..{high:g}. "
        f"Set pixel_range: [{low:g}, {high:g}] beside its path (of a command that takes its file: "
        f"--pixel_range {low:g},{high:g}), or begin it with keras.layers.Rescaling."
    )
