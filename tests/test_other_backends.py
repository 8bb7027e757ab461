"""Losses, Distiller and Ensemble on Keras's other backends: the figures of TensorFlow."""

import importlib.util
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from tests import other_backend

pytestmark = pytest.mark.slow
# On the CPU, and compiled by JAX without the passes that take longer than what they make quick.
PASSES = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
QUICK = {"CUDA_VISIBLE_DEVICES": "", "XLA_FLAGS": PASSES}


@pytest.fixture(scope="module", params=["jax", "torch"])
def other(request):
    """What another backend finds, in a process of its own."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed here")
    done = subprocess.run(
        [sys.executable, "-m", "tests.other_backend"],
        env={**os.environ, "KERAS_BACKEND": request.param, **QUICK},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, json.loads(done.stdout.splitlines()[-1])


@pytest.mark.usefixtures("eagerly")
def test_losses_and_trainings_have_the_figures_of_tensorflow(other):
    _, found = other
    expected = other_backend.figures()
    assert found["figures"].keys() == expected.keys()
    paths = dict(keras.tree.flatten_with_path(expected))
    others = dict(keras.tree.flatten_with_path(found["figures"]))
    assert paths.keys() == others.keys()
    for path, value in paths.items():
        np.testing.assert_allclose(others[path], value, rtol=1e-4, atol=1e-6, err_msg=str(path))


def test_what_was_saved_is_what_is_loaded(other):
    *_, (distiller, student, loaded, loaded_student) = other[1]["figures"]["saved"]
    np.testing.assert_allclose(loaded, distiller, rtol=1e-6)
    np.testing.assert_allclose(loaded_student, student, rtol=1e-6)


def test_what_needs_tensorflow_says_so_in_one_line(other):
    backend, found = other
    for name, text in found["refusals"].items():
        assert "\n" not in text
        if name == "warm-up":
            assert backend != "jax" or "Use LossWeightSchedule" in text
        else:
            assert f"needs Keras on TensorFlow. Received: the backend '{backend}'" in text, name
