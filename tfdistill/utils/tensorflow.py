"""TensorFlow started once, below Keras as it comes, and quiet: it prints past Python."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence

from tfdistill.utils import checks


def for_commands() -> None:
    """Let commands use Keras 3 on TensorFlow, whatever was set for other programs.

    To be called before Keras is imported, here and by the processes that a command starts.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"  # it goes before keras.json
    os.environ.pop("TF_USE_LEGACY_KERAS", None)


def start() -> None:
    """Import TensorFlow quietly; some seconds in a new process, nothing afterwards.

    Raises:
        UsageError: Keras has another backend, or is set up so that results would be others.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with muted((2,)):
        check_keras()
        import tensorflow as tf

        tf.config.list_logical_devices()  # the devices have their say when they are first used
    # Every network has a function of its own; TensorFlow takes that for needless retracing.
    tf.get_logger().setLevel("ERROR")


def needed(what: str) -> None:
    """Raise unless Keras computes with TensorFlow.

    Args:
        what: What cannot do without, as the subject of a sentence.
    """
    import keras

    backend = keras.config.backend()
    if backend != "tensorflow":
        raise checks.UsageError(
            f"{what} needs Keras on TensorFlow. Received: the backend {backend!r}. Set the "
            "environment's KERAS_BACKEND=tensorflow before keras is imported."
        )


def check_keras() -> None:
    """Import Keras; raise where keras.json or the environment would change what is measured."""
    remedy = f"Correct keras.json in {_keras_home()}, or the environment's variables KERAS_*."
    try:
        import keras  # it imports TensorFlow, which reads keras.json, too
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        raise checks.UsageError(
            f"Keras cannot be imported as it is set up: {checks.first_line(error)} {remedy}"
        ) from None
    needed("This")
    found = {
        "floatx": (keras.config.floatx(), "float32"),
        "image_data_format": (keras.config.image_data_format(), "channels_last"),
        "epsilon": (keras.config.epsilon(), 1e-7),
        "max_epochs": (keras.config.max_epochs(), None),
        "max_steps_per_epoch": (keras.config.max_steps_per_epoch(), None),
    }
    for name, (value, expected) in found.items():
        if value != expected:
            raise checks.UsageError(
                f"Keras must be set to {name}={expected}, or results would be others. Received: "
                f"{name}={value}. {remedy}"
            )


def _keras_home() -> str:
    return os.environ.get("KERAS_HOME", "~/.keras")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings and whatever is written to stdout and stderr, native code's lines as well.

    What a converter has to say of a failure is in the exception that it raises.

    Example:
        >>> with quiet():
        ...     converter.convert()
    """
    with muted((1, 2)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def muted(streams: Sequence[int]) -> Iterator[None]:
    """Drop what is written to streams of the system: 1 is stdout, 2 is stderr."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(stream) for stream in streams]
    with open(os.devnull, "w") as nowhere:
        for stream in streams:
            os.dup2(nowhere.fileno(), stream)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, copy in zip(streams, kept, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
