"""Does a saved teacher know the classes? Measured before any student is trained by it.

A teacher that numbers the classes in another order is right by chance at best, and every student is
then taught nonsense, with a finished report at the end.
"""

from collections.abc import Sequence

import numpy as np
import scipy.optimize

from tfdistill.training import metrics
from tfdistill.utils import checks

# Fewer images tell nothing; more take time without telling more.
FEWEST, MOST = 20, 500
# By how many standard errors it must be better under another order.
SURE = 3.0


def check_teacher(
    name: str, logits: np.ndarray, labels: np.ndarray, outputs: Sequence[int | str] = ()
) -> str:
    """Return a remark on a teacher that knows no more than chance; empty where it does.

    Args:
        name: Of the teacher, for messages.
        logits: Of images that it need not have been trained on, `[n, classes]` float.
        labels: Of these images, `[n]` int.
        outputs: Which of its network's outputs the logits are, where they were picked.

    Raises:
        UsageError: It is much better under another order of its classes: more than 10 points, and
            more than three standard errors, on images that did not choose the order.

    Example:
        >>> check_teacher("teacher", logits, labels)
        'teacher knows no more of the classes than chance: 9 % of 100 images, chance 10 %.'
    """
    if len(labels) < FEWEST:
        return ""
    order = best_order(logits[::2], labels[::2])
    predicted, others = logits[1::2].argmax(axis=-1), labels[1::2]
    as_it_is = float(np.mean(predicted == others))
    reordered = float(np.mean(predicted == order[others]))
    if reordered - as_it_is > max(0.1, SURE * np.sqrt(0.5 / len(others))):
        given = in_order(order, outputs)
        raise checks.UsageError(
            f"The classes of {name} stand in another order than the images': it is right on "
            f"{as_it_is:.0%} of the images looked at, and on {reordered:.0%} if its outputs are "
            f"put in order. Set classes: {given} beside its path (of tfdistill distill: "
            f"--classes {','.join(map(str, given))}), or number the classes alike."
        )
    chance = 1.0 / logits.shape[-1]
    accuracy = metrics.accuracy(logits, labels)
    if accuracy > chance + 2 * np.sqrt(chance * (1 - chance) / len(labels)):
        return ""
    return (
        f"{name} knows no more of the classes than chance: it is right on {accuracy:.0%} of "
        f"{len(labels)} images, chance is {chance:.0%}. Its students learn nothing "
        "from it. Does it expect other pixels than 0..255, or other classes?"
    )


def in_order(order: np.ndarray, outputs: Sequence[int | str] = ()) -> list[int | str]:
    """Return what `classes` has to be for the outputs to stand in another order."""
    return [outputs[at] for at in order] if outputs else order.tolist()


def best_order(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return which output is which class, so that most images are right.

    Args:
        logits: `[n, classes]` float.
        labels: `[n]` int.

    Returns:
        `[classes]` int: the output of each class, a permutation.
    """
    classes = logits.shape[-1]
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, logits.argmax(axis=-1)), 1)
    # Where nothing tells, an output stays where it is.
    counts = counts * 2 * classes + np.eye(classes, dtype=int)
    return scipy.optimize.linear_sum_assignment(counts, maximize=True)[1]
