"""A population: many students in one compiled step, over one batch and one set of teacher logits.

Every member keeps its own loss, optimizer and metrics and runs its own train step, so it ends as if
trained alone on the same batches. What is shared is what does not depend on the member: reading and
augmenting images, the teacher, starting a step; and a step of many members fills the cores better.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from tfdistill.distillation.chance_check import ChanceCheck
from tfdistill.distillation.distiller import Distiller
from tfdistill.distillation.outputs import NUMBERS
from tfdistill.distillation.pairs import check_apart, check_network, check_pair
from tfdistill.distillation.pairs import on_logits as logits_of
from tfdistill.distillation.probability_check import ProbabilityCheck
from tfdistill.distillation.replicas import OnWorkers, of_workers
from tfdistill.distillation.schedules import LossWeightSchedule
from tfdistill.distillation.targets import LABEL, TEACHER_LOGITS, one_weight, targets
from tfdistill.utils import checks, tensorflow
from tfdistill.utils.types import Shape, Tensor

EVALUATION = "val_"
# Of a member's part of the compiled step: what its memory grew by beside weights and activations.
_STEP_BYTES = 20 * 2**20
_OF_ONE_MODEL = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
    keras.callbacks.TerminateOnNaN,
    keras.callbacks.BackupAndRestore,
    keras.callbacks.SwapEMAWeights,
    LossWeightSchedule,
)


class Population(OnWorkers):
    """Trains several students side by side.

    A member is a compiled `Distiller`, or any other compiled Keras model from images to logits
    `[batch, num_classes]`, which learns from the labels alone. Members may differ in everything but
    their input and their number of classes. Compile the members first, then the population, which
    has no optimizer.

    Targets are labels or `{"label", "teacher_logits"}`, as for a `Distiller`. Where a batch has no
    teacher logits, the population's teacher runs once for all members, in inference mode and
    outside every gradient tape; it is neither trained nor saved nor counted. Without either, a
    `Distiller` runs its own teacher or raises. One with feature losses always runs its own.

    Logs are flat: `0/loss`, `3/accuracy`, `val_0/accuracy`; `member_logs` takes them apart, and
    `evaluate` should be asked for `return_dict=True`. Callbacks see one model and these logs:
    `EarlyStopping` that watches one member (`val_0/loss`, with `mode`) stops and restores all.
    Keras's callbacks that act on one model's figures or optimizer, as `LearningRateScheduler`, are
    refused: give a schedule to each member's optimizer. The members' `jit_compile` and
    `steps_per_execution` do not count here.

    With one number of threads and the same batches, a member's weights equalled those of training
    alone to the bit on a CPU: its kernels and their shapes are the same, only their order differs.
    With XLA they agree to rounding, as XLA fuses a larger program differently.

    Args:
        members: Compiled models with weights, optimizers and metrics of their own.
        teacher: A Keras model (or `Ensemble`) returning logits; None where batches hold them.
        name: Name of the model.

    Raises:
        UsageError: Keras on another backend than TensorFlow; no members; members that share
            something or differ in input or classes; a member with feature losses but no teacher; a
            teacher that does not fit; in `compile`, a member that is not compiled; in `fit`, a
            callback that acts on one model.

    Example:
        >>> population = Population([first_distiller, second_distiller, student_alone])
        >>> population.compile()
        >>> history = population.fit(batches, epochs=10, steps_per_epoch=steps, shuffle=False)
        >>> population.member_logs(history.history)[1]["accuracy"]
    """

    def __init__(
        self,
        members: Iterable[keras.Model],
        teacher: keras.Model | None = None,
        name: str | None = None,
    ):
        tensorflow.needed("A Population")
        super().__init__(autocast=False, name=name)
        members = list(members)
        if not members:
            raise checks.UsageError("A Population needs at least one member. Received: none.")
        _check_apart(members)
        _check_alike(members)
        _check_feature_losses(members)
        self.members = members
        self._teacher = None
        if teacher is not None:
            check_network("teacher", teacher)
            check_pair(teacher, _student(members[0]))
            for member in members:
                check_apart(teacher, _student(member))
            on_logits, plain = logits_of(teacher, "teacher"), teacher
            # In a closure, because Keras tracks and saves a model that is an attribute.
            self._teacher = lambda x: ops.cast(
                (plain if self._between_numbers() else on_logits)(x, training=False), "float32"
            )
        if all(member.built for member in members):
            self.build(None)

    def build(self, input_shape: Shape | None) -> None:
        self.built = True  # a member without weights gets them in its first call

    def compile(
        self,
        jit_compile: bool | str = "auto",
        steps_per_execution: int = 1,
        run_eagerly: bool = False,
    ) -> None:
        """Prepare the joint step; to be repeated after a member is recompiled.

        Args:
            jit_compile: Whether to use XLA, or `auto`.
            steps_per_execution: Batches in one call of the compiled step, >= 1.
            run_eagerly: Do not compile the step, for debugging.

        Raises:
            UsageError: A member is not compiled.
        """
        for place, member in enumerate(self.members):
            if not member.compiled or member.optimizer is None:
                raise checks.UsageError(
                    f"Members of a Population must be compiled with an optimizer. Received: member "
                    f"{place} ({member.name}), which is not. Call its compile first."
                )
        _check_apart(self.members)
        for member in self.members:
            if member.built:
                member.optimizer.build(member.trainable_variables)
        super().compile(
            optimizer=None,
            jit_compile=jit_compile,
            steps_per_execution=steps_per_execution,
            run_eagerly=run_eagerly,
        )

    def fit(self, *args: Any, callbacks: Any = None, **settings: Any) -> keras.callbacks.History:
        callbacks = keras.tree.flatten(callbacks or [])
        _check_callbacks(callbacks)
        distillers = [member for member in self.members if isinstance(member, Distiller)]
        for member in distillers[:1]:  # all have the same targets
            member._check_arrays(settings.get("y", args[1] if len(args) > 1 else None))
        # First, so that callbacks that restore weights at the end have the last word.
        looking = [ProbabilityCheck(distillers), ChanceCheck(distillers)]
        callbacks = [_FinishOptimizers(), *looking, *callbacks]
        return super().fit(*args, callbacks=callbacks, **settings)

    def call(self, x: Tensor, training: bool | None = None) -> list[Tensor]:
        """Return the members' logits, a list of `[batch, num_classes]`."""
        return [_student(member)(x, training=training) for member in self.members]

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        sample_weight = one_weight(sample_weight)
        y = targets(y)
        if self._teacher is not None and TEACHER_LOGITS not in y:
            y[TEACHER_LOGITS] = self._teacher(x)
        logs = [
            member.train_step((x, _targets_for(member, y), sample_weight))
            for member in self.members
        ]
        _check_apart(self.members)  # metrics have their variables only now
        return _joined(logs)

    def _symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Let the members make the variables of their metrics, which no replica can.

        Keras calls it under a distribution strategy, and would build only a model's own metrics.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data_batch)
        y = targets(y)
        if self._teacher is not None and TEACHER_LOGITS not in y:
            y[TEACHER_LOGITS] = self._teacher(x)
        for member in self.members:
            member._symbolic_build(data_batch=(x, _targets_for(member, y), sample_weight))

    def test_step(self, data: Any) -> dict[str, Any]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        sample_weight, y = one_weight(sample_weight), targets(y)
        return _joined(
            member.test_step((x, _targets_for(member, y), sample_weight)) for member in self.members
        )

    def _between_numbers(self) -> bool:
        kinds = {m._family is NUMBERS for m in self.members if isinstance(m, Distiller)}
        if len(kinds) > 1:
            raise checks.UsageError(
                "Members must have outputs of one kind. Received: some that are compiled with a "
                "loss between numbers and some with one on logits. Make one population of each."
            )
        return kinds == {True}

    @property
    def metrics(self) -> list[Any]:
        """The members' metrics, one member after the other; Keras would leave them out."""
        return [metric for member in self.members for metric in member.metrics]

    def get_metrics_result(self) -> dict[str, Any]:
        return _joined(member.get_metrics_result() for member in self.members)

    @staticmethod
    def member_logs(logs: dict[str, Any]) -> list[dict[str, Any]]:
        """Return logs of `fit` or `evaluate`, or a history, taken apart by member.

        Args:
            logs: Such as `{"0/loss": 2.3, "1/loss": 2.2, "val_0/loss": 2.4, "val_1/loss": 2.5}`.

        Returns:
            A dict for each member, such as `{"loss": 2.3, "val_loss": 2.4}`; what belongs to no
            member is left out.
        """
        members: dict[int, dict[str, Any]] = {}
        for key, value in logs.items():
            place, _, metric = key.partition("/")
            prefix = EVALUATION if place.startswith(EVALUATION) else ""
            place = place.removeprefix(EVALUATION)
            if metric and place.isdecimal():
                members.setdefault(int(place), {})[prefix + metric] = value
        return [members[place] for place in sorted(members)]


