"""Pixels as a network expects them: not all were trained on 0..255."""

from collections.abc import Sequence

import keras
import numpy as np

from tfdistill.utils import checks
from tfdistill.utils.pixels import MODES, PixelRange, is_full

# Of ImageNet, as in keras.applications.imagenet_utils: of blue, green and red on 0..255; of red,
# green and blue on 0..1.
BGR_MEAN = (103.939, 116.779, 123.68)
RGB_MEAN, RGB_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def from_pixels(
    network: keras.layers.Layer,
    pixel_range: PixelRange,
    input_shape: Sequence[int | None] | None = None,
) -> keras.Model:
    """Return a network that takes pixels 0..255, and first brings them to what another expects.

    Args:
        network: From images `[batch, height, width, channels]` as it was trained on.
        pixel_range: What it expects for 0 and 255, or one of `pixels.MODES`.
        input_shape: `(height, width, channels)` of its images; None takes the network's own, which
            a subclassed one does not know.

    Returns:
        The same object where it expects 0..255.

    Raises:
        UsageError: A mode, which is one of three channels, for images of another number.

    Example:
        >>> from_pixels(trained_on_unit_pixels, [0, 1])(images)  # of 0..255
    """
    if is_full(pixel_range):
        return network
    inputs = keras.Input(input_shape or network.input_shape[1:])
    matrix, shift = affine(pixel_range, inputs.shape[-1])
    reverse = matrix[0, 0] == 0  # blue before green and red
    x = inputs[..., ::-1] if reverse else inputs
    scale = np.diag(matrix[:, ::-1] if reverse else matrix)
    scaled = keras.layers.Rescaling(_one_or_all(scale), _one_or_all(shift), dtype="float32")(x)
    return keras.Model(inputs, network(scaled), name=network.name)


def affine(pixel_range: PixelRange, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what a network expects as a map of the channels of a pixel, `pixel @ matrix + shift`.

    Args:
        pixel_range: As of `from_pixels`.
        channels: Of the images.

    Returns:
        The matrix `[channels, channels]` and the shift `[channels]`, float64.

    Raises:
        UsageError: As `from_pixels`.
    """
    if pixel_range in MODES and channels != 3:
        raise checks.UsageError(
            f"pixel_range: {pixel_range} is of images of red, green and blue. Received: images of "
            f"{channels} channels. Give the two numbers that the network expects for 0 and 255."
        )
    if pixel_range == "caffe":
        return np.eye(3)[::-1], -np.array(BGR_MEAN)
    if pixel_range == "torch":
        deviation = np.array(RGB_DEVIATION)
        return np.diag(1 / (255 * deviation)), -np.array(RGB_MEAN) / deviation
    low, high = map(float, pixel_range)
    return np.eye(channels) * (high - low) / 255.0, np.full(channels, low)


def _one_or_all(values: np.ndarray) -> float | list[float]:
    return float(values[0]) if np.ptp(values) == 0 else values.tolist()
