"""A teacher whose classes stand in another order or number than the student's."""

from collections.abc import Sequence

import keras
from keras import ops

from tfdistill.models.logits import logits_network
from tfdistill.utils import checks


def pick_classes(
    network: keras.Model, classes: Sequence[int | str], names: Sequence[str] | None = None
) -> keras.Model:
    """Return a network whose outputs are some of another's, in the order of `classes`.

    Args:
        network: A functional or sequential model to logits, softmax or sigmoid,
            `[batch, num_classes]`.
        classes: For each class of the student, the number (from 0) or the name of the network's.
        names: The network's class names, in the order of its outputs; needed to pick by name.

    Returns:
        A model over the same layers and weights to logits `[batch, len(classes)]`. Their softmax
        is the network's over these classes alone.

    Raises:
        UsageError: A number or name that the network does not have, one that is picked twice, a
            name of several outputs, or a model without known outputs.

    Example:
        >>> imagenet = keras.applications.MobileNetV2()
        >>> pick_classes(imagenet, [207, 258, 182]).output_shape
        (None, 3)
    """
    logits = logits_network(network)
    outputs = getattr(logits, "outputs", None)
    if not outputs or len(outputs) != 1 or len(outputs[0].shape) != 2:
        raise checks.UsageError(
            "classes needs a functional model with one output [batch, classes]. Received: "
            f"{type(network).__name__} {network.name}."
        )
    numbers = class_numbers(classes, outputs[0].shape[-1], names)
    # What a Sequential calls its input is that of its first layer, maybe in another network.
    inputs = logits.inputs[0] if len(logits.inputs) == 1 else logits.input
    return keras.Model(inputs, ops.take(outputs[0], numbers, axis=-1), name=network.name)


def class_numbers(
    classes: Sequence[int | str], outputs: int, names: Sequence[str] | None
) -> list[int]:
    """Return which outputs some classes are.

    Args:
        classes: Numbers from 0, or names.
        outputs: How many there are.
        names: One for each output, or None.

    Raises:
        UsageError: As `pick_classes`.
    """
    checks.different("classes", list(classes))
    numbers = []
    for one in classes:
        if isinstance(one, str):
            if names is None:
                raise checks.UsageError(
                    f"The network's class names are not known. Received: classes={one!r}. Give "
                    "the numbers of its outputs, from 0."
                )
            checks.one_of("classes", one, names)
            places = [place for place, name in enumerate(names) if name == one]
            if len(places) > 1:  # as two of ImageNet's classes are called crane
                raise checks.UsageError(
                    f"The network has {len(places)} outputs called {one!r}: "
                    f"{', '.join(map(str, places))}. Give classes the number of the one that is "
                    "meant."
                )
            one = places[0]
        if checks.count("classes", one, minimum=0) >= outputs:
            raise checks.UsageError(
                f"classes must be numbers of the network's outputs, 0..{outputs - 1}. Received: "
                f"classes={one}."
            )
        numbers.append(one)
    return numbers
