"""What networks are trained on here: devices, XLA, precision, repeatability, versions."""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism

from tfdistill.utils import checks


def accelerators() -> list[Any]:
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


def has_bfloat16() -> bool | None:
    """Return whether the device multiplies bfloat16 in hardware, None where that is not known."""
    if accelerators():
        if not tf.config.list_physical_devices("GPU"):
            return True
        details = tf.config.experimental.get_device_details(accelerators()[0])
        capability = details.get("compute_capability")
        return None if capability is None else capability >= (8, 0)
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    return "avx512_bf16" in flags or "amx_bf16" in flags


@functools.cache
def speed_of_bfloat16() -> float:
    """Return how many times as fast as in float32 a convolution is in bfloat16: a short timing.

    Raises:
        tf.errors.OpError: It cannot be computed.
    """

    def seconds(dtype: Any) -> float:
        images, kernel = tf.ones([32, 32, 32, 64], dtype), tf.ones([3, 3, 64, 64], dtype)
        began = time.perf_counter()
        tf.reduce_sum(tf.nn.conv2d(images, kernel, 1, "SAME")).numpy()
        return time.perf_counter() - began

    dtypes = (tf.float32, tf.bfloat16)
    turns = [[seconds(dtype) for dtype in dtypes] for _ in range(6)]  # the first is slower
    exact, rounded = (min(each) for each in zip(*turns[1:], strict=True))
    return exact / rounded


def bfloat16_here() -> str:
    """Return in words how fast bfloat16 is, as `1.9 times as fast as float32 here (...)`."""
    known = {True: "in hardware", False: "not in hardware", None: "hardware not known"}
    speed = speed_of_bfloat16()
    ratio = f"{speed:.1f} times as fast as" if speed >= 1 else f"{1 / speed:.1f} times slower than"
    return f"{ratio} float32 here ({device()}, {known[has_bfloat16()]}, by one convolution)"


@functools.cache
def strategy(name: str) -> Any:
    """Return how training is distributed: a `tf.distribute.Strategy`, always the same.

    Args:
        name: `none`: on one device; `mirrored`: on all GPUs, or where there is none on the logical
            CPUs that this process was given.

    Raises:
        UsageError: `mirrored` where there is one device.
    """
    if name == "none":
        return tf.distribute.get_strategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        raise checks.UsageError(
            f"training.strategy={name} needs two or more GPUs. Received: a machine with "
            f"{device()} and no more. Set training.strategy: none."
        )
    return tf.distribute.MirroredStrategy([each.name for each in devices])


def make_repeatable(jit: str = "auto") -> None:
    """Let the same run give the same weights; on a CPU only, where it costs nothing.

    Keras would leave out XLA beside TensorFlow's own deterministic operations; what XLA compiles
    for a CPU repeats by itself.
    """
    if accelerators():
        return
    if jit == "on":
        disable_op_determinism()
    else:
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


def threads() -> int:
    """Return the threads that one operation is spread over; on a CPU, bits may depend on it."""
    set_to = tf.config.threading.get_intra_op_parallelism_threads()
    return set_to or len(os.sched_getaffinity(0))


def use_threads(count: int) -> None:
    """Spread operations over `count` threads, unless TensorFlow has begun to compute.

    Also so many operations are done at the same time, at least 2; no bit depends on that.
    """
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(max(count, 2))


def environment() -> dict[str, str | int | bool]:
    """Return what the bits of a result follow from beside configuration, images and versions.

    Returns:
        `python`, `platform`, `threads`, `code` (SHA-256 of this package's source files) and, where
        the package lies in a Git checkout, `revision` and whether its files were `changed` since.
    """
    about = {"python": platform.python_version(), "platform": platform.platform()}
    return {**about, "threads": threads(), **_code()}


@functools.cache
def _code() -> dict[str, str | bool]:
    package = Path(__file__).parents[1]
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        found.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return {"code": found.hexdigest(), **_revision(package)}


def _revision(package: Path) -> dict[str, str | bool]:
    if not (package.parent / ".git").exists():
        return {}
    git = ["git", "-C", str(package)]
    try:
        revision, changes = (
            subprocess.run([*git, *command], capture_output=True, text=True, check=True).stdout
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--", "."])
        )
    except (OSError, subprocess.CalledProcessError):  # no Git here, or it trusts not this folder
        return {}
    return {"revision": revision.strip(), "changed": bool(changes.strip())}


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