def member_bytes(student: keras.Model, batch_size: int, slots: int = 2) -> int:
    """Return an estimate of the memory that one more member of a population takes, in bytes.

    4 * (2 + slots) bytes for each trainable weight (itself, its gradient, the optimizer's slots), 4
    for each other weight, batch_size * elements * bytes of each layer's output (4, in float16
    layers 2), which all members keep at the same time for the backward pass, and 20 MiB for its
    part of the compiled step.

    Measured on two CPU cores, batch 128, 32x32x3 images, Adam: the growth of the peak memory per
    member from 1 to 8 `cnn2` was 46 MiB (width 1; the estimate is 56) and 33 MiB (width 0.5; 39).
    From 4 to 8 members alone it was 49 and 36 MiB. Of `resnet8` it was 155 MiB (the estimate: 171).

    Args:
        student: A functional or sequential model.
        batch_size: Images in a batch.
        slots: The optimizer's variables for each weight: 2 for Adam, 1 for momentum, 0 for SGD.

    Raises:
        UsageError: A model whose layers' outputs are not known, or an impossible size.

    Example:
        >>> member_bytes(cnn2((32, 32, 3), 10), batch_size=128) / 2**20
        56.4
    """
    checks.count("batch_size", batch_size)
    checks.count("slots", slots, minimum=0)
    activations = batch_size * _activation_bytes(student)
    trainable = sum(math.prod(weight.shape) for weight in student.trainable_weights)
    others = student.count_params() - trainable
    return 4 * (2 + slots) * trainable + 4 * others + activations + _STEP_BYTES


