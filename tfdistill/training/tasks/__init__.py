"""What is learned of images, one class of several or any number of labels, and all that differs.

A task is the only place that tells the two apart in training: losses, figures, what is refused.
"""

import numpy as np

from tfdistill.data import Dataset
from tfdistill.training.tasks.one_class import OneClass
from tfdistill.training.tasks.several_labels import SeveralLabels
from tfdistill.training.tasks.task import Task

__all__ = ["OneClass", "SeveralLabels", "Task", "of", "of_labels"]


def of(images: Dataset) -> Task:
    """Return the task that the labels of images set."""
    return of_labels(images.train.labels)


def of_labels(labels: np.ndarray) -> Task:
    """Return the task of labels, `[n]` numbers of classes or `[n, labels]` of 0 and 1."""
    return SeveralLabels() if labels.ndim == 2 else OneClass()
