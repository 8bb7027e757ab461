"""Networks, how they are trained and what they learn from teachers."""

from dataclasses import dataclass, field

from tfdistill import checks

SCHEDULES = ("constant", "cosine", "steps")
OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
DIVERGENCES = ("kl", "cross_entropy")
CACHE_DTYPES = ("float32", "float16")
AVERAGES = ("probabilities", "logits")


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
class CacheConfig:
    """How teachers' logits are stored, once for all students.

    Args:
        dtype: `float32`, or `float16` for half the space (logits then differ by up to 0.1 %).
        top_k: Keep only the k largest classes of each image, for sets of many classes; null keeps
            all. The others get equal shares of the rest, exactly its mass at `temperatures`.
        temperatures: With `top_k`, the temperatures at which students may be taught.
        folder: Where the logits are stored; null means in the study's folder.
    """

    dtype: str = "float32"
    top_k: int | None = None
    temperatures: list[float] = field(default_factory=list)
    folder: str | None = None

    def __post_init__(self):
        checks.one_of("cache.dtype", self.dtype, CACHE_DTYPES)
        if self.top_k is not None:
            checks.count("cache.top_k", self.top_k)
        for temperature in self.temperatures:
            checks.positive("cache.temperatures", temperature)
        if (self.top_k is None) != (not self.temperatures):
            raise checks.UsageError(
                "cache.top_k and cache.temperatures belong together: the mass of the classes left "
                f"out depends on the temperature. Received: top_k={self.top_k!r}, "
                f"temperatures={self.temperatures!r}."
            )
