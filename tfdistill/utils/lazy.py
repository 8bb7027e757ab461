"""Names of a package that are loaded when they are first used, so that importing it is quick."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: Its name.
        modules: The module that each name comes from.

    Example:
        >>> __getattr__, __dir__ = lazy_names(__name__, {"build": "tfdistill.teacher_cache.cache"})
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name]), name)

    def names() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *modules})

    return get, names
