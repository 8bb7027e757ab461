"""Weights in a file of Keras's, for a network of the same architecture."""

import re
import warnings
from pathlib import Path

import keras
from keras import layers

from tfdistill.models import saved_model_safety
from tfdistill.models.weights import hdf5
from tfdistill.utils import checks, foreign


def load_weights(model: keras.Model, path: str | Path) -> None:
    """Load a file of weights into `model`, in place.

    Args:
        model: A built Keras model.
        path: A `.weights.h5` or `.keras` file of the same architecture and classes.

    Raises:
        UsageError: A file that is missing, cannot be read or holds another network.

    Example:
        >>> load_weights(student, "results/student.weights.h5")
    """
    if not Path(path).is_file():
        raise checks.UsageError(
            f"model.weights must be 'imagenet' or a file of weights. Received: {str(path)!r}, "
            "which is not a file."
        )
    if not saved_model_safety.trusting():
        foreign.try_out(path, hdf5.read_once, keep=False)
    try:
        if _paddings_in(path) not in (None, paddings(model)):
            raise checks.UsageError(
                f"The weights in {path} do not fit {model.name}: they are of a network that pads "
                "its convolutions otherwise, as earlier versions did, and would be wrong in "
                "silence. Take its .keras file as model.name=saved, or train it anew."
            )
        with warnings.catch_warnings():
            # It says that layers stay random, before Keras raises at those it cannot fill.
            warnings.filterwarnings("ignore", "Skipping nested container")
            model.load_weights(path)
    except checks.UsageError:
        raise
    except Exception as error:  # Keras, h5py and zipfile each raise their own kinds
        raise checks.UsageError(
            f"The weights in {path} do not fit {model.name}: {checks.first_line(error)} "
            "Give a .weights.h5 or .keras file of the same network and classes."
        ) from error


def paddings(model: keras.Model) -> int:
    """Return how many layers of a network only pad.

    Shapes and numbers of weights don't tell a ResNet that pads strided convolutions on both sides
    from one that was built before they did.
    """
    return sum(isinstance(layer, layers.ZeroPadding2D) for layer in model._flatten_layers())


def _paddings_in(path: str | Path) -> int | None:
    """Return `paddings` of the network whose weights a file has; None of Keras 2's kind of file."""
    with hdf5.opened(path) as groups:
        if "layers" not in groups:
            return None
        names: list[str] = []
        groups.visit(names.append)
    return sum(bool(re.search(r"(^|/)zero_padding2d(_\d+)?$", name)) for name in names)
