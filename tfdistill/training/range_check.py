"""Does a trained network see pixels in the range that it was trained on? Measured beforehand.

One that was trained on pixels of 0..1 answers images of 0..255, too, without an error and wrongly;
what it teaches is wrong as well, with a finished report at the end.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np

from tfdistill.models.pixel_range import affine
from tfdistill.training.teacher_check import FEWEST, SURE
from tfdistill.utils import checks, pixels
from tfdistill.utils.pixels import FULL, PixelRange

RANGES: tuple[PixelRange, ...] = (FULL, (0.0, 1.0), (-1.0, 1.0))
# So many images tell one range from another; a network that is as good needs no other range.
ENOUGH, GOOD = 150, 0.9
# By so much must it be better in another range.
LEAST = 0.1


def check_range(
    name: str,
    network: keras.Model,
    right: Callable[[keras.Model], np.ndarray],
    seen: PixelRange = FULL,
    input_shape: Sequence[int | None] | None = None,
) -> None:
    """Raise if a network is right on many more images where it sees pixels of another range.

    Tried are 0..255, 0..1, -1..1 and, of images of three channels, what `preprocess_input` of
    keras.applications makes of them in its modes `caffe` (VGG, ResNet) and `torch` (DenseNet).

    Args:
        name: Of the network, for messages.
        network: From pixels 0..255, `[batch, height, width, channels]`.
        right: Returns how much a network is right of each image, `[n]` in 0..1.
        seen: What `network` itself brings pixels to.
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
    inputs = keras.Input(input_shape or network.input_shape[1:])
    channels = inputs.shape[-1]
    # One network for all that is tried, so that it is traced once.
    changed = keras.layers.Dense(channels, dtype="float32")
    probe = keras.Model(inputs, network(changed(inputs)))
    matrix, shift = affine(seen, channels)
    back = np.linalg.inv(matrix)  # from what the network brings pixels to, to its own inputs
    found = {}
    for other in (*RANGES, *(pixels.MODES if channels == 3 else ())):
        if pixels.kept(other) != pixels.kept(seen):
            wanted, low = affine(other, channels)
            changed.set_weights([wanted @ back, (low - shift) @ back])
            found[other] = right(probe)
    best = max(found, key=lambda other: found[other].mean())
    gains = found[best] - as_seen
    if gains.mean() <= max(LEAST, SURE * gains.std() / np.sqrt(len(gains))):
        return
    setting = best if isinstance(best, str) else f"[{best[0]:g}, {best[1]:g}]"
    raise checks.UsageError(
        f"{name} is right on {as_seen.mean():.0%} of {len(gains)} images where it sees pixels as "
        f"{pixels.words(seen)}, and on {found[best].mean():.0%} where as {pixels.words(best)}. "
        f"Set pixel_range: {setting} beside its path (of a command that takes its file: "
        f"--pixel_range {pixels.option(best)}), or prepare pixels inside the network."
    )
