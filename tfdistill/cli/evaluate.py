"""Measures a saved network on test images, alone or against its teacher."""

from pathlib import Path

import keras
import numpy as np

from tfdistill import data, models, records
from tfdistill.config import DataConfig, ModelConfig
from tfdistill.data import pipeline
from tfdistill.export import versions
from tfdistill.models.flops import flops
from tfdistill.quantization.layers import count_params
from tfdistill.records import Table
from tfdistill.training import range_check, tasks
from tfdistill.utils import pixels
from tfdistill.utils.pixels import FULL, PixelRange


def table(
    model: str,
    images: DataConfig,
    teacher: str | None = None,
    batch_size: int = 128,
    pixel_range: PixelRange = FULL,
) -> Table:
    """Return the figures of a saved network on the test images as a table.

    Args:
        model: Path of a .keras file or a SavedModel.
        images: The images; their test split is used.
        teacher: Path of a network to compare with; None for none.
        batch_size: Images at once.
        pixel_range: What the network expects for the pixels 0 and 255.

    Raises:
        UsageError: Missing data, an unreadable model, or one that does not fit the images or their
            pixels' range.
    """
    dataset = data.load(images)
    network, logits = _predicted(model, dataset, batch_size, pixel_range)
    taught = _predicted(teacher, dataset, batch_size)[1] if teacher else None
    summary = tasks.of(dataset).summary(logits, dataset.test.labels, taught)
    names = _NAMES | (_NAMES_OF_LABELS if dataset.multi_label else {})
    rows = [
        (names[name], f"{100 * value:.2f} %" if name in _PERCENT else f"{value:.4f}")
        for name, value in summary.items()
    ]
    rows.append(("parameters", f"{count_params(network):,}"))
    rows.append(("FLOPs for one image", f"{flops(network, dataset.input_shape):,}"))
    title = f"{model} on {len(dataset.test)} test images of {dataset.name}"
    return Table(title, ("figure", "value"), tuple(rows))


_NAMES = {
    "accuracy": "accuracy",
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "ece": "calibration error, 15 bins of equal width",
    "ece_equal_mass": "calibration error, 15 bins of equal mass",
    "agreement": "agreement with the teacher",
    "teacher_kl": "KL from the teacher",
}


_NAMES_OF_LABELS = {
    "accuracy": "accuracy, over all labels of all images",
    "mean_average_precision": "mean average precision of the labels",
    "exact_match": "images of which all labels are right",
    "nll": "negative log-likelihood of a label",
    "brier": "Brier score of a label",
    "agreement": "agreement with the teacher, over all labels",
    "teacher_kl": "KL from the teacher, of a label",
}
_PERCENT = (
    "accuracy",
    "ece",
    "ece_equal_mass",
    "agreement",
    "mean_average_precision",
    "exact_match",
)


def _predicted(
    path: str, dataset: data.Dataset, batch_size: int, pixel_range: PixelRange = FULL
) -> tuple[keras.Model, np.ndarray]:
    """Return a saved network and its logits of the test images."""
    if Path(path).is_dir():
        versions.check(Path(path))
    else:
        records.check_beside(Path(path))
    network = models.build(
        ModelConfig(name="saved", path=path, pixel_range=pixels.kept(pixel_range)),
        dataset.input_shape,
        dataset.num_classes,
        dataset.mean,
        dataset.std,
        dataset.multi_label,
    )

    def logits(network: keras.Model, examples: data.Examples) -> np.ndarray:
        batches = pipeline.evaluation_batches(examples, batch_size, dataset.input_size)
        return network.predict(batches.map(pipeline.as_written(lambda x, y: x)), verbose=0)

    some = dataset.test.evenly(range_check.ENOUGH)
    task = tasks.of(dataset)
    range_check.check_range(
        path, network, lambda each: task.right(logits(each, some), some.labels), pixel_range
    )
    return network, logits(network, dataset.test)
