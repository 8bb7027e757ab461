"""A whole study, as a user writes it, and the runs that it becomes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

from tfdistill.config.choices import OneOf, check_words
from tfdistill.config.data import DataConfig
from tfdistill.config.distillation import CacheConfig, DistillationConfig
from tfdistill.config.export import ExportConfig
from tfdistill.config.registry import STUDIES
from tfdistill.config.training import ModelConfig, TrainingConfig
from tfdistill.utils import checks

# The kind of a run that trains or evaluates one network.
NETWORK = "network"
MOST_THREADS = 1024
RANGES = ("average", "learned")
TUNERS = ("grid", "random", "bayesian", "hyperband")

_T = TypeVar("_T")


@dataclass(frozen=True)
class PopulationConfig:
    """Students that are trained together, in one step over the same batch and teacher logits.

    Their weights are those they would get alone, so this changes no result, only time and memory.

    Args:
        size: Students in one step; 1 trains one after the other, null takes as many as fit.
        memory: Limit of their memory in GB, where the size is null.
    """

    size: int | None = 1
    memory: float = 4.0

    def __post_init__(self) -> None:
        if self.size is not None:
            checks.count("population.size", self.size)
        checks.positive("population.memory", self.memory)


@dataclass(frozen=True)
class SweepConfig:
    """A search, done by `tfdistill sweep` with Keras Tuner.

    Args:
        tuner: `grid`, `random`, `bayesian` or `hyperband`.
        space: What is searched: a key of the study, such as `distillation.alpha` or
            `student.width`, with a list of values, or with {min, max} and, where wanted, `step` and
            `sampling` (`linear` or `log`).
        trials: Number of trials of `random` and `bayesian`; a grid tries every point once, and
            Hyperband as many as follow from the epochs and its `factor`.
        factor: Of Hyperband: one trial in so many goes on, for so many times the epochs.
        seed: Seed of the tuner's draws.
        confirm_seeds: Fresh seeds with which the best trial, and the student alone, are trained
            again, before their test accuracy is reported.
    """

    tuner: Annotated[str, OneOf(TUNERS)] = "grid"
    space: dict[str, list | dict] = field(  # type: ignore[type-arg]
        default_factory=lambda: {
            "distillation.alpha": [0.1, 0.5, 0.9],
            "distillation.temperature": [1.0, 4.0, 10.0],
        }
    )
    trials: int = 20
    factor: int = 3
    seed: int = 0
    confirm_seeds: list[int] = field(default_factory=lambda: [1000, 1001, 1002])

    def __post_init__(self) -> None:
        check_words(self, "sweep")
        checks.count("sweep.trials", self.trials)
        checks.count("sweep.factor", self.factor, minimum=2)
        checks.count("sweep.seed", self.seed, minimum=0)
        checks.different("sweep.confirm_seeds", self.confirm_seeds)
        for seed in self.confirm_seeds:
            checks.count("sweep.confirm_seeds", seed, minimum=0)


@dataclass(frozen=True)
class StudyConfig:
    """A whole study: the file that `tfdistill run` takes.

    Args:
        study: Which study; `tfdistill studies` lists them.
        output: Folder for records, weights and the report; default results/ and the file's name.
        seeds: One run of every kind for each seed.
        data: The images.
        teacher: The teacher network.
        student: The student network; null means the teacher's architecture.
        training: How teachers, and students too unless `student_training` is given, are trained.
        student_training: How students are trained; null means as the teachers.
        distillation: What a student learns from the ensemble of teachers.
        self_distillation: What a network learns from one of its own kind; null means the same.
        teacher_data: The images that teachers are trained on; null means the same.
        cache: How teachers' logits are stored; null runs the teachers in every step, as is always
            done where images have views without end. Feature losses need null.
        population: Students that are trained together.
        settings: The study's own settings; `tfdistill studies NAME` lists them.
        sweep: What `tfdistill sweep` searches.
        export: What `tfdistill run` and `train` export at the end; null exports nothing.
        tensorboard: Also write TensorBoard logs.
        threads: Threads that one operation is spread over, on which the bits of weights depend
            on a CPU; null: all cores, or with several workers an equal part of them.
        note: A remark for the report, such as what is special about the images.
    """

    study: Annotated[str, OneOf(STUDIES)] = "mysteries"
    output: str | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    data: DataConfig = field(default_factory=DataConfig)
    teacher: ModelConfig | None = field(default_factory=ModelConfig)
    student: ModelConfig | None = None
    training: TrainingConfig = field(default_factory=TrainingConfig)
    student_training: TrainingConfig | None = None
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    self_distillation: DistillationConfig | None = None
    teacher_data: DataConfig | None = None
    cache: CacheConfig | None = field(default_factory=CacheConfig)
    population: PopulationConfig = field(default_factory=PopulationConfig)
    settings: dict = field(default_factory=dict)  # type: ignore[type-arg]
    sweep: SweepConfig = field(default_factory=SweepConfig)
    export: ExportConfig | None = None
    tensorboard: bool = False
    threads: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.threads is not None:
            checks.count("threads", self.threads)
            if self.threads > MOST_THREADS:
                raise checks.UsageError(
                    f"threads must be at most {MOST_THREADS}. Received: threads={self.threads}."
                )
        checks.different("seeds", self.seeds)
        for seed in self.seeds:
            checks.count("seeds", seed, minimum=0)
        _check_cache(self.distillation, self.cache)

    @property
    def folder(self) -> Path:
        """`output`, once a command has set it."""
        if self.output is None:
            raise ValueError(f"The study {self.study} has no output.")
        return Path(self.output)


@dataclass(frozen=True)
class ChannelSplitConfig:
    """A network on top of some channels of a trained one, whose lower part it keeps as it is.

    Args:
        base: Name of the run that trained it.
        layer: Name of its layer that is cut.
        parts: Number of disjoint parts of the layer's channels.
        part: Which of them is kept, in 0..parts - 1.
    """

    base: str
    layer: str
    parts: int = 1
    part: int = 0

    def __post_init__(self) -> None:
        checks.count("split.parts", self.parts)
        checks.count("split.part", self.part, minimum=0)
        if self.part >= self.parts:
            raise checks.UsageError(
                f"split.part must be below split.parts. Received: part={self.part} of {self.parts}."
            )


@dataclass(frozen=True)
class QuantizeConfig:
    """A network that rounds its weights and activations, as `tfdistill.quantization` does.

    Args:
        weight_bits: 2 to 8, of weights.
        activation_bits: 2 to 8, of activations.
        ranges: Of activations: `average` moves with each batch's extremes, `learned` is trained.
        calibration: Training images from which the ranges are measured at the start.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    ranges: Annotated[str, OneOf(RANGES)] = "average"
    calibration: int = 500

    def __post_init__(self) -> None:
        checks.bits("quantize.weight_bits", self.weight_bits)
        checks.bits("quantize.activation_bits", self.activation_bits)
        check_words(self, "quantize")
        checks.count("quantize.calibration", self.calibration)