def fitting(student: keras.Model, batch_size: int, memory_bytes: int, slots: int = 2) -> int:
    """Return how many members of this kind fit into the memory by `member_bytes`, at least 1.

    Args:
        student: A functional or sequential model.
        batch_size: Images in a batch.
        memory_bytes: Memory for the members, beside that of the program and the images.
        slots: The optimizer's variables for each weight.

    Example:
        >>> fitting(cnn2((32, 32, 3), 10), batch_size=128, memory_bytes=2**30)
        18
    """
    checks.non_negative("memory_bytes", memory_bytes)
    return max(1, memory_bytes // member_bytes(student, batch_size, slots))


class _FinishOptimizers(keras.callbacks.Callback):
    """Does for the members' optimizers what `fit` does at its end for a model's own."""

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        for member in self.model.members:
            member.optimizer.finalize_variable_values(member.trainable_weights)


def _check_callbacks(callbacks: Iterable[keras.callbacks.Callback]) -> None:
    """Raise at a callback of Keras that would act on nothing, or on all members for one."""
    for callback in callbacks:
        refused = isinstance(callback, _OF_ONE_MODEL)
        watching = isinstance(callback, keras.callbacks.EarlyStopping)
        if isinstance(callback, keras.callbacks.ModelCheckpoint):
            refused, watching = not callback.save_weights_only, callback.save_best_only
        blind = watching and not re.fullmatch(r"(val_)?\d+/.+", callback.monitor)
        if refused or blind:
            monitor = f" with monitor={callback.monitor!r}" if blind else ""
            raise checks.UsageError(
                f"The callback {type(callback).__name__} acts on one model, and a Population is "
                "several, with figures like val_0/loss and an optimizer each. Received: "
                f"{type(callback).__name__}{monitor}. Leave it out, or train the members alone."
            )


def _student(member: keras.Model) -> keras.Model:
    return member.student if isinstance(member, Distiller) else member


def _targets_for(member: keras.Model, y: dict[str, Any]) -> Any:
    if isinstance(member, Distiller):
        return y
    if LABEL not in y:
        raise checks.UsageError(
            f"{member.name} learns from labels alone. Received: targets without {LABEL!r}. Give "
            "labels, or Distillers only."
        )
    return y[LABEL]


def _joined(logs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    joined = {
        f"{place}/{metric}": value
        for place, of_member in enumerate(logs)
        for metric, value in of_member.items()
    }
    return of_workers(joined)


def _activation_bytes(model: keras.Model) -> int:
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += _activation_bytes(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            size = 2 if layer.compute_dtype == "float16" else 4
            total += size * sum(math.prod(shape) for shape in _output_shapes(layer, model))
    return total


def _output_shapes(layer: keras.Layer, model: keras.Model) -> list[Any]:
    try:
        return [output.shape[1:] for output in keras.tree.flatten(layer.output)]
    except AttributeError:
        raise checks.UsageError(
            f"The memory of a member is known only for functional and sequential models. "
            f"Received: {model.name}, whose layer {layer.name} has no symbolic output."
        ) from None


def _check_apart(members: Sequence[keras.Model]) -> None:
    owners: dict[int, int] = {}
    for place, member in enumerate(members):
        optimizer = member.optimizer if member.compiled else None
        own = [member, optimizer, *member.variables, *member.metrics_variables]
        for part in own:
            owner = owners.setdefault(id(part), place) if part is not None else place
            if owner != place:
                raise checks.UsageError(
                    f"Members must have weights, an optimizer and metrics of their own. Received: "
                    f"members {owner} and {place}, which share {part.name!r}. Build each apart."
                )


def _check_alike(members: Sequence[keras.Model]) -> None:
    for name, what in (
        ("input_shape", "take the same images"),
        ("output_shape", "tell as many classes apart"),
    ):
        # A subclassed model has no shapes before its first batch.
        shapes = [getattr(_student(member), name, None) for member in members]
        sizes = [shape and (shape[1:] if name == "input_shape" else shape[-1]) for shape in shapes]
        known = [(place, size) for place, size in enumerate(sizes) if size]
        for place, size in known:
            if size != known[0][1]:
                raise checks.UsageError(
                    f"Members must {what}. Received: member {known[0][0]} with {known[0][1]}, "
                    f"member {place} with {size}. Make one population of each kind."
                )


def _check_feature_losses(members: Sequence[keras.Model]) -> None:
    for place, member in enumerate(members):
        if isinstance(member, Distiller) and member.features and member._teacher is None:
            raise checks.UsageError(
                f"A member with feature losses needs a teacher of its own. Received: member "
                f"{place} ({member.name}) without one. Give it one with set_teacher."
            )
