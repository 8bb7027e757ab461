"""Where a network looks in an image: Grad-CAM (Selvaraju et al., arXiv 1610.02391), and how much
of one network's view another one covers.

A map is a convolutional layer's activations, added up with the weight that each channel has for the
score of a class. It needs no change of the network and no training.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfdistill.distillation.ensembles import Ensemble
from tfdistill.utils import checks, tensorflow
from tfdistill.utils.types import Tensor

CONVOLUTIONS = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.Conv2DTranspose,
)
FEATURES = "features"


def grad_cam(
    model: keras.Model,
    images: np.ndarray,
    classes: int | Sequence[int] | np.ndarray | None = None,
    layer: str | None = None,
    batch_size: int = 64,
) -> np.ndarray:
    """Return where a network finds a class in images.

    With A^k the channel k of the layer's output and y^c the score (logit) of class c,

        alpha_k = (1 / Z) sum_ij d y^c / d A^k_ij        (eq. 1; Z is the number of places)
        map = ReLU(sum_k alpha_k A^k)                    (eq. 2)

    Gradients are computed in float32, whatever the network's precision.

    The score of an `Ensemble` is its own output, whose gradient flows to each member's layer. Its
    map is the mean of the members' maps, each of them divided by its sum first, so that every
    member has one vote, as in the mean of probabilities. Without that the members with the largest
    logits would decide, and where probabilities are averaged the least sure ones: the gradient of
    log p fades as p nears 1.

    Args:
        model: A Keras model with a convolutional layer, from images to `[batch, classes]`:
            functional, Sequential, with other models inside, subclassed, or an `Ensemble`. Its
            outputs should be logits, not probabilities.
        images: `[n, height, width, channels]`, as `model` takes them.
        classes: The class to look for, in 0..classes - 1: one for all images or `[n]` int. None
            means for each image the class that the model predicts.
        layer: Name of the layer, also of a model inside. None means `features` if there is one,
            else the last layer, from the first convolution on, whose output is `[batch, h, w, c]`
            with more than one place. A layer that is called more than once counts as the members
            of an ensemble do.
        batch_size: Images at once.

    Returns:
        `[n, h, w]` float32 >= 0 at the layer's resolution, in units of the score; of an ensemble at
        its largest member's, each with the sum 1 (0 where no member sees the class).

    Raises:
        UsageError: Images or classes that do not fit the model, no convolutional layer, or a layer
            that the model does not have or that has no map.

    Example:
        >>> network = models.build(ModelConfig("resnet8"), (32, 32, 3), 10)
        >>> grad_cam(network, images, classes=3).shape  # images [5, 32, 32, 3]
        (5, 8, 8)
    """
    tensorflow.needed("grad_cam")
    checks.count("batch_size", batch_size)
    images = _checked_images(model, images)
    with _in_float32(model):
        watched = list(dict.fromkeys(_layer_of(net, images[:1], layer) for net in networks(model)))
        wanted = _checked_classes(classes, len(images), _num_classes(model, images[:1]))
        batches = [slice(at, at + batch_size) for at in range(0, len(images), batch_size)]
        parts = [
            _maps(model, watched, images[batch], None if wanted is None else wanted[batch])
            for batch in batches
        ]
    return np.concatenate(parts)


def channels(
    model: keras.Model,
    images: np.ndarray,
    classes: int | Sequence[int] | np.ndarray,
    layer: str | None = None,
    batch_size: int = 64,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a layer's channels, and how much each of them speaks for a class.

    They are the terms of the sum of `grad_cam` before its ReLU: channel k adds alpha_k A^k.

    Args:
        model: As for `grad_cam`, but one network, no ensemble.
        images: As for `grad_cam`.
        classes: The class for all images, or `[n]` int, one for each.
        layer: As for `grad_cam`.
        batch_size: Images at once.

    Returns:
        The activations A `[n, h, w, c]` float32, and `[n, c]` float32, the mean of alpha_k A^k over
        the places of an image, in units of the score: below 0 where a channel speaks against the
        class. Of a layer that is called more than once, its last call.

    Raises:
        UsageError: As `grad_cam`, or an ensemble.
    """
    if isinstance(model, Ensemble):
        raise checks.UsageError(
            "Channels are those of one network. Received: an Ensemble. Give one of its members."
        )
    images = _checked_images(model, images)
    with _in_float32(model):
        watched = [_layer_of(model, images[:1], layer)]
        wanted: Any = _checked_classes(classes, len(images), _num_classes(model, images[:1]))
        parts = []
        for at in range(0, len(images), batch_size):
            batch = slice(at, at + batch_size)
            activations, slopes = _watched(model, watched, images[batch], wanted[batch])[-1]
            alpha = tf.reduce_mean(slopes, axis=(1, 2))
            parts.append((activations, alpha * tf.reduce_mean(activations, axis=(1, 2))))
    activations, shares = (np.concatenate(part) for part in zip(*parts, strict=True))
    return activations, shares


