"""Networks and how they are trained."""

from dataclasses import dataclass, field, fields
from typing import Annotated

from tfdistill.config.choices import OneOf, check_words
from tfdistill.config.networks import Family
from tfdistill.config.registry import NETWORKS
from tfdistill.utils import checks, pixels

SCHEDULES = ("constant", "cosine", "steps")
OPTIMIZERS = ("sgd", "adam", "adamw")
STRATEGIES = ("none", "mirrored")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


_PATTERN = "|".join(family.pattern for family in NETWORKS.values() if family.pattern)


def listed_networks() -> list[str]:
    """Return all names of networks but those that only a pattern says, as `wrn-28-10`."""
    return [name for family in NETWORKS.values() for name in family.names]


def known_networks() -> tuple[str, ...]:
    """Return all names of networks, with `wrn-D-K` and `keras:NAME` standing for many."""
    shown = [(each.shown,) if each.shown else each.names for each in NETWORKS.values()]
    return tuple(name for names in shown for name in names)


def network_family(name: str) -> Family:
    """Return the member of `NETWORKS` that builds a network, without importing Keras.

    Args:
        name: As in `ModelConfig`.

    Raises:
        UsageError: An unknown name; the message lists the known ones.

    Example:
        >>> network_family("wrn-28-10").settings
        ('dropout',)
    """
    families: list[Family] = list(NETWORKS.values())
    found = next((family for family in families if family.has(name)), None)
    if found is None:
        kind = f"{name.partition(':')[0]}:"
        known = [each for each in listed_networks() if each.startswith(kind)] or known_networks()
        checks.unknown("model.name", name, [each for each in known if each != name])
    return found


