"""What is learned of images, one class of several or any number of labels, and all that differs.

A task is the only place that tells the two apart in training: losses, figures, what is refused.
"""

from tfdistill.data import Dataset
from tfdistill.training.tasks.one_class import OneClass
from tfdistill.training.tasks.several_labels import SeveralLabels
from tfdistill.training.tasks.task import Task

__all__ = ["OneClass", "SeveralLabels", "Task", "of"]


def of(images: Dataset) -> Task:
    """Return the task that the labels of images set."""
    return SeveralLabels() if images.multi_label else OneClass()
