"""Records: written whole, read back equal, summed up with mean and deviation."""

import dataclasses
import json

import pytest

from tfdistill import records
from tfdistill.config import DataConfig, ModelConfig, RunConfig, TrainingConfig, formats, to_dict
from tfdistill.records import Record, Spread
from tfdistill.utils import storage


def record(name="a", **values):
    return Record(name, "row", 0, "key", {"training": {"select": "best"}}, **values)


MEASURED = {"epoch": 2, "validation_accuracy": 0.25, "test_accuracy": 0.5}


def measured(**values):
    """Return a record as a run of a network writes it."""
    run = to_dict(RunConfig("a", "row", 0, DataConfig(), ModelConfig(), TrainingConfig()))
    return Record("a", "row", 0, "key", run, best=MEASURED, last=MEASURED, **values)


def test_a_record_comes_back_equal(tmp_path):
    written = measured(history={"loss": [2.0, 1.0]}, parameters=7)
    records.write(tmp_path / "run", written)
    assert records.read(tmp_path / "run") == written
    assert records.read(tmp_path / "elsewhere") is None


def test_a_record_without_a_number_is_of_the_first_format_and_gets_the_defaults_of_new_keys(
    tmp_path,
):
    written = measured()
    records.write(tmp_path / "a", written)
    path = tmp_path / "a" / "record.json"
    values = storage.read_checked(path)
    assert values.pop("format") == formats.FORMAT
    del values["config"]["stop_epoch"], values["config"]["training"]["nesterov"]
    storage.write_checked(path, values)
    assert records.read(tmp_path / "a") == written


@pytest.mark.parametrize("change", [{"format": 99}, {"energy": 3.5}])
def test_a_record_of_a_later_version_is_named_as_such(tmp_path, change):
    records.write(tmp_path, record())
    values = storage.read_checked(tmp_path / "record.json")
    storage.write_checked(tmp_path / "record.json", values | change)
    with pytest.raises(storage.LaterError, match="record.json was written by a later version"):
        records.read(tmp_path)


@pytest.mark.parametrize("number", ["2", 0, -1, True, None, 1.5])
def test_a_number_that_is_none_of_a_format_is_damage(tmp_path, number):
    records.write(tmp_path, record())
    values = storage.read_checked(tmp_path / "record.json")
    storage.write_checked(tmp_path / "record.json", values | {"format": number})
    with pytest.raises(storage.DamagedError, match="its format is"):
        records.read(tmp_path)


def test_a_record_is_of_a_run_while_its_configuration_and_its_teachers_weights_are_the_same():
    def named(name, best):
        return Record(name, "", 0, "", {"name": name}, weights={"best": best})

    teacher = named("teacher", "1")
    taught = record(needed=records.to_repeat([teacher]))
    assert records.is_of(taught, taught.config, [teacher])
    assert not records.is_of(taught, {**taught.config, "seed": 1}, [teacher])
    assert not records.is_of(taught, taught.config, [named("teacher", "2")])
    assert not records.is_of(taught, taught.config, [teacher, named("another", "3")])


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    path = tmp_path / "file.json"
    storage.write_json(path, {"old": 1})
    with pytest.raises(KeyError), storage.appearing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_deviation_is_that_of_a_sample():
    # mean 4, squared differences 4 + 0 + 4 over n - 1 = 2
    spread = Spread.of([2.0, 4.0, 6.0])
    assert (spread.mean, spread.std, spread.count) == (4.0, 2.0, 3)
    assert spread.text(scale=1.0) == "4.00 ± 2.00"
    assert Spread.of([0.5]).text() == "50.00"
    assert not Spread.of([])
    assert Spread.of([]).text() == "–"


def test_the_key_changes_with_the_configuration_and_with_the_teachers_weights():
    teacher, other = record(weights={"best": "1"}), record(weights={"best": "2"})
    keys = {
        records.run_key({"seed": 0}, [teacher]),
        records.run_key({"seed": 1}, [teacher]),
        records.run_key({"seed": 0}, [other]),
    }
    assert len(keys) == 3
    assert records.run_key({"seed": 0}, [teacher]) == records.run_key({"seed": 0}, [teacher])


def test_the_frame_has_one_line_for_each_record():
    frame = records.frame([record("a", best={"test_accuracy": 0.5}), record("b")])
    assert list(frame["run"]) == ["a", "b"]
    assert frame["best_test_accuracy"][0] == 0.5


def test_the_frame_tells_alpha_and_temperature_of_the_taught():
    taught = {"alpha": 0.3, "temperature": 2.5, "scale_by_t2": False}
    alone = record("alone")
    student = dataclasses.replace(alone, config={**alone.config, "distillation": taught})
    frame = records.frame([alone, student])
    assert frame["alpha"].isna()[0] and frame["temperature"][1] == 2.5
    assert not frame["scale_by_t2"][1]


def test_a_run_in_one_line():
    measured = record(best={"test_accuracy": 0.5}, seconds=61.0)
    assert records.outcome(measured) == "test accuracy 50.00 % (best), 1 min 01 s"
    assert records.outcome(record(seconds=3.0)) == "done, 3 s"
    diverged = record(status=records.DIVERGED, message="the loss became nan")
    assert records.outcome(diverged) == "the loss became nan"