@dataclass(frozen=True)
class ModelConfig:
    """One network.

    Args:
        name: An architecture (`cnn2`, `cnn4`, `resnet20`, `resnet8x4`, `wrn-28-10`, `resnet18`,
            `resnet18-imagenet`), `keras:NAME` for a keras.applications model, or `saved`.
        width: Multiplies the number of channels of a cnn or resnet.
        dropout: Dropout rate where the architecture has dropout; null keeps its own.
        weights: `imagenet`, a weights file, or null for random weights.
        path: The .keras file or SavedModel folder of a `saved` model.
        input_size: Side in pixels that this network sees, so that teacher and student each see the
            same part of an image at their own size. null: `data.input_size`.
        pixel_range: What a `saved` model expects for the pixels 0 and 255: [0, 255], or as [0, 1]
            or [-1, 1] where its images were scaled before they reached it; or `caffe` or `torch`
            where `preprocess_input` of keras.applications prepared them so (VGG and ResNet:
            `caffe`, DenseNet: `torch`; MobileNet, ResNetV2, Inception, Xception: [-1, 1]).
        outputs: What a `saved` model returns: `auto` looks, or `logits` or `probabilities`.
        classes: For each class of the images, the number (from 0) or the name of the output of a
            `saved` model that has others or another order; null means the same.
        fine_tune: Give a `saved` model a new head for the images' classes, a linear classifier on
            what it computes, and then train on from there (arXiv 2202.10054). Its batch norms keep
            their statistics.
        trained_layers: The last so many layers with weights are fine-tuned; null: all of them.
    """

    name: Annotated[str, OneOf(listed_networks, _PATTERN, known_networks)] = "cnn2"
    width: float = 1.0
    dropout: float | None = None
    weights: str | None = None
    path: str | None = None
    input_size: int | None = None
    pixel_range: list[float] | str = field(default_factory=lambda: list(pixels.FULL))
    outputs: Annotated[str, OneOf(("auto", "logits", "probabilities"))] = "auto"
    classes: list[int | str] | None = None
    fine_tune: bool = False
    trained_layers: int | None = None

    def __hash__(self) -> int:
        values = (getattr(self, field.name) for field in fields(self))
        return hash(tuple(tuple(each) if isinstance(each, list) else each for each in values))

    @property
    def is_finished(self) -> bool:
        """Whether it is a trained network that is taken as it is."""
        return self.name == "saved" and not self.fine_tune

    def __post_init__(self) -> None:
        needs_path = "path" in network_family(self.name).settings
        checks.positive("model.width", self.width)
        if self.dropout is not None:
            checks.fraction("model.dropout", self.dropout)
        if self.input_size is not None:
            checks.count("model.input_size", self.input_size)
        check_words(self, "model")
        pixels.check("model.pixel_range", self.pixel_range)
        if needs_path != (self.path is not None):
            raise checks.UsageError(
                "A model named 'saved' needs a path, and only it. "
                f"Received: name={checks.shown(self.name)}, path={checks.shown(self.path)}."
            )
        if not pixels.is_full(self.pixel_range) and not needs_path:
            raise checks.UsageError(
                "model.pixel_range is of a model named 'saved'; others take pixels 0..255. "
                f"Received: name={checks.shown(self.name)}. Remove it."
            )
        if self.fine_tune and not needs_path:
            raise checks.UsageError(
                "model.fine_tune is of a model named 'saved'. Received: "
                f"name={checks.shown(self.name)}. Give model.path a file, or remove it."
            )
        if self.trained_layers is not None:
            checks.count("model.trained_layers", self.trained_layers)
            if not self.fine_tune:
                raise checks.UsageError(
                    "model.trained_layers is of a network that is fine-tuned. Received: "
                    f"{self.trained_layers} and fine_tune=False. Set model.fine_tune: true."
                )
        if self.classes is not None:
            checks.different("model.classes", self.classes)
            if self.fine_tune:
                raise checks.UsageError(
                    "A model that is fine-tuned gets a head of the images' classes. Received: "
                    "model.classes beside fine_tune=True. Remove one of them."
                )
            if not needs_path:
                raise checks.UsageError(
                    "model.classes picks outputs of a model named 'saved'. Received: "
                    f"name={checks.shown(self.name)}. Remove it."
                )


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained.

    Args:
        epochs: Passes over the training images; with `steps`, equal parts of them.
        batch_size: Images per step; the last partial batch is kept.
        steps: Optimiser steps of the whole training, a multiple of `epochs`, however many images
            there are; null: as many as the passes make.
        labelled_share: Share of the images of each batch that have a label, where some have none;
            null takes them as they come. A pass over the labelled ones is then one of their own.
        optimizer: `sgd`, `adam` or `adamw`.
        learning_rate: Peak learning rate.
        momentum: Momentum of `sgd`.
        nesterov: Nesterov momentum of `sgd`.
        schedule: `constant`, `cosine` (to zero) or `steps`.
        warmup_epochs: Epochs of linear warm-up from zero.
        milestones: Epochs at which `steps` multiplies the learning rate by `decay`.
        decay: Factor of `steps`.
        weight_decay: Decoupled: each step takes learning_rate * weight_decay of every kernel.
            An L2 penalty of w under momentum m corresponds to about w / (1 - m).
        label_smoothing: Share of the label spread evenly over all classes, in 0..1.
        ema: Decay of an exponential moving average of the weights, above 0 and below 1, such as
            0.99, after step t at most (1 + t) / (10 + t). Validation, records and saved networks
            are then of the average, batch norm's statistics included. null: no average.
        jit: `auto` compiles with XLA where a GPU or TPU is; or `on`, `off`.
        precision: `float32`, `mixed_bfloat16` or `mixed_float16`.
        steps_per_execution: Steps run by one call of the compiled function.
        strategy: `mirrored` trains on all GPUs of this machine (`tf.distribute.MirroredStrategy`):
            each gets an equal part of every batch, without XLA. The weights are those of one device
            to rounding, but batch norms see a device's part alone, and so do losses between the
            images of a batch. `none` trains on one.
        select: Whether the weights of the `best` validation epoch or of the `last` epoch teach
            others and stand in the tables; both are always kept.
    """

    epochs: int = 10
    batch_size: int = 128
    steps: int | None = None
    labelled_share: float | None = None
    optimizer: Annotated[str, OneOf(OPTIMIZERS)] = "adam"
    learning_rate: float = 0.001
    momentum: float = 0.9
    nesterov: bool = False
    schedule: Annotated[str, OneOf(SCHEDULES)] = "constant"
    warmup_epochs: float = 0.0
    milestones: list[int] = field(default_factory=list)
    decay: float = 0.1
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    ema: float | None = None
    jit: Annotated[str, OneOf(("auto", "on", "off"))] = "auto"
    precision: Annotated[str, OneOf(PRECISIONS)] = "float32"
    steps_per_execution: int = 1
    strategy: Annotated[str, OneOf(STRATEGIES)] = "none"
    select: Annotated[str, OneOf(("best", "last"))] = "best"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "steps_per_execution"):
            checks.count(f"training.{name}", getattr(self, name))
        for epoch in self.milestones:
            checks.count("training.milestones", epoch)
        if self.steps is not None:
            checks.count("training.steps", self.steps)
            if self.steps % self.epochs:
                raise checks.UsageError(
                    "training.steps must be a multiple of training.epochs, which are equal parts "
                    f"of them. Received: {self.steps} steps, {self.epochs} epochs."
                )
        if self.labelled_share is not None:
            self._check_share(self.labelled_share)
        check_words(self, "training")
        if self.strategy != "none" and (self.jit == "on" or self.ema is not None):
            other = "jit=on" if self.jit == "on" else f"ema={self.ema}"
            raise checks.UsageError(
                f"XLA and averages of weights are of one device. Received: training.{other} with "
                f"training.strategy={self.strategy}. Set one of them otherwise."
            )
        checks.positive("training.learning_rate", self.learning_rate)
        checks.positive("training.decay", self.decay)
        checks.fraction("training.momentum", self.momentum)
        checks.fraction("training.label_smoothing", self.label_smoothing)
        checks.non_negative("training.weight_decay", self.weight_decay)
        if self.ema is not None:
            checks.proper_fraction("training.ema", self.ema)
        checks.non_negative("training.warmup_epochs", self.warmup_epochs)

    def _check_share(self, share: float) -> None:
        checks.fraction("training.labelled_share", share)
        if not 0 < round(share * self.batch_size) < self.batch_size:
            raise checks.UsageError(
                "training.labelled_share must leave each batch images of both kinds. Received: "
                f"{share} of {self.batch_size}."
            )
