"""Versions appear whole: real folders, a reader that never stops looking, a disk that is full."""

import subprocess
import sys
from pathlib import Path

import pytest

from tfdistill.export import versions
from tfdistill.utils import checks, storage

# Reads every version that it sees, again and again, as a server that watches the folder does.
READER = """
import pathlib, sys
model = pathlib.Path(sys.argv[1])
print("looking", flush=True)
seen, last = set(), int(sys.argv[2])
while last not in seen:
    for folder in model.iterdir():
        if folder.name.isdigit():
            parts = {path.name: path.read_bytes() for path in folder.iterdir()}
            number = int(folder.name)
            assert sorted(parts) == ["a", "b"], (number, sorted(parts))
            assert parts["a"] == parts["b"] == bytes([number]) * 200_000, number
            seen.add(number)
print(len(seen), flush=True)
"""


def write(folder: Path, number: int) -> None:
    for name in ("a", "b"):
        with open(folder / name, "wb") as file:
            for _ in range(200):
                file.write(bytes([number]) * 1000)
                file.flush()


def test_versions_are_numbered_from_one_and_never_written_again(tmp_path):
    for number in (1, 2, 3):
        with versions.new_version(tmp_path / "model") as new:
            assert new.number == number
            write(new.folder, number)
        assert new.target == tmp_path / "model" / str(number)
    assert versions.versions(tmp_path / "model") == [1, 2, 3]
    assert versions.latest(tmp_path / "model") == tmp_path / "model" / "3"
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"1", "2", "3", ".lock"}


def test_a_number_that_others_chose_is_counted_on_from(tmp_path):
    (tmp_path / "model" / "41").mkdir(parents=True)
    (tmp_path / "model" / "notes").mkdir()
    (tmp_path / "model" / "42").write_text("a file in the way")
    with versions.new_version(tmp_path / "model") as new:
        write(new.folder, 1)
    assert new.target.name == "43"


def test_a_reader_never_sees_a_part_of_a_version(tmp_path):
    model, last = tmp_path / "model", 25
    model.mkdir()
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, model, str(last)], stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout.readline() == "looking\n"
    for number in range(1, last + 1):
        with versions.new_version(model) as new:
            write(new.folder, number)
    assert reader.communicate(timeout=600)[0] == f"{last}\n"
    assert reader.returncode == 0


def test_a_second_export_of_the_same_model_says_that_one_is_under_way(tmp_path):
    with versions.new_version(tmp_path / "model") as first:
        write(first.folder, 1)
        with (
            pytest.raises(checks.UsageError, match="Another process is exporting to .*model"),
            versions.new_version(tmp_path / "model"),
        ):
            pass
    assert versions.versions(tmp_path / "model") == [1]


def test_a_failure_leaves_nothing_behind(tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        versions.new_version(tmp_path / "saved" / "model") as new,
    ):
        write(new.folder, 1)
        print(1 / 0)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_export_is_never_a_version_and_the_next_one_clears_up(tmp_path):
    script = (
        "import os, pathlib, sys; from tfdistill.export import versions\n"
        "with versions.new_version(pathlib.Path(sys.argv[1])) as new:\n"
        "    (new.folder / 'a').write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], check=False)
    assert len(list(tmp_path.glob(".tfdistill.*.export*/a"))) == 1
    (tmp_path / ".export-notes").mkdir()  # the user's
    assert versions.versions(tmp_path) == []
    with versions.new_version(tmp_path) as new:
        write(new.folder, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"1", ".lock", ".export-notes"}


def test_a_full_disk_is_one_line_and_leaves_nothing(disk):
    folder = disk()
    with (
        pytest.raises(checks.UsageError, match="no room for the export"),
        versions.new_version(folder / "model") as new,
    ):
        (new.folder / "weights").write_bytes(bytes(10_000_000))
    assert list(folder.iterdir()) == []


def test_a_file_where_the_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "model").write_text("a file")
    with (
        pytest.raises(checks.UsageError, match="Cannot write to .*model"),
        versions.new_version(tmp_path / "model"),
    ):
        pass


class TestCheck:
    @pytest.fixture
    def version(self, tmp_path):
        with versions.new_version(tmp_path / "model") as new:
            (new.folder / "saved_model.pb").write_bytes(b"graph")
            (new.folder / "model.onnx").write_bytes(b"other")
            card = {"files": versions.files_of(new.folder)}
            storage.write_checked(new.folder / "model_card.json", card)
        return new.target

    def test_what_was_exported_passes_also_without_other_formats(self, version):
        versions.check(version)
        versions.check(version / "model.onnx")
        (version / "model.onnx").unlink()
        versions.check(version)

    def test_changed_and_missing_files_are_named(self, version):
        (version / "model.onnx").write_bytes(b"0ther")
        with pytest.raises(checks.UsageError, match="model.onnx is not what was exported"):
            versions.check(version / "model.onnx")
        versions.check(version)
        (version / "saved_model.pb").unlink()
        with pytest.raises(checks.UsageError, match="saved_model.pb is not what was exported"):
            versions.check(version)

    def test_a_damaged_card_is_named(self, version):
        card = version / "model_card.json"
        card.write_text(card.read_text().replace('"bytes": 5', '"bytes": 6', 1))
        with pytest.raises(checks.UsageError, match="model_card.json is damaged.*Export the"):
            versions.check(version)
