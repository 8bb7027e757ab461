"""TensorFlow started once, and quiet: it and its converters print past Python."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence


def start() -> None:
    """Import TensorFlow quietly; some seconds in a new process, nothing afterwards."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with muted((2,)):
        import tensorflow as tf

        tf.config.list_logical_devices()  # the devices have their say when they are first used
    # Every network has a function of its own; TensorFlow takes that for needless retracing.
    tf.get_logger().setLevel("ERROR")


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
