"""Does a student learn more from an assistant between it and its teacher, or from a warm start?

Source: Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant" (arXiv 1902.03393):
a network of a size between teaches the student after it was taught by the teacher. Expected there:
the student taught by the assistant above the one taught by the teacher. Its code
(github imirzadeh/Teacher-Assistant-Knowledge-Distillation) chooses epoch, alpha and temperature by
the test images; here validation images choose the epoch and the settings are fixed. The warm start
is a student that was trained alone and is then taught by the teacher; its control starts from the
same weights and goes on with labels for as long, so that its gain is not that of a longer training.
Cost: six trainings a seed, one of them the assistant's, and the teacher's. Command: tfdistill run
configs/assistants/{small,full}.yaml.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tfdistill.config import ModelConfig, RunConfig, StudyConfig, settings_of
from tfdistill.records import Record, Table, by_row
from tfdistill.reporting.significance import Family
from tfdistill.studies import common
from tfdistill.studies.common import ALONE, TEACHER

ASSISTANT, TAUGHT = "assistant, taught by the teacher", "student taught by the teacher"
ASSISTED = "student taught by the assistant"
CONTINUED = "warm start, labels go on"
WARM = "warm start, then taught by the teacher"
ROWS = (TEACHER, ASSISTANT, ALONE, TAUGHT, ASSISTED, CONTINUED, WARM)

TITLE = "Assistants and warm starts"
QUESTION = (
    "Does a student learn more from an assistant of a size between, or from the teacher after it "
    "was trained alone?"
)

SOURCE = "Mirzadeh et al. 2019 (arXiv 1902.03393), table 1: ResNet-110, 20 and 8 on CIFAR-10"
COMMANDS = {
    "tfdistill run configs/assistants/small.yaml": "20 minutes on two cores",
    "tfdistill run configs/assistants/full.yaml": "a day of one GPU",
}
PUBLISHED_ON: tuple[str, ...] = ()
PUBLISHED: dict[str, float] = {}  # the paper's table was not at hand

# What is compared: (in words, row, the row that it is compared with).
COMPARISONS = (
    ("the teacher for labels", TAUGHT, ALONE),
    ("the assistant for the teacher", ASSISTED, TAUGHT),
    ("labels for twice as long", CONTINUED, ALONE),
    ("after a warm start: the teacher for labels", WARM, CONTINUED),
    ("taught by the teacher: a warm start for new weights", WARM, TAUGHT),
)


@dataclass(frozen=True)
class Settings:
    """The assistant of the study.

    Args:
        assistant: A network of a size between teacher and student, trained as the students are.
    """

    assistant: ModelConfig = field(default_factory=ModelConfig)


def runs(config: StudyConfig) -> list[RunConfig]:
    """Return the study's runs, each after those that it depends on.

    Each seed has an assistant of its own, and all its students have the same order of images; those
    that do not start warm have the same initial weights.

    Raises:
        UsageError: There is no teacher.
    """
    common.check_teacher(config)
    common.check_unused(config, "self_distillation")
    assistant, seeds = settings_of(Settings, config).assistant, config.seeds

    def student(row: str, name: str, seed: int, **other) -> RunConfig:
        return common.student(config, f"{name}-{seed}", row, seed, **other)

    def taught(row: str, name: str, seed: int, teacher: str = "teacher", **other) -> RunConfig:
        return common.taught(config, student(row, name, seed, **other), teacher)

    return [
        common.teacher(config),
        *(taught(ASSISTANT, "assistant", seed, model=assistant) for seed in seeds),
        *(student(ALONE, "alone", seed) for seed in seeds),
        *(student(CONTINUED, "continued", seed, start=f"alone-{seed}") for seed in seeds),
        *(taught(TAUGHT, "taught", seed) for seed in seeds),
        *(taught(ASSISTED, "assisted", seed, f"assistant-{seed}") for seed in seeds),
        *(taught(WARM, "warm", seed, start=f"alone-{seed}") for seed in seeds),
    ]


def comparisons(records: Sequence[Record]) -> list[Family]:
    """Return each line of `COMPARISONS` as a family of its own."""
    return common.paired_rows(by_row(records), COMPARISONS)


def tables(records: Sequence[Record]) -> list[Table]:
    """Return the accuracy of every row, and the comparisons."""
    rows = by_row(records)
    return [_accuracy_table(rows), common.pairs_table("What helps", comparisons(records))]


def _accuracy_table(rows: dict[str, list[Record]]) -> Table:
    alone = rows.get(ALONE, [])
    lines = tuple(
        (
            row,
            f"{rows[row][0].parameters:,}",
            *common.accuracy_cells(rows[row]),
            common.gain_cell(rows[row], [] if row in (TEACHER, ASSISTANT, ALONE) else alone),
            common.figure_cell(rows[row], "test_agreement"),
        )
        for row in ROWS
        if row in rows
    )
    columns = ("", "parameters", "runs", "best epoch", "last epoch", "gain", "agreement %")
    note = (
        "Test accuracy in percent, mean ± standard deviation over seeds. Gain in points, over the "
        "student alone. Agreement: share of test images where a network and the one that taught it "
        "name the same class. A warm start takes the weights of the student alone, and learns for "
        "as many epochs again."
    )
    return Table("Test accuracy", columns, lines, note)
