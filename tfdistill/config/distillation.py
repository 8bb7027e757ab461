"""What students learn from teachers, and how the teachers' logits are stored."""

from dataclasses import dataclass, field
from typing import Annotated

from tfdistill.config.choices import OneOf, check_words
from tfdistill.config.registry import FEATURE_LOSSES, LOGIT_LOSSES
from tfdistill.utils import checks

DIVERGENCES = ("kl", "cross_entropy")
CACHE_DTYPES = ("float32", "float16")
CACHE_PRECISIONS = ("float32", "bfloat16")
ALL = "all"
AVERAGES = ("probabilities", "logits")
TEACHER_VIEWS = ("same", "fixed", "independent")


@dataclass(frozen=True)
class FeatureConfig:
    """A loss between an inner layer of the teacher and one of the student.

    Args:
        loss: `similarity_preserving`, `hints`, `attention_transfer`, `relational_distance`,
            `relational_angle` or `probabilistic`.
        weight: Its weight beside the other losses, >= 0; null means the one in its paper.
        teacher_layer: Name of the teacher's layer.
        student_layer: Name of the student's layer.
    """

    loss: Annotated[str, OneOf(FEATURE_LOSSES)] = "similarity_preserving"
    weight: float | None = None
    teacher_layer: str = "features"
    student_layer: str = "features"

    def __post_init__(self) -> None:
        check_words(self, "distillation.features")
        if self.weight is not None:
            checks.non_negative("distillation.features.weight", self.weight)


@dataclass(frozen=True)
class DistillationConfig:
    """What the student learns from its teachers.

    Args:
        alpha: Weight of the soft loss; 1 - alpha is the weight of the labels.
        temperature: Softens teacher and student, 0.001 to 1000.
        divergence: Of soft targets: `kl` or `cross_entropy`, whose gradients are the same and whose
            values are not.
        scale_by_t2: Multiply the soft loss by T^2, so that its gradient does not fade as T grows.
        standardize: Standardise the logits of every example first (arXiv 2403.01427).
        average: Whether several teachers are averaged as `probabilities` or `logits`.
        loss: The soft loss: `soft_targets`, `decoupled` (arXiv 2203.08679), `dist`
            (arXiv 2205.10536), or the control `kl_of_log`, a published mistake: it is always zero.
        beta: Weight of the other classes in `decoupled`, >= 0; its paper's depend on the networks.
        hard_weight: Weight of the labels, >= 0; null means 1 - alpha.
        soft_weight: Weight of the soft loss, >= 0; null means alpha.
        warmup_epochs: Epochs over which the weight of the soft loss grows from 0.
        features: Losses between inner layers; they need the live teacher.
        min_confidence: Leave out the images without a label of which the teacher is less sure: its
            largest probability on the image as it is lies below this, in 0..1; it needs a cache.
        teacher_view: What the teacher's stored logits are of: the `same` view as the student's, the
            image as it is (`fixed`), or another view (`independent`).
    """

    alpha: float = 0.9
    temperature: float = 4.0
    divergence: Annotated[str, OneOf(DIVERGENCES)] = "kl"
    scale_by_t2: bool = True
    standardize: bool = False
    average: Annotated[str, OneOf(AVERAGES)] = "probabilities"
    loss: Annotated[str, OneOf(LOGIT_LOSSES)] = "soft_targets"
    beta: float = 8.0
    hard_weight: float | None = None
    soft_weight: float | None = None
    warmup_epochs: float = 0.0
    features: list[FeatureConfig] = field(default_factory=list)
    min_confidence: float = 0.0
    teacher_view: Annotated[str, OneOf(TEACHER_VIEWS)] = "same"

    def __post_init__(self) -> None:
        checks.fraction("distillation.alpha", self.alpha)
        checks.temperature("distillation.temperature", self.temperature)
        check_words(self, "distillation")
        for name in ("hard_weight", "soft_weight"):
            if getattr(self, name) is not None:
                checks.non_negative(f"distillation.{name}", getattr(self, name))
        checks.non_negative("distillation.beta", self.beta)
        checks.fraction("distillation.min_confidence", self.min_confidence)
        checks.non_negative("distillation.warmup_epochs", self.warmup_epochs)
        if self.features and self.teacher_view != "same":
            raise checks.UsageError(
                "Feature losses run the teacher on the student's own view. Received: "
                f"teacher_view={checks.shown(self.teacher_view)} beside features. "
                "Leave one of them out."
            )


@dataclass(frozen=True)
class CacheConfig:
    """How teachers' logits are stored, once for all students.

    Args:
        dtype: `float32`, or `float16` for half the space (logits then differ by up to 0.1 %).
        top_k: Keep only the k largest classes of each image, or `all`. The others get equal shares
            of the rest, exactly its mass at `temperatures`. null keeps all of fewer than 100
            classes; of more the 50 largest, in float16, for students at the temperatures 1, 2, 3,
            4, 5, 6, 8, 10, 15 and 20.
        temperatures: With a number as `top_k`, the temperatures at which students may be taught.
        folder: Where the logits are stored; null means in the study's folder.
        precision: In which the teachers compute, whatever `dtype` stores: `float32` or `bfloat16`,
            faster on processors that multiply it (`tfdistill doctor` says whether this one does).
    """

    dtype: Annotated[str, OneOf(CACHE_DTYPES)] = "float32"
    top_k: Annotated[int | str | None, OneOf((ALL,))] = None
    temperatures: list[float] = field(default_factory=list)
    folder: str | None = None
    precision: Annotated[str, OneOf(CACHE_PRECISIONS)] = "float32"

    def __post_init__(self) -> None:
        check_words(self, "cache")
        if self.largest is not None:
            checks.count("cache.top_k", self.largest)
        for temperature in self.temperatures:
            checks.temperature("cache.temperatures", temperature)
        if (self.largest is None) != (not self.temperatures):
            raise checks.UsageError(
                "cache.top_k and cache.temperatures belong together: the mass of the classes left "
                f"out depends on the temperature. Received: top_k={checks.shown(self.top_k)}, "
                f"temperatures={checks.shown(self.temperatures)}."
            )

    @property
    def largest(self) -> int | None:
        """How many of the largest classes are kept; None keeps all."""
        return None if isinstance(self.top_k, str) else self.top_k
