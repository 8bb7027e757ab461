"""Settings of the multi-view theory's experiments: data, networks, gradient descent.

Allen-Zhu & Li, "Towards Understanding Ensemble, Knowledge Distillation and Self-Distillation in
Deep Learning" (arXiv 2012.09816), whose symbols stand in brackets. A user writes them under
`settings:` of the study `multi_view`.
"""

from dataclasses import dataclass, field, replace

from tfdistill.utils import checks

ACTIVATIONS = ("smoothed_relu", "linear")
TEACHERS = ("ensemble", "next", "labels")
SOFT_LOSSES = ("soft_targets", "one_sided")


@dataclass(frozen=True)
class MultiViewData:
    """The distribution of multi-view and single-view examples (definitions of D_m and D_s).

    Every class has two views, unit vectors; all are orthogonal. An example shows its class's two
    views and some views of other classes, each on patches of its own. In a multi-view example both
    own views are strong, in a single-view example one of them all but vanishes.

    Args:
        classes: Number of classes (k).
        dimension: Length of a patch (d).
        patches: Patches of an example (P).
        patches_per_view: Patches that show a view of an example (C_p), with equal coefficients.
        sparsity: Every view of another class is shown with probability sparsity / classes (s).
        most_others: Most views of other classes in an example; of more, these are drawn.
        own: Range of the coefficient of an own view, summed over its patches.
        other: That of another class's view in multi-view examples.
        other_single_view: That of another class's view in single-view examples (Gamma).
        missing: That of the own view that a single-view example lacks (rho).
        feature_noise: Most of every view that any patch has (gamma); null means classes^-1.5.
        noise: Length of a patch's Gaussian noise (sigma_p sqrt(d)); the same on all patches.
        mu: Share of single-view examples (mu), in 0..1.
        single_view_examples: Training examples with a single view (N_s, in theory k^1.2). There
            are single_view_examples / mu training examples in all.
        test_multi_view: Multi-view test examples.
        test_single_view: Single-view test examples.
    """

    classes: int = 10
    dimension: int = 2000
    patches: int = 6
    patches_per_view: int = 1
    sparsity: float = 3.0
    most_others: int = 4
    own: list[float] = field(default_factory=lambda: [1.0, 1.5])
    other: list[float] = field(default_factory=lambda: [0.3, 0.4])
    other_single_view: list[float] = field(default_factory=lambda: [0.15, 0.3])
    missing: list[float] = field(default_factory=lambda: [0.015, 0.03])
    feature_noise: float | None = None
    noise: float = 1.0
    mu: float = 0.025
    single_view_examples: int = 15
    test_multi_view: int = 1000
    test_single_view: int = 2000

    def __post_init__(self):
        checks.count("settings.data.classes", self.classes, minimum=2)
        counts = ("dimension", "patches", "patches_per_view", "test_multi_view", "test_single_view")
        for name in (*counts, "single_view_examples"):
            checks.count(f"settings.data.{name}", getattr(self, name))
        checks.count("settings.data.most_others", self.most_others, minimum=0)
        checks.non_negative("settings.data.sparsity", self.sparsity)
        checks.fraction("settings.data.sparsity / classes", self.sparsity / self.classes)
        for name in ("own", "other", "other_single_view", "missing"):
            _check_range(f"settings.data.{name}", getattr(self, name))
        if self.feature_noise is not None:
            checks.non_negative("settings.data.feature_noise", self.feature_noise)
        checks.non_negative("settings.data.noise", self.noise)
        checks.fraction("settings.data.mu", self.mu)
        checks.positive("settings.data.mu", self.mu)
        self._check_room()

    def _check_room(self):
        if self.dimension < 2 * self.classes:
            raise checks.UsageError(
                f"{self.classes} classes have {2 * self.classes} orthogonal views, which need as "
                f"many dimensions. Received: settings.data.dimension={self.dimension}. Raise it."
            )
        needed = (2 + self.most_others) * self.patches_per_view
        if self.patches < needed:
            raise checks.UsageError(
                f"Two own views and {self.most_others} others on {self.patches_per_view} patches "
                f"each need {needed} patches. Received: settings.data.patches={self.patches}. "
                "Raise it, or lower settings.data.most_others."
            )

    @property
    def train_examples(self) -> int:
        """Number of training examples (N)."""
        return round(self.single_view_examples / self.mu)

    @property
    def test_examples(self) -> int:
        """Number of test examples."""
        return self.test_multi_view + self.test_single_view

    @property
    def largest_feature_noise(self) -> float:
        """The most of every view that any patch has (gamma)."""
        return self.classes**-1.5 if self.feature_noise is None else self.feature_noise


def _check_range(name: str, ends: list[float]) -> None:
    if len(ends) != 2 or not 0 <= ends[0] <= ends[1]:
        raise checks.UsageError(
            f"{name} must be two numbers >= 0, the smaller first. Received: {name}={ends!r}."
        )


@dataclass(frozen=True)
class PlantedData:
    """Gaussian inputs with labels from a planted network: data without views.

    The label is argmax_i sum_r ReLU(<u_ir, x>), with u and x normal and x of about unit length.

    Args:
        classes: Number of classes.
        dimension: Length of an input, which is one patch.
        neurons: Neurons of each class of the planted network.
        train_examples: Number of training examples.
        test_examples: Number of test examples.
    """

    classes: int = 10
    dimension: int = 30
    neurons: int = 3
    train_examples: int = 2000
    test_examples: int = 4000

    def __post_init__(self):
        checks.count("settings.planted.classes", self.classes, minimum=2)
        for name in ("dimension", "neurons", "train_examples", "test_examples"):
            checks.count(f"settings.planted.{name}", getattr(self, name))


