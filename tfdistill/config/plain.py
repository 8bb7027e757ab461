"""Configurations as plain data: written, rebuilt, hashed."""

import dataclasses
import json

from tfdistill.config.building import build


def to_dict(config) -> dict:
    """Return a configuration as plain dictionaries, lists, numbers and strings."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def settings_of(cls, config):
    """Return a study's own settings, `config.settings`, as an instance of its dataclass.

    Args:
        cls: The dataclass; its fields may be dataclasses themselves, or lists of them.
        config: A `StudyConfig`, or a `RunConfig` of a kind with settings.

    Raises:
        UsageError: A key that `cls` does not have, or a value of another type.

    Example:
        >>> @dataclass(frozen=True)
        ... class Settings:
        ...     pairs: int = 20
        >>> settings_of(Settings, StudyConfig(settings={"pairs": 4})).pairs
        4
    """
    return build(cls, config.settings, "settings")
