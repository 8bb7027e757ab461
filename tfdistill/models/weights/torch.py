"""Weights that were trained with PyTorch, for our ResNets and Wide ResNets.

Layers of ours that have weights are named as the modules of the published networks: ResNets as in
torchvision and github.com/HobbitLong/RepDistiller, Wide ResNets as in
github.com/xternalz/WideResNet-pytorch. Only the last layer is `logits` here and `fc` there.
"""

import logging
import math
import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any, NoReturn

import keras
import numpy as np

from tfdistill.utils import checks

LOGGER = logging.getLogger("tfdistill")
_RESNET = r"(layer\d\.\d+\.)?(conv\d|bn\d)|layer\d\.\d+\.downsample\.\d|logits"
_WIDE = r"(block\d\.layer\.\d+\.)?(conv\d|bn\d)|block\d\.layer\.0\.convShortcut|logits"
# What else is usual: torch.nn.DataParallel's, and that of github.com/kuangliu/pytorch-cifar.
_RENAMED = ((r"^module\.", ""), (r"\.shortcut\.", ".downsample."), (r"^linear\.", "fc."))
# In the order of Keras's gamma, beta, moving mean and moving variance.
_OF_NORM = ("weight", "bias", "running_mean", "running_var")
_OF_OTHERS = ("weight", "bias")


def from_torch(network: keras.Model, state_dict: Mapping[str, np.ndarray]) -> None:
    """Give a ResNet or Wide ResNet the weights of the same network in PyTorch, in place.

    Known are the names of torchvision and RepDistiller (`layer2.0.conv1.weight`,
    `layer2.0.downsample.0.weight`, `fc.bias`), of pytorch-cifar (`shortcut`, `linear`) and, for
    Wide ResNets, of xternalz (`block2.layer.0.conv1.weight`, `block2.layer.0.convShortcut.weight`).
    A ResNet's weights of other names are taken in their order if all kinds and shapes fit, and the
    log says so. No weight shows where a stride or a ReLU stands, so compare some logits then.

    The network takes pixels 0..255 and normalises them: build it with 255 times the mean and the
    standard deviation that the images had in PyTorch.

    Args:
        network: A ResNet or Wide ResNet of `build`, with the classes that it was trained on.
        state_dict: `{name: tensor.cpu().numpy()}` of a module's `state_dict()`, in its order.

    Raises:
        UsageError: A network of another kind, or the first weight that is missing, left over, of
            another shape or not finite; the network then keeps all the weights that it had.

    Example:
        >>> mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # torchvision's, x 255
        >>> network = build(ModelConfig("resnet18-imagenet"), (224, 224, 3), 1000, mean, std)
        >>> from_torch(network, state_dict)
    """
    variables = _variables(network)
    arrays = _arrays(network, state_dict)
    wide = any(name.startswith("block") for name in variables)
    by_name = 2 * sum(name in arrays for name in variables) >= len(variables)
    # Wide ResNets of other names differ in where they have stride and shortcut, at equal shapes.
    pairs = _by_name(variables, arrays) if by_name or wide else _in_order(variables, arrays)
    for name, source in pairs:
        _check(network, name, variables.get(name or ""), source, arrays.get(source or ""))
    if not (by_name or wide):
        LOGGER.warning(
            "The weights for %s have names of no known network; they are taken in their order, "
            "which fits all shapes. Compare some logits with PyTorch's.",
            network.name,
        )
    for name, source in pairs:
        variables[name].assign(_to_keras(arrays[source]))


def _variables(network: keras.Model) -> dict[str, Any]:
    """Return the variables of a network by their names in PyTorch, of a ResNet in its order."""
    layers = [layer for layer in getattr(network, "layers", ()) if layer.weights]
    names = [layer.name for layer in layers]
    if not {"conv1", "logits"} <= {*names} or not any(
        all(re.fullmatch(pattern, name) for name in names) for pattern in (_RESNET, _WIDE)
    ):
        raise checks.UsageError(
            "from_torch fills ResNets and Wide ResNets that this version of tfdistill.models "
            f"builds. Received: {getattr(network, 'name', type(network).__name__)}."
        )
    found = {}
    for layer in sorted(layers, key=lambda layer: _place(layer.name)):
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        module = "fc" if layer.name == "logits" else layer.name
        for name, variable in zip(_OF_NORM if is_norm else _OF_OTHERS, layer.weights, strict=False):
            found[f"{module}.{name}"] = variable
    return found


def _place(name: str) -> tuple:
    """Return what sorts the layers: the stem, the blocks, each with its shortcut last, logits."""
    if name == "logits":
        return (math.inf,)
    block = re.match(r"(?:layer|block)(\d)\.(?:layer\.)?(\d+)\.", name)
    stage, index = map(int, block.groups()) if block else (0, 0)
    part = name[block.end() :] if block else name
    return stage, index, part.startswith("downsample"), part[-1], part.startswith("bn")


def _arrays(network: keras.Model, state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays of a state dict, by names that are ours where they are known."""
    if not isinstance(state_dict, Mapping):
        checks.of_type("state_dict", state_dict, "a dictionary of arrays")
    found: dict[str, np.ndarray] = {}
    for original, value in state_dict.items():
        name = str(original)
        for pattern, ours in _RENAMED:
            name = re.sub(pattern, ours, name)
        if name.endswith(".num_batches_tracked"):
            continue  # of no use with a fixed momentum
        if name in found:
            _refuse(network, f"{original} is there twice")
        try:
            found[name] = np.asarray(value)
        except Exception:  # PyTorch raises its own kinds: on another device, with a gradient
            _refuse(network, f"{original} is no NumPy array")
    return found


def _by_name(variables: dict, arrays: dict) -> list[tuple]:
    """Return pairs of names; what is left over is paired with None."""
    left = [(None, name) for name in arrays if name not in variables]
    return [(name, name if name in arrays else None) for name in variables] + left


def _in_order(variables: dict, arrays: dict) -> list[tuple]:
    return list(zip_longest(variables, arrays))


def _check(
    network: keras.Model, name: str | None, variable: Any, source: str | None, array: Any
) -> None:
    if name is None:
        _refuse(network, f"{source} is no part of it")
    if source is None:
        _refuse(network, f"{name} is missing")
    wanted = _in_torch(tuple(variable.shape))
    same_kind = name.rpartition(".")[2] == source.rpartition(".")[2]
    if array.shape != wanted or not same_kind:
        what = source if name == source else f"{source}, in the place of {name},"
        _refuse(network, f"{what} has the shape {array.shape}, expected {wanted}")
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        _refuse(network, f"{source} ({array.dtype}) is not of finite floating-point numbers")


def _in_torch(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that a weight of ours has in PyTorch: the outputs first."""
    return shape[::-1] if len(shape) < 4 else (*shape[:1:-1], *shape[:2])


def _to_keras(array: np.ndarray) -> np.ndarray:
    return array.T if array.ndim < 4 else array.transpose(2, 3, 1, 0)


def _refuse(network: keras.Model, what: str) -> NoReturn:
    raise checks.UsageError(
        f"The state dict does not fit {network.name}: {what}. Give the state_dict() of the same "
        "network with as many classes, its tensors as NumPy arrays."
    )