@dataclass(frozen=True)
class NetworkSettings:
    """F_i(X) = sum_r sum_p act(<w_ir, x_p>), output weights 1, no bias.

    Args:
        neurons: Neurons of each class (m).
        activation: `smoothed_relu`, or `linear`, whose training is convex.
        power: Power of the smoothed ReLU (q).
        threshold: Where the smoothed ReLU becomes linear (c).
        deviation: Standard deviation of the initial weights (sigma_0).
    """

    neurons: int = 10
    activation: str = "smoothed_relu"
    power: int = 4
    threshold: float = 1.5
    deviation: float = 0.08

    def __post_init__(self):
        checks.count("settings.network.neurons", self.neurons)
        checks.one_of("settings.network.activation", self.activation, ACTIVATIONS)
        checks.count("settings.network.power", self.power, minimum=2)
        checks.positive("settings.network.threshold", self.threshold)
        checks.positive("settings.network.deviation", self.deviation)


@dataclass(frozen=True)
class DescentSettings:
    """Gradient descent on all training examples at once.

    The rate of each network is rate * min(growth, 2 (1 - 1 / k) / r), where r is the mean of
    |softmax(F) - y|_1 over the examples: it grows as the errors, 2 (1 - 1 / k) at first, fade.

    Args:
        rate: Learning rate at the start.
        growth: How many times as large it may become.
        momentum: Momentum, in 0..1.
    """

    rate: float = 0.4
    growth: float = 10.0
    momentum: float = 0.9

    def __post_init__(self):
        checks.positive("settings.descent.rate", self.rate)
        checks.positive("settings.descent.growth", self.growth)
        checks.fraction("settings.descent.momentum", self.momentum)


@dataclass(frozen=True)
class GroupSettings:
    """Settings of one run: a group of networks that are trained side by side on the same examples.

    Args:
        network: The networks.
        descent: How they are trained.
        data: The examples; null with `planted`.
        planted: Examples without views instead.
        networks: How many networks there are; each has a seed of its own.
        steps: Steps of gradient descent of this run.
        taught_by: What each network of a run with teachers learns from: their `ensemble`; the
            `next` one of them, which did not start from the same weights; or, as a control, the
            `labels`, given as logits of the ensemble's usual size, which say nothing else.
        soft_loss: `soft_targets`, or `one_sided`, the paper's update.
    """

    network: NetworkSettings
    descent: DescentSettings
    data: MultiViewData | None = None
    planted: PlantedData | None = None
    networks: int = 5
    steps: int = 400
    taught_by: str = "ensemble"
    soft_loss: str = "soft_targets"

    def __post_init__(self):
        checks.count("settings.networks", self.networks)
        checks.count("settings.steps", self.steps)
        checks.one_of("settings.taught_by", self.taught_by, TEACHERS)
        checks.one_of("settings.soft_loss", self.soft_loss, SOFT_LOSSES)
        if (self.data is None) == (self.planted is None):
            raise checks.UsageError(
                "A group of networks needs either settings.data or settings.planted. Received: "
                f"data={self.data!r}, planted={self.planted!r}."
            )

    @property
    def examples(self) -> MultiViewData | PlantedData:
        """What the networks are trained on."""
        found = self.data or self.planted
        assert found is not None  # one of them is given
        return found


@dataclass(frozen=True)
class Settings:
    """Settings of the study `multi_view`; its `distillation` says what students learn.

    Args:
        data: The examples; its `mu` is that of most runs.
        network: The networks.
        descent: How they are trained.
        networks: Networks of each seed, which are also the members of its ensemble, at least 2.
        steps: Steps of the single networks, which teach.
        student_steps: Steps of students, and of the single networks that they are compared with.
        one_sided_temperature: Temperature of the paper's update, 1 / tau; it caps logits at its
            square. The study's `distillation` is that of the other students, by soft targets.
        one_sided_weight: Weight of the paper's update beside the labels, eta' / eta.
        other_mus: Further values of mu, with as many single-view examples among more or fewer.
        other_seeds: How many of the seeds are run with each of them.
        control_seeds: How many of the seeds are run with one wide and with linear networks.
        linear_steps: Steps of linear networks.
        planted: Examples without views; null leaves them out.
        planted_network: The networks that learn them.
        planted_steps: Their steps.
    """

    data: MultiViewData = field(default_factory=MultiViewData)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    descent: DescentSettings = field(default_factory=DescentSettings)
    networks: int = 5
    steps: int = 400
    student_steps: int = 700
    one_sided_temperature: float = 2.0
    one_sided_weight: float = 10.0
    other_mus: list[float] = field(default_factory=list)
    other_seeds: int = 1
    control_seeds: int = 1
    linear_steps: int = 200
    planted: PlantedData | None = field(default_factory=PlantedData)
    planted_network: NetworkSettings = field(default_factory=lambda: NetworkSettings(deviation=1.0))
    planted_steps: int = 1000

    def __post_init__(self):
        checks.count("settings.networks", self.networks, minimum=2)
        for name in ("steps", "linear_steps", "planted_steps"):
            checks.count(f"settings.{name}", getattr(self, name))
        checks.count("settings.student_steps", self.student_steps, minimum=self.steps + 1)
        checks.temperature("settings.one_sided_temperature", self.one_sided_temperature)
        checks.non_negative("settings.one_sided_weight", self.one_sided_weight)
        for name in ("other_seeds", "control_seeds"):
            checks.count(f"settings.{name}", getattr(self, name), minimum=0)
        checks.different("settings.data.mu and settings.other_mus", self.mus)
        for mu in self.other_mus:
            replace(self.data, mu=mu)

    @property
    def mus(self) -> list[float]:
        """All values of mu, that of most runs first."""
        return [self.data.mu, *self.other_mus]
