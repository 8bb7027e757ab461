"""Hashes that tell whether a network is still the same: of its weights, and of what it computes."""

import hashlib
import json
import re
from typing import Any

import keras
import numpy as np


def weights_hash(network: keras.Model) -> str:
    """Return the SHA-256 of all weights of a network.

    Example:
        >>> weights_hash(teacher)[:8]
        '5f1c0b7e'
    """
    digest = hashlib.sha256()
    for variable in network.weights:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()


def architecture_hash(network: keras.Model, initializers: bool = False) -> str:
    """Return the SHA-256 of a network's configuration.

    Names that Keras made up (`conv2d_3`) are renumbered in their order, so building a network
    twice in one process gives equal hashes. What a network was compiled with and its weights'
    initializers are left out: they do not change what it computes. A network without a
    configuration is known by its class and the shapes of its weights.

    Args:
        network: A Keras model.
        initializers: Count them in: what training begins with depends on them.

    Example:
        >>> architecture_hash(build(config, ...)) == architecture_hash(build(config, ...))
        True
    """
    try:
        config = keras.saving.serialize_keras_object(network)
    except (NotImplementedError, TypeError):
        shapes = [list(variable.shape) for variable in network.weights]
        config = {"class_name": type(network).__qualname__, "weights": shapes}
    config = _counting(config, initializers)
    names: dict[str, str] = {}
    _number_names(config, names)
    text = json.dumps(_renamed(config, names), sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def given_name(network: keras.Model) -> str:
    """Return a network's name, without the number that Keras puts after a name of its own."""
    own = _automatic(type(network).__name__)
    return own if re.fullmatch(rf"{own}(_\d+)?", network.name) else network.name


def _number_names(config: Any, names: dict[str, str]) -> None:
    """Give every automatic name in a configuration its class and its place among all of them."""
    if isinstance(config, dict):
        inner = config.get("config")
        name = inner.get("name") if isinstance(inner, dict) else None
        own = _automatic(str(config.get("class_name", "")))
        if isinstance(name, str) and own and re.fullmatch(rf"{own}(_\d+)?", name):
            names.setdefault(name, f"{own}#{len(names)}")
    for part in _parts(config):
        _number_names(part, names)


def _renamed(config: Any, names: dict[str, str]) -> Any:
    if isinstance(config, dict):
        return {key: _renamed(config[key], names) for key in config}
    if isinstance(config, (list, tuple)):
        return [_renamed(value, names) for value in config]
    return names.get(config, config) if isinstance(config, str) else config


def _parts(config: Any) -> list:
    if isinstance(config, dict):
        return list(config.values())
    return list(config) if isinstance(config, (list, tuple)) else []


def _counting(config: Any, initializers: bool) -> Any:
    """Return a configuration without what is left out of its hash."""
    if isinstance(config, dict):
        return {
            key: _counting(config[key], initializers)
            for key in config
            if key != "compile_config" and (initializers or not str(key).endswith("_initializer"))
        }
    if isinstance(config, (list, tuple)):
        return [_counting(value, initializers) for value in config]
    return config


def _automatic(class_name: str) -> str:
    """Return the name that Keras gives the first layer of a class."""
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", class_name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
