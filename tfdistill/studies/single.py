"""How good is one network, trained on labels or taught by another?

The plain use of the library from the command line: for every seed one network, and with a teacher
one student of it beside one trained alone. Cost: two trainings a seed, and the teacher's unless it
is a saved model. Command: tfdistill train CONFIG.
"""

from collections.abc import Sequence

from tfdistill.config import RunConfig, StudyConfig
from tfdistill.records import Record, Table, by_row
from tfdistill.studies import common
from tfdistill.studies.common import ALONE

TITLE = "One network"
QUESTION = "How good is one network, trained on labels or taught by another?"

SOURCE = "the plain use of the library"
COMMANDS = {"tfdistill train CONFIG": "two trainings a seed, and the teacher's"}
PUBLISHED: dict[str, float] = {}

DISTILLED = "distilled from the teacher"


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the student's runs, after the teacher's where there is one."""
    alone = [common.student(config, f"alone-{seed}", ALONE, seed) for seed in config.seeds]
    if config.teacher is None:
        return alone
    distilled = [
        common.taught(config, run, "teacher", name=f"distilled-{run.seed}", row=DISTILLED)
        for run in alone
    ]
    return [common.teacher(config), *alone, *distilled]


def tables(records: Sequence[Record]) -> list[Table]:
    """Return one table: accuracy and calibration of every kind of network."""
    lines = tuple(
        (
            row,
            *common.accuracy_cells(members),
            common.figure_cell(members, "test_ece"),
            common.figure_cell(members, "test_agreement"),
        )
        for row, members in by_row(records).items()
    )
    columns = ("", "runs", "best epoch", "last epoch", "ECE %", "agreement %")
    note = "Test accuracy in percent, mean ± standard deviation over seeds."
    return [Table("Test accuracy", columns, lines, note)]
