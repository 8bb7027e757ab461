"""The format of what a study writes: its number, and how files of earlier formats are read.

A study's `config.yaml` and its records carry the number. A file without one is of format 1. Where
a key is renamed, moved or removed, `FORMAT` is raised and `_STEPS` gets the function that brings a
configuration of the format before to it; a new key with a default needs neither.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfdistill.config.building import build, to_dict
from tfdistill.config.study import RunConfig
from tfdistill.utils import checks, storage

KEY = "format"
FORMAT = 2


def _mistakes_of_one_study(config: Any) -> Any:
    """Return a configuration of format 1 as one of format 2.

    Published mistakes that one study rebuilds, `dropout_in_evaluation` of every network and a
    `divergence` named `kl_of_log`, have become a network and a loss. Networks and distillations may
    stand anywhere, also in a study's own settings.
    """
    if isinstance(config, list):
        return [_mistakes_of_one_study(part) for part in config]
    if not isinstance(config, dict):
        return config
    config = {key: _mistakes_of_one_study(part) for key, part in config.items()}
    if config.pop("dropout_in_evaluation", False):
        config["name"] = f"{config.get('name', 'cnn2')}-dropout-in-evaluation"
    if config.get("divergence") == "kl_of_log":
        config["divergence"] = "kl"
        if config.get("loss", "soft_targets") == "soft_targets":  # others know no divergence
            config["loss"] = "kl_of_log"
    return config


# Keys that came after hashes of configurations had been stored, by the part in which they stand,
# and what they are where unused.
_LATER: dict[str, dict[str, Any]] = {
    "model": {"pixel_range": [0.0, 255.0]},
    "": {"prune": None, "quantize": None},
    "training": {"ema": None, "strategy": "none"},
    "data": {"storage": "auto", "workers": None},
    "augment": {"erasing": 0.0, "cutmix": 0.0},
    "cache": {"precision": "float32"},
}

# From each format to the next; of a study's configuration as of a run's.
_STEPS: dict[int, Callable[[Any], Any]] = {1: _mistakes_of_one_study}


def number(path: Path, values: dict[str, Any]) -> int:
    """Return the format of a file's values and take its key out of them.

    Raises:
        LaterError: A later version of this package wrote it.
        DamagedError: It is no number of a format.
    """
    found = values.pop(KEY, 1)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise storage.DamagedError(path, f"is damaged (its {KEY} is {checks.shown(found)})")
    if found > FORMAT:
        raise storage.LaterError(path, f"{KEY} {found}, and this version reads up to {FORMAT}")
    return found


def hashed(config: Any, part: str = "") -> Any:
    """Return what of a configuration's plain values its hash is of.

    Keys that came later count only where they are used, so that a hash stays what it was.

    Args:
        config: Of a run, or a part of that.
        part: Which one.

    Example:
        >>> hashed({"cache": {"dtype": "float16", "precision": "float32"}})
        {'cache': {'dtype': 'float16'}}
    """
    if isinstance(config, list):
        return [hashed(each, part) for each in config]
    if not isinstance(config, dict):
        return config
    unused = _LATER.get(part, {})
    return {
        key: hashed(value, key)
        for key, value in config.items()
        if key not in unused or value != unused[key]
    }


def current(config: Any, written: int) -> Any:
    """Return a configuration that was written in the format `written` as this version has it."""
    for step in range(written, FORMAT):
        config = _STEPS[step](config)
    return config


def current_run(config: Any, written: int) -> dict[str, Any]:
    """Return a run's configuration as this version writes it, with the defaults of newer keys.

    Raises:
        UsageError: It is none.
    """
    return to_dict(build(RunConfig, current(config, written), "config"))
