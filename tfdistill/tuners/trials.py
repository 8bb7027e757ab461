"""Trials of a search: the runs that a trial's values become, and how many there are to be."""

import dataclasses
import math

from tfdistill.config import RunConfig, StudyConfig
from tfdistill.training import runner
from tfdistill.tuners import search_spaces
from tfdistill.utils import checks
from tfdistill.utils.text import setting


def check(config: StudyConfig) -> None:
    """Raise at a search space that cannot be tried, or that would change the teachers."""
    search_spaces.check(config)
    for key, values in config.sweep.space.items():
        value = values[0] if isinstance(values, list) else values["min"]
        other = values[-1] if isinstance(values, list) else values["max"]
        for tried in (value, other):
            if teachers(search_spaces.with_values(config, {key: tried})) != teachers(config):
                raise checks.UsageError(
                    f"sweep.space: {key} would change the teacher from trial to trial. Received: "
                    f"{key}={tried!r}. Search student.*, student_training.* or distillation.*, or "
                    "give teacher_data."
                )


def teachers(config: StudyConfig) -> list[RunConfig]:
    """Return the runs that must be finished before a student of this study can be taught.

    Raises:
        UsageError: The study has no taught student.
    """
    runs = runner.plan(config)
    needed = runner.with_needs(runs, set(_template(runs).teachers))
    return [run for run in runs if run.name in needed]


def trial_run(config: StudyConfig, values: dict[str, object], name: str, seed: int) -> RunConfig:
    """Return the run of one trial and seed.

    Args:
        config: The study.
        values: The trial's values by dotted key.
        name: The trial's name.
        seed: The seed.
    """
    changed = search_spaces.with_values(config, values)
    template = _template(runner.plan(changed))
    return dataclasses.replace(template, name=f"{name}-s{seed}", row=_row(values), seed=seed)


def _template(runs: list[RunConfig]) -> RunConfig:
    taught = [run for run in runs if run.teachers]
    if not taught:
        raise checks.UsageError(
            "A search needs a study with a taught student. Received: one without a teacher. Set "
            "teacher."
        )
    return taught[0]


def first(config: StudyConfig) -> RunConfig:
    """Return the run of the first trial, to look at what all have in common."""
    values = {
        key: values[0] if isinstance(values, list) else values["min"]
        for key, values in config.sweep.space.items()
    }
    return trial_run(config, values, "trial-0", config.seeds[0])


def count(config: StudyConfig) -> int:
    """Return the number of trials; 0 where Hyperband decides."""
    sweep = config.sweep
    if sweep.tuner == "grid":
        return math.prod(map(_points, sweep.space.values()))
    return 0 if sweep.tuner == "hyperband" else sweep.trials


def names(config: StudyConfig) -> list[str]:
    """Return the names of all runs of the trials, as far as they are known beforehand."""
    total = count(config)
    digits = len(str(config.sweep.trials)) if config.sweep.tuner != "grid" else 4
    return [f"trial-{i:0{digits}d}-s{seed}" for i in range(total) for seed in config.seeds]


def _row(values: dict[str, object]) -> str:
    parts = (f"{key.rpartition('.')[2]} {setting(value)}" for key, value in values.items())
    return ", ".join(parts)


def _points(values: list | dict) -> int:
    if isinstance(values, list):
        return len(values)
    return int((values["max"] - values["min"]) / values["step"] + 1e-9) + 1
