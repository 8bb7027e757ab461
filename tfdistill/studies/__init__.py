"""Studies: each file a question; `runs(config)` lists its runs, `tables(records)` its answer.

A file in this folder is a study, by its name: there is nothing to register. Besides the two
functions it has TITLE, QUESTION, SOURCE, COMMANDS (command: cost in words) and PUBLISHED (row:
published test accuracy in 0..1), and where it needs them `Settings`, the dataclass of its own
settings, and `figures(records)`, a list of (title, SVG text, caption).
"""

import importlib
from types import ModuleType

_MODULES = {
    "alpha_temperature": "alpha_temperature",
    "assistants": "assistants",
    "channel_split": "channel_split.study",
    "distilled_ensembles": "distilled_ensembles",
    "learning_speed": "learning_speed.study",
    "loss_family": "loss_family.study",
    "multi_view": "multi_view.study",
    "mysteries": "mysteries",
    "patient_teacher": "patient_teacher.study",
    "saliency": "saliency.study",
    "single": "single",
}

STUDIES: dict[str, ModuleType] = {
    name: importlib.import_module(f"{__name__}.{module}") for name, module in _MODULES.items()
}
