"""TensorFlow started once, below Keras as it comes, and quiet: it prints past Python.

What it prints is kept, and shown where it cannot start, also where that ends the process.
"""

import contextlib
import gc
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tfdistill.utils import checks, signals

_REMEDY = (
    "See whether memory is short (`free`, `ulimit -v`); otherwise install it again: pip install "
    "--force-reinstall tensorflow keras."
)
# Reads a line when all went well. Where its writer ended without one, nobody else can tell of it.
_WITNESS = 'read -r line || { echo "tfdistill: error: $0 It printed:"; exec cat "$1"; }'


def for_commands() -> None:
    """Let commands use Keras 3 on TensorFlow, whatever was set for other programs.

    To be called before Keras is imported, here and by the processes that a command starts.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"  # it goes before keras.json
    os.environ.pop("TF_USE_LEGACY_KERAS", None)


def start(devices: bool = True) -> None:
    """Import TensorFlow quietly; some seconds in a new process, nothing afterwards.

    Args:
        devices: Look for devices, too; the number of threads can't be set any more then.

    Raises:
        UsageError: TensorFlow cannot be imported (what it printed is a note of the error), Keras
            has another backend, or is set up so that results would be others.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    first = "tensorflow" not in sys.modules
    lost = f"TensorFlow could not start and ended this process. {_REMEDY}"
    with muted((2,), lost) as printed:
        try:
            check_keras()
            import tensorflow as tf

            if devices:
                tf.config.list_logical_devices()  # they have their say when they are first used
        except checks.UsageError:
            raise
        except (Exception, SystemExit) as error:  # a broken package raises any kind
            reason = f"{type(error).__name__}: {checks.first_line(error)}"
            broken = checks.UsageError(f"TensorFlow cannot be imported. {reason} {_REMEDY}")
            broken.add_note(printed())
            raise broken from error
    if first:
        # What was imported stays. Looking for garbage among it, too, at the end of every network
        # took a quarter of the CPU time of a small study.
        gc.freeze()
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
        if not _reads_settings(error):
            raise
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


def _reads_settings(error: Exception) -> bool:
    """Return whether Keras was reading keras.json or its variables, and not a broken package."""
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    return innermost.endswith(os.path.join("keras", "src", "backend", "config.py"))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings and whatever is written to stdout and stderr, native code's lines as well.

    What a converter has to say of a failure is in the exception that it raises; where it ends the
    process, all is shown.

    Example:
        >>> with quiet():
        ...     converter.convert()
    """
    with muted((1, 2)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def muted(
    streams: Sequence[int] = (2,),
    lost: str = "This process was ended from within, as happens when memory runs out. Free some.",
) -> Iterator[Callable[[], str]]:
    """Keep back what is written to streams of the system: 1 is stdout, 2 is stderr.

    It is dropped at the end; where the process does not live to see that, it is shown on stderr.

    Args:
        streams: Numbers of the streams.
        lost: What is said of a process that has ended meanwhile: one line, what happened and what
            to do.

    Yields:
        A function that returns what was written so far.
    """
    printed = os.memfd_create("printed")
    kept = [os.dup(stream) for stream in streams]

    def read() -> str:
        sys.stdout.flush()
        sys.stderr.flush()
        return Path(f"/proc/self/fd/{printed}").read_text(errors="replace").strip()

    try:
        with _witness(lost, printed):
            sys.stdout.flush()
            sys.stderr.flush()
            for stream in streams:
                os.dup2(printed, stream)
            try:
                yield read
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                for stream, copy in zip(streams, kept, strict=True):
                    os.dup2(copy, stream)
    finally:
        for number in (printed, *kept):
            os.close(number)


@contextlib.contextmanager
def _witness(lost: str, printed: int) -> Iterator[None]:
    """Have a shell say `lost`, and what a file holds, if this process ends within."""
    reads, alive = os.pipe()
    shell = None

    def dismiss() -> None:
        with contextlib.suppress(OSError):  # it was killed
            os.write(alive, b"\n")

    try:
        with signals.before_leaving(dismiss):  # a signal may come while the shell is started
            shell = subprocess.Popen(
                ["/bin/sh", "-c", _WITNESS, lost, f"/proc/self/fd/{printed}"],
                stdin=reads,
                stdout=2,
                pass_fds=[printed],
                start_new_session=True,  # what ends this process's group does not end it
            )
            os.close(reads)
            yield
    finally:
        dismiss()
        os.close(alive)
        if shell:
            shell.wait()
