"""A distiller under a distribution strategy: two logical devices train as one does."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.forked import Forked
from tfdistill import Distiller, FeatureLoss
from tfdistill.losses import AttentionTransfer

pytestmark = pytest.mark.slow


def network(seed):
    start = keras.initializers.GlorotUniform(seed)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(
        4,
        3,
        activation="relu",
        kernel_initializer=start,
        kernel_regularizer=keras.regularizers.L2(0.1),
        name="features",
    )(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3, kernel_initializer=start)(x))


def trained(strategy):
    """Return losses and weights of a student after two epochs of the same batches."""
    random = np.random.default_rng(0)
    x = random.normal(size=(24, 8, 8, 1)).astype("float32")
    y = np.arange(24, dtype="int32") % 3
    with strategy.scope():
        feature = FeatureLoss(AttentionTransfer(), weight=0.1)
        settings = {"alpha": 0.7, "temperature": 2.0, "features": [feature]}
        distiller = Distiller(network(1), network(2), **settings)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        distiller.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    history = distiller.fit(batches, epochs=2, verbose=0, validation_data=(x, y)).history
    return history, distiller.student.get_weights()


def compare():
    """Train on two devices and on one."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    both = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert both.num_replicas_in_sync == 2
    history, weights = trained(both)
    expected, alone = trained(tf.distribute.get_strategy())
    for one, other in zip(weights, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert (
        history.keys()
        == expected.keys()
        >= {"soft_loss", "hard_loss", "feature_loss", "val_accuracy"}
    )
    for name in expected:
        np.testing.assert_allclose(history[name], expected[name], rtol=1e-4, err_msg=name)


def test_two_logical_devices_train_as_one():
    process = Forked(compare)
    _, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]