@dataclass(frozen=True)
class PruneConfig:
    """A network of a part of another run's channels, as `tfdistill.prune` makes it.

    Args:
        base: Name of the run whose network is pruned.
        keep: Share of the channels of each layer that is kept, above 0, below 1.
        multiple: The number that is kept is the nearest multiple of it.
    """

    base: str
    keep: float
    multiple: int = 8

    def __post_init__(self) -> None:
        checks.proper_fraction("prune.keep", self.keep)
        checks.count("prune.multiple", self.multiple)


@dataclass(frozen=True)
class RunConfig:
    """One run of a study: a network to train, an ensemble to evaluate, or a kind of its own.

    Args:
        name: Unique within the study; also the name of its folder.
        row: The row of the table that it belongs to.
        seed: Seed of its initial weights, and of the order and views of its images.
        data: The images.
        model: The network; null for an ensemble of finished runs, which is only evaluated.
        training: How it is trained.
        teachers: Names of the runs that teach it.
        distillation: What it learns from them; null without teachers.
        members: Names of the runs that an ensemble averages, or that its kind looks at.
        trained: Whether it is trained; a saved teacher is only evaluated, and so is what another
            run's network becomes by pruning or rounding alone.
        width: Number of networks that are trained as one averaged model.
        average: How members are averaged: `probabilities` or `logits`.
        cache: How the teachers' logits are stored; null runs the teachers in every step.
        stop_epoch: Stop after so many of the `epochs` for now; null trains them all.
        start: Name of the run whose weights it starts from; null means new ones.
        split: The trained network on whose channels it stands; null means that it is whole.
        prune: Of which run's network it keeps which channels; null means that it is whole.
        quantize: How its network rounds, in training and afterwards; null means in float.
        kind: What does the run, as `config/registry.py` names it.
        settings: Settings of that module.
        teacher_input_size: Side in pixels that its teachers see; null means the images' own.
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
    cache: CacheConfig | None = None
    stop_epoch: int | None = None
    start: str | None = None
    split: ChannelSplitConfig | None = None
    prune: PruneConfig | None = None
    quantize: QuantizeConfig | None = None
    kind: str = NETWORK
    settings: dict = field(default_factory=dict)  # type: ignore[type-arg]
    teacher_input_size: int | None = None

    def __post_init__(self) -> None:
        _check_cache(self.distillation, self.cache)
        if self.quantize and self.training.precision != "float32":
            raise checks.UsageError(
                "A network that rounds computes in float32. Received: training.precision="
                f"{self.training.precision} for the run {self.name}. Set it to float32."
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the runs that must be finished first."""
        bases = tuple(part.base for part in (self.split, self.prune) if part)
        return self.teachers + self.members + ((self.start,) if self.start else ()) + bases

    @property
    def is_derived(self) -> bool:
        """Whether pruning or rounding makes its network, which is then in no other run's file."""
        return self.prune is not None or self.quantize is not None

    @property
    def network(self) -> ModelConfig:
        """`model` of a run that has a network of its own."""
        return self._given("model", self.model)

    @property
    def taught(self) -> DistillationConfig:
        """`distillation` of a run that has teachers."""
        return self._given("distillation", self.distillation)

    @property
    def stored(self) -> CacheConfig:
        """`cache` of a run whose teachers' logits are stored."""
        return self._given("cache", self.cache)

    def _given(self, name: str, value: _T | None) -> _T:
        if value is None:
            raise ValueError(f"The run {self.name} has no {name}.")
        return value


def _check_cache(distillation: DistillationConfig | None, cache: CacheConfig | None) -> None:
    if distillation and distillation.features and cache:
        names = ", ".join(feature.loss for feature in distillation.features)
        raise checks.UsageError(
            "Losses between inner layers need the live teacher, whose stored logits do not help. "
            f"Received: distillation.features {names} together with a cache. Set cache: null."
        )
    if distillation and distillation.standardize and cache and cache.largest:
        raise checks.UsageError(
            "Standardised logits need those of all classes. Received: distillation.standardize "
            f"together with cache.top_k={cache.largest}. Set one of them otherwise."
        )
