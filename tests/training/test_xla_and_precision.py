"""XLA and half precision train, store and export what float32 without XLA does, within tolerance.

Tolerances are absolute, of weights and logits around 1: float32 has 7 digits, added by XLA in
another order, float16 three to four, bfloat16 two to three.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.small_teachers import network, settings
from tfdistill import Distiller
from tfdistill.distillation.population import Population
from tfdistill.export import exporter, saved_model
from tfdistill.teacher_cache import Teacher, build

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("with_xla")]

pytest_plugins = ["tests.stored_logits"]
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MODES = {
    "XLA": (True, "float32", 1e-4),
    "bfloat16": (False, "mixed_bfloat16", 3e-2),
    "XLA with float16": (True, "mixed_float16", 3e-3),
}


@pytest.fixture(params=MODES.values(), ids=list(MODES))
def mode(request):
    return request.param


def trained(small_network, images, jit, precision, together):
    """Return a student after six steps: logits [24, 3], weights, and the network itself."""
    keras.utils.set_random_seed(3)
    dtype = None if precision == "float32" else precision
    teacher = small_network(6)
    members = [
        Distiller(small_network(dtype=dtype), teacher, alpha=0.7, temperature=2.0)
        for _ in range(2 if together else 1)
    ]
    for member in members:
        member.compile(keras.optimizers.SGD(0.1), HARD, jit_compile=jit)
    model = members[0]
    if together:
        model = Population(members)
        model.compile(jit_compile=jit)
    x, y = images
    model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    assert model.jit_compile == jit
    student = members[-1].student
    return student, keras.ops.convert_to_numpy(student(x)), student.get_weights()


@pytest.fixture(scope="module")
def plain():
    return {}


@pytest.mark.parametrize("together", [False, True], ids=["Distiller", "Population"])
def test_students_are_trained_and_exported_alike(
    small_network, images, mode, together, plain, tmp_path
):
    jit, precision, tolerance = mode
    if together not in plain:
        plain[together] = trained(small_network, images, False, "float32", together)[1:]
    logits, weights = plain[together]
    student, found, found_weights = trained(small_network, images, jit, precision, together)
    np.testing.assert_allclose(found, logits, rtol=0, atol=tolerance)
    for one, other in zip(found_weights, weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)
    if not together:
        pixels = np.random.default_rng(0).integers(0, 2, (4, 8, 8, 1), dtype=np.uint8)
        whole = exporter.in_float32(student)
        saved_model.write(whole, tmp_path / "export", (8, 8, 1), ["a", "b", "c"])
        answer = tf.saved_model.load(tmp_path / "export").signatures["serving_default"]
        outputs = answer(image=tf.constant(pixels))["logits"]
        np.testing.assert_allclose(
            outputs, student(pixels.astype("float32")), rtol=0, atol=tolerance
        )


def test_logits_are_stored_alike(mode, pictures, finished, tmp_path):
    from tfdistill.teacher_cache import open_cache

    jit, precision, tolerance = mode
    keras.config.set_dtype_policy(precision)
    try:
        teacher = Teacher.of(network(1), "one")
    finally:
        keras.config.set_dtype_policy("float32")
    stored = build(tmp_path, [teacher], pictures, settings(), jit="on" if jit else "off")
    expected = open_cache(finished).logits(members=["one"])[1, pictures.train.ids]
    found = stored.logits()[1, pictures.train.ids]
    assert found.dtype == np.float32
    size = np.abs(expected).max()
    np.testing.assert_allclose(found / size, expected / size, rtol=0, atol=tolerance)
