"""Studies: each file a question; `runs(config)` lists its runs, `tables(records)` its answer.

A file in this folder is a study, by its name: there is nothing to register. Besides the two
functions it has TITLE, QUESTION, SOURCE, COMMANDS (command: cost in words) and PUBLISHED (row:
published test accuracy in 0..1), and where it needs them `Settings`, the dataclass of its own
settings, and `figures(records)`, a list of (title, SVG text, caption).
"""

import importlib
import pkgutil
from types import ModuleType

STUDIES: dict[str, ModuleType] = {
    name: importlib.import_module(f"{__name__}.{name}")
    for _, name, _ in pkgutil.iter_modules(__path__)
}