def networks(model: keras.Model) -> list[keras.Model]:
    """Return the networks that a model is made of: an ensemble's members, or the model itself."""
    if isinstance(model, Ensemble):
        return [network for member in model.members for network in networks(member)]
    return [model]


def map_layers(model: keras.Model, image: np.ndarray) -> list[str]:
    """Return the names of a single network's layers that have maps, in the order of their calls.

    Args:
        model: As for `grad_cam`, but no ensemble.
        image: `[1, height, width, channels]`.

    Returns:
        From the first convolution on, every layer whose output is `[batch, h, w, c]` with h w > 1.

    Example:
        >>> map_layers(models.build(ModelConfig("cnn2"), (8, 8, 1), 10), np.zeros((1, 8, 8, 1)))
        ['conv2d', 'max_pooling2d', 'conv2d_1', 'max_pooling2d_1', 'features']
    """
    return [layer.name for layer in _with_maps(model, image)]


def enlarge(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return maps `[n, h, w]` at another size `(height, width)`, bilinear, float32 >= 0."""
    if maps.shape[1:] == tuple(size):
        return np.asarray(maps, np.float32)
    return tf.image.resize(maps[..., None], size)[..., 0].numpy()


def normalize(maps: np.ndarray) -> np.ndarray:
    """Return maps `[n, h, w]` divided by their sums; one that is 0 everywhere stays so."""
    total = maps.sum(axis=(1, 2), keepdims=True)
    return np.divide(maps, total, out=np.zeros_like(maps, np.float32), where=total > 0)


def mean_map(maps: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of several networks' maps of the same images, each network having one vote.

    Args:
        maps: One `[n, h, w]` for each network; h and w may differ.

    Returns:
        `[n, h, w]` float32 at the largest network's resolution; each map of a network is divided by
        its sum, and so is their mean.
    """
    size = max((found.shape[1:] for found in maps), key=np.prod)
    return normalize(np.sum([normalize(enlarge(found, size)) for found in maps], axis=0))


def coverage(maps: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Return how much of a view another one covers: sum_i min(p_i, q_i), histogram intersection.

    Args:
        maps: `[n, h, w]` >= 0, the view p; it is divided by its sum.
        of: `[n, h, w]` >= 0 of the same size, the view q that is to be covered; likewise.

    Returns:
        `[n]` float in 0..1: 1 for equal views, 0 where they have no place in common, or where one
        of them is 0 everywhere.

    Example:
        >>> coverage(np.array([[[1.0, 1.0, 0.0]]]), np.array([[[0.0, 1.0, 1.0]]]))
        array([0.5])
    """
    return np.minimum(normalize(maps), normalize(of)).sum(axis=(1, 2))


def _maps(model: keras.Model, watched: list, images: np.ndarray, classes: Any) -> np.ndarray:
    """Return the maps of one batch."""
    maps = [_cam(*pair).numpy() for pair in _watched(model, watched, images, classes)]
    single = len(maps) == 1 and not isinstance(model, Ensemble)
    return maps[0] if single else mean_map(maps)


def _watched(
    model: keras.Model, watched: list, images: np.ndarray, classes: Any
) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Return the outputs `[b, h, w, c]` of layers, and the slopes of the score by them."""
    found: list[tf.Tensor] = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:

        def watch(layer: keras.Layer, output: Any) -> None:
            tape.watch(output)
            found.append(output)

        with _after_calls(watched, watch):
            scores = tf.cast(_scores(model, images), tf.float32)
        classes = tf.argmax(scores, axis=-1) if classes is None else classes
        score = tf.reduce_sum(tf.gather(scores, classes, axis=1, batch_dims=1))
    slopes = tape.gradient(score, found, unconnected_gradients="zero")
    return list(zip(found, slopes, strict=True))


def _scores(model: keras.Model, images: np.ndarray) -> Tensor:
    return model(tf.cast(images, tf.float32), training=False)


def _cam(activations: tf.Tensor, slopes: tf.Tensor) -> tf.Tensor:
    weights = tf.reduce_mean(slopes, axis=(1, 2))  # [b, h, w, c] -> [b, c]
    return tf.nn.relu(tf.einsum("bhwc,bc->bhw", activations, weights))


def _layer_of(network: keras.Model, image: np.ndarray, name: str | None) -> Any:
    layers = {layer.name: layer for layer in _with_maps(network, image)}
    if not layers:
        raise checks.UsageError(
            "Grad-CAM needs a convolutional layer. Received: "
            f"{network.name!r}, in which no layer from a convolution on gives [batch, h, w, c]."
        )
    if name is None:
        name = FEATURES if FEATURES in layers else list(layers)[-1]
    return layers[checks.one_of("layer", name, layers)]


def _with_maps(network: keras.Model, image: np.ndarray) -> list:
    """Return a network's layers that have maps, by one call of it, which knows all shapes."""
    found: dict = {}
    convolved: list = []

    def see(layer: keras.Layer, output: Any) -> None:
        convolved.extend([layer] if isinstance(layer, CONVOLUTIONS) else [])
        shape: Any = getattr(output, "shape", ())
        if convolved and len(shape) == 4 and shape[1] * shape[2] > 1:
            found.pop(id(layer), None)  # so that the order is that of the last calls
            found[id(layer)] = layer

    with _after_calls(_layers(network), see):
        _scores(network, image)
    return list(found.values())


@contextlib.contextmanager
def _after_calls(layers: list, see: Callable) -> Iterator[None]:
    """Call `see(layer, output)` after each call of one of the layers.

    Keras has no hooks, and a layer of a model inside another has no output in the outer graph.
    """

    def seen(layer: keras.Layer, call: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            see(layer, output)
            return output

        return wrapped

    try:
        for layer in layers:
            layer.call = seen(layer, layer.call)
        yield
    finally:
        for layer in layers:
            vars(layer).pop("call", None)


@contextlib.contextmanager
def _in_float32(model: keras.Model) -> Iterator[None]:
    """Let a network of mixed precision compute in float32: in float16 gradients may vanish."""
    layers = [layer for layer in _layers(model) if layer.compute_dtype != "float32"]
    before = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = "float32"
        yield
    finally:
        for layer, policy in zip(layers, before, strict=True):
            layer.dtype_policy = policy


def _layers(model: keras.Model) -> list:
    return model._flatten_layers(include_self=False, recursive=True)


def _checked_images(model: keras.Model, images: Tensor) -> np.ndarray:
    images = np.asarray(images)
    # A subclassed model has no shape before its first call.
    expected = tuple(getattr(model, "input_shape", None) or (None,) * 4)
    fits = images.ndim == len(expected) == 4 and len(images) > 0
    if not fits or any(e not in (None, i) for i, e in zip(images.shape, expected, strict=True)):
        raise checks.UsageError(
            f"Images must be [n, height, width, channels] with n > 0, as the network takes them: "
            f"{expected}. Received: {images.shape}."
        )
    return images


def _num_classes(model: keras.Model, image: np.ndarray) -> int:
    shape = getattr(_scores(model, image), "shape", None)
    if shape is None or len(shape) != 2:
        raise checks.UsageError(
            "Grad-CAM needs a network with one output [batch, classes]. "
            f"Received: {model.name!r} with output {shape}."
        )
    return shape[-1]


def _checked_classes(classes: Any, count: int, known: int) -> np.ndarray | None:
    if classes is None:
        return None
    classes = np.asarray(classes)
    if classes.shape not in ((), (count,)) or classes.dtype.kind not in "iu":
        raise checks.UsageError(
            f"classes must be one whole number or [{count}], one for each image. "
            f"Received: {classes.dtype} {list(classes.shape)}."
        )
    checks.label_range(int(classes.min()), int(classes.max()), known)
    return np.broadcast_to(classes, count)
