"""How good is one network, trained on labels or taught by another?

The plain use of the library from the command line: for every seed one network, and with a teacher
one student of it beside one trained alone. Cost: two trainings a seed, and the teacher's unless it
is a saved model. Command: tfdistill train CONFIG.
"""

from collections.abc import Sequence

from tfdistill.config import RunConfig, StudyConfig
from tfdistill.records import Record, Table, by_row
from tfdistill.reporting.significance import Family, compare_networks, paired_runs
from tfdistill.studies import common
from tfdistill.studies.common import ALONE, INTERVAL

TITLE = "One network"
QUESTION = "How good is one network, trained on labels or taught by another?"

SEVERAL_LABELS = True
SOURCE = "the plain use of the library"
COMMANDS = {"tfdistill train CONFIG": "two trainings a seed, and the teacher's"}
PUBLISHED: dict[str, float] = {}
PUBLISHED_ON: tuple[str, ...] = ()

DISTILLED = "distilled from the teacher"
NAMES = {DISTILLED: "the student"}


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


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return the student against the same network alone; of one seed, on the same test images."""
    rows = by_row(records)
    alone, taught = rows.get(ALONE, []), rows.get(DISTILLED, [])
    words = "the same network alone"
    several = paired_runs(alone, DISTILLED, taught, words)
    same = alone and taught and alone[0].seed == taught[0].seed
    one = compare_networks(alone[0], {DISTILLED: taught[0]}, words) if same else None
    return common.compared(several or one)


def tables(records: Sequence[Record]) -> list[Table]:
    """Return one table: accuracy and calibration of every kind of network."""
    rows = by_row(records)
    family = next(iter(comparisons(records)), None)
    quality = common.quality(records)
    lines = tuple(
        (
            row,
            *common.accuracy_cells(members),
            common.interval_cell(
                family, row, members, rows.get(ALONE, []) if row == DISTILLED else []
            ),
            *(common.figure_cell(members, figure) for figure in quality.values()),
            common.figure_cell(members, "test_agreement"),
        )
        for row, members in rows.items()
    )
    columns = ("", "runs", "best epoch", "last epoch", INTERVAL, *quality, "agreement %")
    one = family and family.seeds == 1
    test = "McNemar's exact test on the test images" if one else "a paired t-test over the seeds"
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds. Gain in points, over the "
        f"same network alone, with the interval of {test}."
    )
    if any(record.multi_label for record in records):
        note += f" {common.SEVERAL_LABELS_NOTE}"
    return [Table("Test accuracy", columns, lines, note)]
