"""Pages: made of kept records, to the letter each time, with what people wrote kept."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

import tfdistill
from tfdistill.cli.main import main
from tfdistill.cli.options import study_of
from tfdistill.config import DataConfig, ModelConfig, RunConfig, TrainingConfig, to_dict
from tfdistill.recipes import findings
from tfdistill.records import (
    ARCHIVE_FILE,
    Predictions,
    Record,
    Table,
    read_archive,
    write_archive,
)
from tfdistill.reporting.pages import BEGIN, END, Page, markdown, write_page
from tfdistill.training import runner
from tfdistill.utils.checks import UsageError
from tfdistill.utils.storage import DamagedError

RESULTS = Path(tfdistill.__file__).parents[1] / "docs" / "results"
TABLE = Table("Accuracy", ("", "a | b"), (("single", "0.5"), ("taught", "")), "A note.")
SVG = '<svg role="img" xmlns="http://www.w3.org/2000/svg"><path stroke="currentColor"/></svg>'


def page(verdict="It is better."):
    pictures = [("The first one", SVG, "What it shows."), ("Another", SVG, "More.")]
    return Page("A study", verdict, "digits · five seeds", [TABLE], pictures, "Made of records.")


def test_a_table_in_markdown_keeps_every_cell():
    lines = markdown(TABLE).splitlines()
    assert lines[0] == "### Accuracy"
    assert lines[2:6] == ["|  | a \\| b |", "| --- | ---: |", "| single | 0.5 |", "| taught | – |"]
    assert lines[-1] == "A note."


def test_a_page_opens_with_the_verdict_and_one_picture_and_keeps_what_was_written(tmp_path):
    (tmp_path / "README.md").write_text("# Mine\n\nHow it came about.\n")
    path = write_page(tmp_path, page())
    first = path.read_text()
    assert first.startswith(f"# Mine\n\nHow it came about.\n\n{BEGIN}\n\n**It is better.**\n")
    order = ["**It is", "five seeds", "(the-first-one.svg)", "### Acc", "(another.svg)", "Made of"]
    places = [first.index(part) for part in order]
    assert places == sorted(places)
    path.write_text(first + "\nAfterwards.\n")
    write_page(tmp_path, page("It is worse."))
    again = path.read_text()
    assert "better" not in again and again.count(BEGIN) == again.count(END) == 1
    assert again.startswith("# Mine") and again.endswith("Afterwards.\n")
    svg = (tmp_path / "another.svg").read_text()
    assert "currentColor" not in svg and 'fill="#ffffff"' in svg


def test_records_come_back_from_the_archive_with_what_was_said_of_each_image(tmp_path):
    said = Predictions(np.array([1, 2]), np.array([1, 0]), np.array([0.75, 0.5]))
    both = {part: {"validation_accuracy": 0.25, "test_accuracy": 0.5} for part in ("best", "last")}
    configs = [
        to_dict(RunConfig(name, "row", seed, DataConfig(), ModelConfig(), TrainingConfig()))
        for seed, name in enumerate("ab")
    ]
    kept = [
        Record("a", "row", 0, "k", configs[0], **both, predictions=said),
        Record("b", "row", 1, "k", configs[1], **both, history={"loss": [2.0, 1.0]}),
    ]
    path = tmp_path / "records.jsonl.xz"
    write_archive(path, kept)
    content = path.read_bytes()
    found = read_archive(path)
    assert found == kept and found[1].predictions is None
    assert found[0].predictions.right.tolist() == [True, False]
    assert found[0].predictions.probabilities.tolist() == [0.75, 0.5]
    write_archive(path, found)
    assert path.read_bytes() == content
    path.write_bytes(content[:-20])
    with pytest.raises(DamagedError, match=r"records\.jsonl\.xz is damaged"):
        read_archive(path)


def test_pieces_of_a_study_come_together(tmp_path):
    whole = RESULTS / "low_bits_resnet8"
    config = study_of(whole)
    every = [  # without what makes them large
        dataclasses.replace(record, predictions=None, history={}, calibration={})
        for record in read_archive(whole / ARCHIVE_FILE)
    ]

    def piece(seeds):
        part = dataclasses.replace(config, seeds=seeds)
        planned = {run.name for run in runner.plan(part)}
        return part, [record for record in every if record.name in planned]

    kept = findings.keep(*piece([0, 1]), tmp_path)
    assert kept.seeds == [0, 1] and len(read_archive(tmp_path / ARCHIVE_FILE)) == 25
    # Of the second piece a run was done again, the teacher; it ended with the same weights.
    kept = findings.keep(*piece([2, 3, 4]), tmp_path)
    assert kept == dataclasses.replace(config, output=kept.output)
    assert study_of(tmp_path).seeds == [0, 1, 2, 3, 4]
    assert read_archive(tmp_path / ARCHIVE_FILE) == every
    findings.keep(*piece([4]), tmp_path)  # once more
    assert read_archive(tmp_path / ARCHIVE_FILE) == every

    content = (tmp_path / ARCHIVE_FILE).read_bytes()
    part, records = piece([4])
    other = [dataclasses.replace(records[-1], weights={"best": "0" * 64, "last": "0" * 64})]
    longer = dataclasses.replace(part, training=TrainingConfig(epochs=99))
    for given, match in (
        ((part, other), f"keeps the run {other[0].name} with other weights"),
        ((longer, records), r"holds another study: training.epochs is \d+ there and 99 here"),
    ):
        with pytest.raises(UsageError, match=match):
            findings.keep(*given, tmp_path)
        with pytest.raises(UsageError, match="holds another study"):
            findings.keep(part, records, tmp_path, searched=True)
        assert (tmp_path / ARCHIVE_FILE).read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(path.parent.name for path in RESULTS.glob(f"*/{ARCHIVE_FILE}"))
)
def test_the_pages_of_the_docs_are_made_again_to_the_letter(name, tmp_path, capsys):
    folder = tmp_path / name
    shutil.copytree(RESULTS / name, folder, ignore=shutil.ignore_patterns("*.png"))
    assert main(["report", str(folder)]) == 0
    assert (folder / "README.md").read_text() == (RESULTS / name / "README.md").read_text()
    made = {path.name for path in folder.glob("*.svg")}
    assert made == {path.name for path in (RESULTS / name).glob("*.svg")}


def test_no_page_says_that_ours_contradicts_the_published():
    for path in (RESULTS.parents[1] / "README.md", *RESULTS.glob("**/README.md")):
        said = path.read_text().replace('"Contradicts" would need', "")
        assert "contradict" not in said.lower(), path
