"""What networks are trained on here: devices, XLA, precision, repeatability, versions."""

import contextlib
import importlib.metadata
import os
from collections.abc import Iterator

import keras
import tensorflow as tf


def accelerators() -> list:
    """Return the GPUs and TPUs that TensorFlow sees."""
    return tf.config.list_physical_devices("GPU") + tf.config.list_physical_devices("TPU")


def device() -> str:
    """Return what networks are trained on, e.g. `CPU, 2 cores`."""
    found = accelerators()
    if not found:
        return f"CPU, {len(os.sched_getaffinity(0))} cores"
    details = tf.config.experimental.get_device_details(found[0])
    return f"{len(found)} x {details.get('device_name', found[0].device_type)}"


def uses_xla(jit: str) -> bool:
    """Return whether `auto`, `on` or `off` compiles with XLA here: `auto` does on a GPU or TPU.

    Keras would decide the same, but a saved model carries its decision to the next machine.
    """
    return jit == "on" or (jit == "auto" and bool(accelerators()))


def make_repeatable() -> None:
    """Let the same run give the same weights; on a CPU only, where it costs nothing."""
    if not accelerators():
        tf.config.experimental.enable_op_determinism()


def clear_session() -> None:
    """Forget what Keras remembers of earlier networks, but not the dtype policy, as it would."""
    policy = keras.config.dtype_policy()
    keras.utils.clear_session()
    keras.config.set_dtype_policy(policy)


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Build layers under a Keras dtype policy, and restore the one before."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def versions() -> dict[str, str]:
    """Return the versions of this package and of what its figures depend on."""
    names = ("tfdistill", "tensorflow", "keras", "numpy")
    return {name: version(name) for name in names}


def version(package: str) -> str:
    """Return the version of an installed package, or `not installed`."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
