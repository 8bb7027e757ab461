"""A teacher and its student: whether they fit, and where the teacher's logits stand."""

import warnings
from typing import Any

import keras

from tfdistill.distillation import outputs
from tfdistill.distillation.targets import probabilities
from tfdistill.models import logits as network_logits
from tfdistill.quantization.layers import count_params
from tfdistill.utils import checks


def on_logits(network: keras.Model, who: str) -> keras.Model:
    """Return a network that ends in logits; that it ends in softmax or sigmoid is said, once.

    Args:
        network: A teacher or a member of an ensemble.
        who: `teacher` or `member`.
    """
    found = network_logits.final_activation(network)
    if found is None and network_logits.gives_probabilities(network):
        raise checks.UsageError(probabilities(f"The {who}'s outputs are"))
    if found in (None, network_logits.LINEAR):
        return network
    warnings.warn(
        f"The {who} ends in {found}; what stands before it is taken as its logits.", stacklevel=4
    )
    return network_logits.logits_network(network)


def check_pair(teacher: keras.Model, student: keras.Model) -> None:
    """Raise unless a teacher takes the student's images and tells its classes apart."""
    # A subclassed model has no shapes before its first batch; the train step checks it then.
    shapes = [
        getattr(m, name, None)
        for name in ("input_shape", "output_shape")
        for m in (teacher, student)
    ]
    teacher_in, student_in, teacher_out, student_out = shapes
    if teacher_in and student_in:
        checks.same_input(teacher_in, student_in)
    if teacher_out and student_out:
        checks.same_classes(teacher_out[-1], student_out[-1])


def check_network(who: str, network: Any) -> None:
    """Raise unless a teacher or student is a Keras model with one output."""
    if not isinstance(network, keras.layers.Layer):
        raise checks.UsageError(
            f"The {who} must be a Keras model. Received: {type(network).__name__}. Load a file "
            "with keras.models.load_model."
        )
    outputs.check_outputs(network, who)
    # A task of KerasHub: its fit and predict call the preprocessor, and calling it does not.
    if getattr(network, "preprocessor", None) is not None:
        raise checks.UsageError(
            f"The {who} {network.name} preprocesses images in its predict, not when it is called. "
            "Give open_teacher('hub:PRESET').network, or keras.Model(image, "
            "task(task.preprocessor.image_converter(image))) of an image = keras.Input(shape), or "
            "set its preprocessor to None if your images need none."
        )


def check_apart(teacher: Any, student: keras.Model) -> None:
    """Raise if training the student would change its teacher."""
    own = {id(variable) for variable in teacher.variables}
    shared = [one for one in student.trainable_variables if id(one) in own]
    if shared:
        raise checks.UsageError(
            "A student must not train weights of its teacher, which would change with it. "
            f"Received: both have {shared[0].path}. Build the student apart, as with "
            "keras.models.clone_model, or freeze what they share."
        )


def check_order(teacher: keras.Model, student: keras.Model) -> None:
    if not (teacher.built and student.built):
        return
    large, small = count_params(student), count_params(teacher)
    if large > small:
        warnings.warn(
            f"The student has more weights than its teacher ({large:,} and {small:,}). The order "
            "is Distiller(student, teacher), the reverse of keras.distillation's; name them.",
            stacklevel=4,
        )


_OF_KERAS = {
    "distillation_losses": "Give temperature=... or soft_loss=SoftTargets(...), and "
    "features=[FeatureLoss(...)] for inner layers",
    "distillation_loss_weights": "Give alpha (the weight of the soft loss) or soft_weight, and the "
    "weight of each FeatureLoss",
    "student_loss_weight": "Give alpha = 1 - student_loss_weight, or hard_weight",
    "student_loss_fn": "Give compile(loss=...)",
    "distillation_loss_fn": "Give Distiller(soft_loss=...), between logits, or temperature alone",
    "alpha": "Give Distiller(alpha=...), the teacher's weight: 1 - that of the keras.io recipe",
    "temperature": "Give Distiller(temperature=...)",
}


def answer_names_of_keras(settings: dict[str, Any]) -> None:
    for name in settings:
        if name in _OF_KERAS:
            raise checks.UsageError(
                f"Unknown argument: {name}={checks.shown(settings[name])}. {_OF_KERAS[name]}."
            )
