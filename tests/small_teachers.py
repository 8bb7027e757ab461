"""Small teachers and images, for the tests of teacher caches."""

import dataclasses

import keras
import numpy as np

from tfdistill.config import AugmentConfig, CacheConfig
from tfdistill.data import Dataset, Examples, pipeline
from tfdistill.teacher_cache import Teacher

CLASSES, COUNT, BATCH = 5, 44, 8
CROPPED = AugmentConfig(pad_crop=2, flip=True, views=2, view_seed=3)
FULL, HALF = CacheConfig(), CacheConfig(dtype="float16")
TOP = CacheConfig(top_k=2, temperatures=[1.0, 4.0])
ROUNDED = CacheConfig(precision="bfloat16")


def network(seed: int, scale: float = 1.0, classes: int = CLASSES):
    """A small convolutional network of large logits, the same in every process."""
    layers = keras.layers
    start = keras.initializers.GlorotUniform(seed)
    last = keras.initializers.VarianceScaling(scale, seed=seed)
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 40)(inputs)
    x = layers.Conv2D(4, 3, activation="relu", kernel_initializer=start)(x)
    x = layers.BatchNormalization()(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(classes, kernel_initializer=last)(x))


def dataset(count: int = COUNT) -> Dataset:
    """Random images, the ids of the training ones with gaps and in no order."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int32) % CLASSES
    examples = Examples(pixels, labels, 2 * random.permutation(count) + 1)
    return Dataset("random", tuple("abcde"), examples, examples, examples, (0.0,), (1.0,))


def settings(change: AugmentConfig = CROPPED) -> pipeline.BatchSettings:
    return pipeline.BatchSettings(BATCH, seed=9, augment=change, num_classes=CLASSES)


class Counting:
    """A teacher's `load` that counts its calls."""

    def __init__(self, seed: int):
        self.network = network(seed)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.network

    def teacher(self, name: str) -> Teacher:
        return dataclasses.replace(Teacher.of(self.network, name), load=self)
