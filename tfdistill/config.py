"""Configurations: frozen dataclasses, read from YAML and written back without loss.

A `StudyConfig` is what a user writes; a study turns it into `RunConfig`s, one per network to train
or ensemble to evaluate. Nothing here imports TensorFlow, so a wrong value is answered at once.
"""

import dataclasses
import hashlib
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

from tfdistill import checks

SCHEDULES = ("constant", "cosine", "steps")
OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
DIVERGENCES = ("kl", "cross_entropy")
AVERAGES = ("probabilities", "logits")
NORMALIZATIONS = ("measured", "none")


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of a training image; all zero means none.

    Args:
        pad_crop: Zero padding in pixels on each side before a random crop of the original size.
        flip: Flip left to right with probability one half.
        resized_crop: Smallest share of the image's area that a random resized crop keeps, in
            0..1; 0 turns it off. Its aspect ratio is drawn from 3/4 to 4/3.
        rotation: Largest rotation in degrees, drawn uniformly to both sides.
        cutout: Side of a square set to mid-grey, in pixels.
        mixup: Parameter a of the Beta(a, a) from which the mixing weight is drawn.
    """

    pad_crop: int = 0
    flip: bool = False
    resized_crop: float = 0.0
    rotation: float = 0.0
    cutout: int = 0
    mixup: float = 0.0

    def __post_init__(self):
        checks.count("augment.pad_crop", self.pad_crop, minimum=0)
        checks.fraction("augment.resized_crop", self.resized_crop)
        checks.non_negative("augment.rotation", self.rotation)
        checks.count("augment.cutout", self.cutout, minimum=0)
        checks.non_negative("augment.mixup", self.mixup)

    @property
    def active(self) -> bool:
        """Whether any change is asked for."""
        return self != AugmentConfig()


@dataclass(frozen=True)
class DataConfig:
    """Which images, how they are split and what is done to them.

    Args:
        source: `digits`, `tfds:NAME`, `imagewoof` or `folder:PATH`.
        data_dir: Where prepared TensorFlow Datasets lie; default TFDS_DATA_DIR, else
            ~/tensorflow_datasets.
        archive: An already downloaded archive of the source (imagewoof2-160.tgz).
        image_size: Side in pixels to which images are brought once, when they are read; null keeps
            their own size, which then must be the same for all.
        input_size: Side in pixels that the networks see; null means the image's own.
        validation: Part of the training set held back: a share below 1, or a number of images.
        split_seed: Seed of the split and of `train_examples`.
        train_examples: Train on a stratified subset of this many images; null means all.
        normalize: `measured` (mean and deviation of the training images), `none` (0..255 kept), or
            [mean, deviation], each one number or one for each channel, in units of the 0..1 range.
        augment: Random changes of the training images.
    """

    source: str = "digits"
    data_dir: str | None = None
    archive: str | None = None
    image_size: int | None = None
    input_size: int | None = None
    validation: float = 0.1
    split_seed: int = 42
    train_examples: int | None = None
    normalize: str | list = "measured"
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self):
        kind = self.source.partition(":")[0]
        checks.one_of("data.source", kind, ("digits", "tfds", "imagewoof", "folder", "arrays"))
        for name in ("image_size", "input_size", "train_examples"):
            if getattr(self, name) is not None:
                checks.count(f"data.{name}", getattr(self, name))
        checks.positive("data.validation", self.validation)
        if isinstance(self.normalize, str):
            checks.one_of("data.normalize", self.normalize, NORMALIZATIONS)
        elif len(self.normalize) != 2:
            raise checks.UsageError(
                "data.normalize must be 'measured', 'none' or [mean, deviation]. "
                f"Received: {self.normalize!r}."
            )


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
        outputs: What a `saved` model returns: `auto` looks, or `logits` or `probabilities`.
    """

    name: str = "cnn2"
    width: float = 1.0
    dropout: float | None = None
    weights: str | None = None
    path: str | None = None
    outputs: str = "auto"

    def __post_init__(self):
        checks.positive("model.width", self.width)
        if self.dropout is not None:
            checks.fraction("model.dropout", self.dropout)
        checks.one_of("model.outputs", self.outputs, ("auto", "logits", "probabilities"))
        if (self.name == "saved") != (self.path is not None):
            raise checks.UsageError(
                f"A model named 'saved' needs a path, and only it. Received: name={self.name!r}, "
                f"path={self.path!r}."
            )


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained.

    Args:
        epochs: Passes over the training images.
        batch_size: Images per step; the last partial batch is kept.
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
        jit: `auto` compiles with XLA where a GPU or TPU is; or `on`, `off`.
        precision: `float32`, `mixed_bfloat16` or `mixed_float16`.
        steps_per_execution: Steps run by one call of the compiled function.
        select: Whether the weights of the `best` validation epoch or of the `last` epoch teach
            others and stand in the tables; both are always kept.
    """

    epochs: int = 10
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 0.001
    momentum: float = 0.9
    nesterov: bool = False
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    milestones: list[int] = field(default_factory=list)
    decay: float = 0.1
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    jit: str = "auto"
    precision: str = "float32"
    steps_per_execution: int = 1
    select: str = "best"

    def __post_init__(self):
        for name in ("epochs", "batch_size", "steps_per_execution"):
            checks.count(f"training.{name}", getattr(self, name))
        checks.one_of("training.optimizer", self.optimizer, OPTIMIZERS)
        checks.one_of("training.schedule", self.schedule, SCHEDULES)
        checks.one_of("training.jit", self.jit, ("auto", "on", "off"))
        checks.one_of("training.precision", self.precision, PRECISIONS)
        checks.one_of("training.select", self.select, ("best", "last"))
        checks.positive("training.learning_rate", self.learning_rate)
        checks.positive("training.decay", self.decay)
        checks.fraction("training.momentum", self.momentum)
        checks.fraction("training.label_smoothing", self.label_smoothing)
        checks.non_negative("training.weight_decay", self.weight_decay)
        checks.non_negative("training.warmup_epochs", self.warmup_epochs)


@dataclass(frozen=True)
class DistillationConfig:
    """What the student learns from its teachers.

    Args:
        alpha: Weight of the soft loss; 1 - alpha is the weight of the labels.
        temperature: Softens teacher and student, > 0.
        divergence: `kl` or `cross_entropy`; their gradients are the same, their values are not.
        scale_by_t2: Multiply the soft loss by T^2, so that its gradient does not fade as T grows.
        standardize: Standardise the logits of every example first (arXiv 2403.01427).
        average: Whether several teachers are averaged as `probabilities` or `logits`.
        similarity: Weight of the similarity-preserving loss (Tung & Mori 2019) on the last
            feature maps; 0 turns it off.
    """

    alpha: float = 0.9
    temperature: float = 4.0
    divergence: str = "kl"
    scale_by_t2: bool = True
    standardize: bool = False
    average: str = "probabilities"
    similarity: float = 0.0

    def __post_init__(self):
        checks.fraction("distillation.alpha", self.alpha)
        checks.positive("distillation.temperature", self.temperature)
        checks.one_of("distillation.divergence", self.divergence, DIVERGENCES)
        checks.one_of("distillation.average", self.average, AVERAGES)
        checks.non_negative("distillation.similarity", self.similarity)


@dataclass(frozen=True)
class StudyConfig:
    """A whole study: the file that `tfdistill run` takes.

    Args:
        study: Which study; `tfdistill run --help` lists them.
        output: Folder for records, weights and the report; default results/ and the file's name.
        seeds: One run of every kind for each seed.
        data: The images.
        teacher: The teacher network.
        student: The student network; null means the teacher's architecture.
        training: How teachers, and students too unless `student_training` is given, are trained.
        student_training: How students are trained; null means as the teachers.
        distillation: What a student learns from the ensemble of teachers.
        self_distillation: What a network learns from one of its own kind; null means the same.
        tensorboard: Also write TensorBoard logs.
        note: A remark for the report, such as what is special about the images.
    """

    study: str = "mysteries"
    output: str | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    data: DataConfig = field(default_factory=DataConfig)
    teacher: ModelConfig | None = field(default_factory=ModelConfig)
    student: ModelConfig | None = None
    training: TrainingConfig = field(default_factory=TrainingConfig)
    student_training: TrainingConfig | None = None
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    self_distillation: DistillationConfig | None = None
    tensorboard: bool = False
    note: str = ""

    def __post_init__(self):
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise checks.UsageError(
                f"seeds must be a list of different whole numbers. Received: seeds={self.seeds!r}."
            )
        for seed in self.seeds:
            checks.count("seeds", seed, minimum=0)


@dataclass(frozen=True)
class RunConfig:
    """One run of a study: a network to train, or an ensemble of trained ones to evaluate.

    Args:
        name: Unique within the study; also the name of its folder.
        row: The row of the table that it belongs to.
        seed: Seed of its initial weights, and of the order and views of its images.
        data: The images.
        model: The network; null for an ensemble of finished runs, which is only evaluated.
        training: How it is trained.
        teachers: Names of the runs that teach it.
        distillation: What it learns from them; null without teachers.
        members: Names of the runs that an ensemble averages.
        trained: Whether it is trained; a saved teacher is only evaluated.
        width: Number of networks that are trained as one averaged model.
        average: How members are averaged: `probabilities` or `logits`.
    """

    name: str
    row: str
    seed: int
    data: DataConfig
    model: ModelConfig | None
    training: TrainingConfig
    teachers: tuple[str, ...] = ()
    distillation: DistillationConfig | None = None
    members: tuple[str, ...] = ()
    trained: bool = True
    width: int = 1
    average: str = "probabilities"

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the runs that must be finished first."""
        return self.teachers + self.members


def to_dict(config) -> dict:
    """Return a configuration as plain dictionaries, lists, numbers and strings."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def digest(*parts) -> str:
    """Return a short stable hash of JSON-able parts."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_yaml(path: str | Path) -> dict:
    """Return the mapping in a YAML file; raise `UsageError` where there is none."""
    import yaml

    try:
        text = Path(path).read_text()
    except OSError as error:
        raise checks.UsageError(
            f"Cannot read the configuration {path}: {error.strerror}. Give the path of a YAML file."
        ) from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise checks.UsageError(f"{path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise checks.UsageError(
            f"{path} must hold keys and values. Received: {type(values).__name__}."
        )
    return values


def check_keys(cls, values: dict, where: str) -> None:
    """Raise at a key, at any depth, that the dataclass `cls` does not have."""
    hints = typing.get_type_hints(cls)
    checks.known_keys(where, values, hints)
    for key, value in values.items():
        inner = _dataclass_in(hints[key])
        if inner is not None and isinstance(value, dict):
            check_keys(inner, value, f"{where}, {key}")


def _dataclass_in(hint):
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)
