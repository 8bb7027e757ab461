"""Networks as they were built before strided convolutions were padded on both sides."""

import keras
from keras import layers

from tfdistill.models.blocks import classify, pixels


def resnet8(input_shape, classes, width=4, mean=0.0, std=1.0):
    """Return the network with `width` channels in its first stage and layers named by Keras."""
    inputs, x = pixels(input_shape, mean, std)
    x = layers.Activation("relu")(_norm(_conv(x, width, 3, 1)))
    for channels, name in ((width, "stage1"), (2 * width, "stage2"), (4 * width, "features")):
        stride = 1 if name == "stage1" else 2
        y = layers.Activation("relu")(_norm(_conv(x, channels, 3, stride)))
        y = _norm(_conv(y, channels, 3, 1))
        shortcut = x if name == "stage1" else _norm(_conv(x, channels, 1, stride))
        x = layers.Activation("relu", name=name)(layers.Add()([y, shortcut]))
    return classify(inputs, x, classes, "resnet8")


def one_convolution(input_shape, classes, mean=0.0, std=1.0):
    """Return the network of one strided convolution."""
    inputs, x = pixels(input_shape, mean, std)
    features = layers.Activation("relu", name="features")(_norm(_conv(x, 4, 3, 2)))
    return classify(inputs, features, classes, "changing")


def _conv(x, channels, size, stride):
    start = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
    return layers.Conv2D(
        channels, size, stride, padding="same", use_bias=False, kernel_initializer=start
    )(x)


def _norm(x):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
