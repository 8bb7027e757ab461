"""How good is one network, trained on labels or taught by another?

The plain use of the library from the command line: for every seed one network, and with a teacher
one student of it beside one trained alone. Cost: two trainings a seed, and the teacher's unless it
is a saved model. Command: tfdistill train CONFIG.
"""

import dataclasses
from collections.abc import Sequence

from tfdistill.config import RunConfig, StudyConfig
from tfdistill.records import Record, Table, by_row, spread

TITLE = "One network"
QUESTION = "How good is one network, trained on labels or taught by another?"

SOURCE = "the plain use of the library"
COMMANDS = {"tfdistill train CONFIG": "two trainings a seed, and the teacher's"}
PUBLISHED: dict[str, float] = {}

TEACHER, ALONE, DISTILLED = "teacher", "student alone", "distilled from the teacher"


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the student's runs, after the teacher's where there is one."""
    alone = [_network(config, seed) for seed in config.seeds]
    if config.teacher is None:
        return alone
    seed = config.seeds[0]
    teacher = dataclasses.replace(
        alone[0],
        name="teacher",
        row=TEACHER,
        seed=seed + 1000,
        data=config.teacher_data or config.data,
        model=config.teacher,
        training=config.training,
        trained=config.teacher.name != "saved",
    )
    distilled = [
        dataclasses.replace(
            run,
            name=f"distilled-{run.seed}",
            row=DISTILLED,
            teachers=(teacher.name,),
            distillation=config.distillation,
            cache=config.cache,
        )
        for run in alone
    ]
    return [teacher, *alone, *distilled]


def tables(records: Sequence[Record]) -> list[Table]:
    """Return one table: accuracy and calibration of every kind of network."""
    lines = []
    for row, members in by_row(records).items():
        best, last = (spread(members, "test_accuracy", part) for part in ("best", "last"))
        error, fidelity = spread(members, "test_ece"), spread(members, "test_agreement")
        cells = (value.text() if value else "–" for value in (best, last, error, fidelity))
        lines.append((row, str(len(members)), *cells))
    columns = ("", "runs", "best epoch", "last epoch", "ECE %", "agreement %")
    note = "Test accuracy in percent, mean ± standard deviation over seeds."
    return [Table("Test accuracy", columns, tuple(lines), note)]


def _network(config: StudyConfig, seed: int) -> RunConfig:
    return RunConfig(
        name=f"alone-{seed}",
        row=ALONE,
        seed=seed,
        data=config.data,
        model=config.student or config.teacher,
        training=config.student_training or config.training,
    )
