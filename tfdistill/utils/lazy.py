"""Names of a package that are loaded when they are first used, so that importing it is quick."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, str], elsewhere: Mapping[str, str] | None = None
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: Its name.
        modules: The module that each name comes from.
        elsewhere: Names that users know from other packages, and what to take here instead.

    Example:
        >>> __getattr__, __dir__ = lazy_names(__name__, {"build": "tfdistill.teacher_cache.cache"})
    """

    def get(name: str) -> Any:
        if name not in modules:
            instead = (elsewhere or {}).get(name, "")
            raise AttributeError(f"module {package!r} has no attribute {name!r}{instead}")
        return getattr(importlib.import_module(modules[name]), name)

    def names() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *modules})

    return get, names
