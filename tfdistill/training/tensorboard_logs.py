"""TensorBoard logs of runs: their figures by epoch, and their settings for the HParams page."""

from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from tfdistill.config import RunConfig


class TensorBoardLogs(keras.callbacks.Callback):
    """Writes every epoch's figures of one or several runs, each into its own folder.

    Args:
        folders: The runs' folders; logs go to `tensorboard` in each.
        configs: The runs.
        split: Turns Keras's logs into one dictionary for each run; None means that there is one.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        configs: Sequence[RunConfig],
        split: Callable[[dict], list[dict]] | None = None,
    ):
        super().__init__()
        self.folders = [folder / "tensorboard" for folder in folders]
        self.configs = configs
        self.split = split or (lambda logs: [logs])

    def on_train_begin(self, logs=None):
        from tensorboard.plugins.hparams import api

        self.writers = [tf.summary.create_file_writer(str(folder)) for folder in self.folders]
        for writer, config in zip(self.writers, self.configs, strict=True):
            with writer.as_default():
                api.hparams(hyperparameters(config), trial_id=config.name)

    def on_epoch_end(self, epoch, logs=None):
        for writer, figures in zip(self.writers, self.split(logs), strict=True):
            with writer.as_default(step=epoch):
                for name, value in figures.items():
                    tf.summary.scalar(name, float(value))
            writer.flush()

    def on_train_end(self, logs=None):
        for writer in self.writers:
            writer.close()


def hyperparameters(config: RunConfig) -> dict[str, float | str | bool]:
    """Return the settings by which TensorBoard sorts and compares runs."""
    values: dict[str, float | str | bool] = {
        "row": config.row,
        "seed": config.seed,
        "network": config.network.name,
        "width": config.network.width,
        "learning_rate": config.training.learning_rate,
        "epochs": config.training.epochs,
    }
    settings = config.distillation
    if settings:
        values |= {
            "alpha": settings.alpha,
            "temperature": settings.temperature,
            "scale_by_t2": settings.scale_by_t2,
            "loss": "+".join([settings.loss, *(feature.loss for feature in settings.features)]),
        }
    return values
