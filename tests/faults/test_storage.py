"""Full, read-only and damaged disks: real file systems, real files, the same result in the end."""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from PIL import Image

from tests.conftest import SINGLE
from tfdistill import records
from tfdistill.cli import options
from tfdistill.cli.main import main
from tfdistill.config import DataConfig
from tfdistill.data import array_cache, load
from tfdistill.models.fingerprint import weights_hash
from tfdistill.training import evaluation, runner
from tfdistill.training.resume import TrainingState
from tfdistill.utils import storage
from tfdistill.utils.progress import Silent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def expected(single):
    """What the study gave, which faults must not change."""
    return results(single / "out")


@pytest.fixture
def copied(single, tmp_path):
    """A copy of the study's results that may be damaged."""
    shutil.copytree(single / "out", tmp_path / "out")
    return tmp_path / "out"


def run(config, output, *more):
    return main(["run", str(config), "--output", str(output), *more])


def flip(path, place):
    """Flip the lowest bit of a byte: that of the digit 3 makes it a 2."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def results(folder):
    """Return what must not depend on faults: figures, keys and the weights as they lie."""
    found = {}
    for record in records.read_all(folder):
        run_folder = records.run_folder(folder, record.name)
        for part in ("best", "last"):
            network = keras.saving.load_model(run_folder / f"{part}.keras", compile=False)
            assert weights_hash(network) == record.weights[part]
        found[record.name] = (record.key, record.weights, record.best, record.last, record.history)
    return found


def errors_of(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if "error:" in line]


class TestFullDisk:
    def test_every_write_that_fails_is_one_line_and_the_command_goes_on(
        self, single, expected, disk, capsys
    ):
        full = disk("2m")
        filler, out = full / "filler", full / "out"
        filler.write_bytes(bytes(2**21 - 2**15))
        folders = []
        while status := run(single / "study.yaml", out, "--tensorboard", "true"):
            (error,) = errors_of(capsys)
            assert status == 2 and error.count("There is no room in") == 1, error
            folders.append(error.partition("no room in ")[2].partition(". Received")[0])
            assert not list(out.glob("**/.*.[0-9]*.*")), "a half-written file was left"
            assert filler.stat().st_size, "there is room, but the study fails"
            with filler.open("r+b") as file:
                file.truncate(max(0, filler.stat().st_size - 2**18))
        assert results(out) == expected
        assert any("/runs/" in folder for folder in folders), folders

    def test_decoded_images_need_no_room(self, disk, monkeypatch, caplog):
        folder = disk()
        monkeypatch.setenv("TFDISTILL_CACHE", str(folder / "decoded"))
        made = np.arange(2**21, dtype="uint8")
        found = array_cache.cached({"of": "zeros"}, lambda: {"images": made})
        assert found["images"] is made
        assert "no room" in caplog.text
        assert not list(folder.glob("decoded/*"))

    def test_stored_logits_need_room_that_is_checked_before(self, single, expected, disk, capsys):
        full = disk("2m")
        shutil.copytree(single / "out", full / "out")
        shutil.rmtree(full / "out/cache")
        shutil.rmtree(full / "out/runs/distilled-0")
        with pytest.raises(OSError, match="No space"):
            (full / "filler").write_bytes(bytes(2**22))
        assert run(single / "study.yaml", full / "out") == 2
        (error,) = errors_of(capsys)
        assert "no room in" in error or "are free" in error
        (full / "filler").unlink()
        assert run(single / "study.yaml", full / "out") == 0
        assert results(full / "out") == expected


def test_a_read_only_folder_is_one_line_before_anything_is_trained(single, disk, capsys):
    folder = disk("2m")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    assert run(single / "study.yaml", folder / "out") == 2
    said = capsys.readouterr()
    assert "Cannot write to" in said.err and str(folder) in said.err
    assert "teacher" not in said.out + said.err.replace("error", "")


@pytest.mark.parametrize("name", ["o" * 300, "study.yaml", "study.yaml/out"])
def test_a_folder_that_cannot_be_is_one_line(single, capsys, name):
    assert run(single / "study.yaml", single / name) == 2
    (error,) = errors_of(capsys)
    assert f"error: Cannot write to {single / name}" in error and "Received:" in error


def test_what_is_removed_while_it_is_written_is_one_line(tmp_path):
    path, line = tmp_path / "gone" / "record.json", "Cannot write to .*gone. Received: .*No such"
    with pytest.raises(storage.WriteError, match=line), storage.appearing(path) as temporary:
        temporary.write_text("half")
        shutil.rmtree(path.parent)


class TestFinishedStudy:
    def test_a_damaged_run_is_done_again_with_the_same_result(
        self, single, expected, copied, capsys
    ):
        path = copied / "runs/alone-0/last.keras"
        flip(path, path.stat().st_size // 2)
        assert run(single / "study.yaml", copied) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "the run is done again" in said and said.count("done again") == 1
        assert results(copied) == expected

    def test_a_changed_digit_of_a_record_is_noticed(self, copied):
        path = copied / "runs/alone-0/record.json"
        text = path.read_text()
        place = text.index('"test_accuracy": 0.') + len('"test_accuracy": 0.')
        flip(path, place)
        assert json.loads(path.read_text())["best"] != json.loads(text)["best"]
        with pytest.raises(storage.DamagedError, match=r"record\.json is damaged .*checksum"):
            records.read(path.parent)

    def test_reports_refuse_a_damaged_record(self, copied, capsys):
        flip(copied / "runs/alone-0/record.json", 40)
        assert main(["report", str(copied)]) == 2
        assert "record.json is damaged" in errors_of(capsys)[0]

    def test_tables_and_the_configuration_are_written_again(self, single, copied):
        for name in ("results.csv", "report.html"):
            (copied / name).write_text("damaged")
        (copied / "config.yaml").unlink()
        assert run(single / "study.yaml", copied) == 0
        before, after = ((f / "results.csv").read_text() for f in (single / "out", copied))
        assert before == after
        assert (copied / "config.yaml").read_bytes() == (single / "out/config.yaml").read_bytes()
        assert "damaged" not in (copied / "report.html").read_text()

    @pytest.mark.parametrize("place", [0.0, 0.5, 0.99])
    def test_a_damaged_configuration_is_refused_or_not_used(self, single, copied, capsys, place):
        path = copied / "config.yaml"
        flip(path, int(place * path.stat().st_size))
        status = run(single / "study.yaml", copied)
        if place == 0.0:  # the mark of the checksum itself: the rest is as it was
            assert status in (0, 2)
        else:
            assert status == 2 and "config.yaml is damaged" in errors_of(capsys)[0]


class TestEarlierVersions:
    def test_records_and_networks_without_checksums_are_used_and_weights_compared(self, copied):
        folder = copied / "runs/alone-0"
        values = json.loads((folder / "record.json").read_text())
        del values["checksum"], values["files"]
        (folder / "record.json").write_text(json.dumps(values))
        images = load(DataConfig(**SINGLE["data"]))
        network = evaluation.load_network(copied, "alone-0", images, "last")
        assert weights_hash(network) == values["weights"]["last"]
        network.set_weights([2 * weight for weight in network.get_weights()])
        network.save(folder / "last.keras")
        with pytest.raises(storage.DamagedError, match="other weights"):
            evaluation.load_network(copied, "alone-0", images, "last")

    def test_a_configuration_without_a_checksum_is_read(self, single, copied):
        text = (copied / "config.yaml").read_text()
        (copied / "config.yaml").write_text(text.partition("\n")[2])
        assert run(single / "study.yaml", copied) == 0

    def test_a_list_of_decoded_images_with_sizes_alone_is_read(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TFDISTILL_CACHE", str(tmp_path))
        array_cache.cached({}, lambda: {"images": np.arange(9)})
        (path,) = tmp_path.glob("*/images.npy")
        sizes = {path.name: path.stat().st_size}
        (path.parent / array_cache.LIST).write_text(json.dumps(sizes))
        assert (array_cache.cached({}, dict)["images"] == np.arange(9)).all()


class TestTrainingState:
    @pytest.fixture
    def state(self, tmp_path):
        network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        network.compile("adam", "mse")
        network.optimizer.build(network.trainable_variables)
        state = TrainingState(tmp_path, "key", [network], [network])
        state.finish_epoch([{"val_accuracy": 0.5}])
        return state

    @pytest.mark.parametrize("name", ["state.npz", "best-0.npz"])
    def test_no_flipped_bit_changes_what_is_taken_up(self, state, name):
        expected = weights_hash(state.networks[0])
        path = state.folder / name
        whole, noticed = path.read_bytes(), 0
        places = np.random.default_rng(0).choice(len(whole), 150, replace=False)
        for place in places:
            flip(path, place)
            state.problem = ""
            if state.restore():
                state.load_best(0)
                assert weights_hash(state.networks[0]) == expected
            else:
                noticed += 1
                assert f"{name} is" in state.problem and "trained from the start" in state.problem
            path.write_bytes(whole)
        assert noticed > 100

    def test_a_lost_file_of_best_weights_is_noticed(self, state):
        (state.folder / "best-0.npz").unlink()
        assert not state.restore()
        assert "best-0.npz is missing" in state.problem

    def test_a_state_beyond_the_last_epoch_is_not_used(self, state):
        assert not state.restore(epochs=0)
        assert state.restore(epochs=1)

    def test_a_state_of_an_earlier_version_is_used(self, state):
        path = state.folder / "state.npz"
        with np.load(path) as saved:
            arrays = {name: saved[name] for name in saved.files if name != "sha256"}
        np.savez(path, **arrays)
        assert state.restore()


def test_no_flipped_bit_of_decoded_images_is_seen(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TFDISTILL_CACHE", str(tmp_path))
    pixels = np.arange(200, dtype="uint8")

    def read():
        return {"images": pixels}

    array_cache.cached({}, read)
    files = [*tmp_path.glob("*/*")]
    assert len(files) == 2
    for path in files:
        for place in range(0, path.stat().st_size, 7):
            flip(path, place)
            assert (array_cache.cached({}, read)["images"] == pixels).all()
    assert "images.npy is damaged" in caplog.text


@pytest.mark.parametrize(
    "name, fault",
    [
        ("last.keras", lambda path: flip(path, 100)),
        ("best.keras", Path.unlink),
        ("record.json", lambda path: path.write_bytes(path.read_bytes()[:-9])),
    ],
)
def test_a_plan_names_a_damaged_run_as_to_do(single, copied, capsys, name, fault):
    fault(copied / "runs/alone-0" / name)
    assert run(single / "study.yaml", copied, "--dry-run") == 0
    assert capsys.readouterr().out.count("to do") == 1


def test_that_a_study_goes_on_with_other_versions_is_told(copied, single, capsys):
    record = records.read(copied / "runs/alone-0")
    before = {**record.versions, "keras": "3.0.0"}
    code = record.environment["code"][:12]
    other = {**record.environment, "code": "0123456789abcdef"}
    changed = dataclasses.replace(record, versions=before, environment=other)
    records.write(copied / "runs/alone-0", changed)
    shutil.rmtree(copied / "runs/distilled-0")
    assert run(single / "study.yaml", copied) == 0
    said = " ".join(capsys.readouterr().out.split())
    changes = f"keras 3.0.0 (now {keras.__version__}), code 0123456789ab (now {code})"
    assert f"done with {changes}: bits may differ" in said
    # A table of runs of two revisions says so, and none of them is done again for that.
    mixed = f"Of these runs, 2 by {code}, 1 by 0123456789ab: they were done by different revisions"
    assert mixed in said and mixed in (copied / "report.html").read_text()
    assert records.read(copied / "runs/alone-0") == changed
    assert run(single / "study.yaml", copied) == 0
    assert "All 3 runs were finished before" in capsys.readouterr().out


class TestImagesThatChange:
    @pytest.fixture
    def photos(self, tmp_path):
        """A study of a folder of images."""
        generator = np.random.default_rng(0)
        for label in "ab":
            (tmp_path / "photos" / label).mkdir(parents=True)
            for number in range(30):
                self.draw(tmp_path / "photos" / label / f"{number}.png", generator)
        images = {"source": f"folder:{tmp_path / 'photos'}", "validation": 10}
        images["normalize"] = [0.5, 0.25]  # as measured, it would tell the images apart, too
        path = tmp_path / "study.yaml"
        training = {"epochs": 2, "batch_size": 10}
        path.write_text(yaml.safe_dump({**SINGLE, "data": images, "training": training}))
        return path

    @staticmethod
    def draw(path, generator):
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)

    def test_a_training_begins_anew_and_a_study_ends_where_they_differ(
        self, photos, tmp_path, capsys
    ):
        """There is no table of runs on different images."""

        class Stopping(Silent):
            epochs = []

            def epoch(self, epoch, epochs, logs):
                self.epochs.append(epoch)
                if len(self.epochs) in (1, 4):
                    raise KeyboardInterrupt

        config = options.study_config([str(photos)])
        with pytest.raises(KeyboardInterrupt):
            runner.run_study(config, tmp_path / "out", Stopping())
        assert (tmp_path / "out/runs/teacher/state.npz").exists()
        for number in range(30):  # whichever are the training images
            self.draw(tmp_path / f"photos/a/{number}.png", np.random.default_rng(number + 1))
        with pytest.raises(KeyboardInterrupt):
            runner.run_study(config, tmp_path / "out", Stopping())
        assert Stopping.epochs == [0, 0, 1, 0]  # the last of the next run
        before = results(tmp_path / "out")
        self.draw(tmp_path / "photos/a/0.png", np.random.default_rng(1000))
        assert run(photos, tmp_path / "out") == 2
        (error,) = errors_of(capsys)
        assert "have changed since teacher was done" in error and "another --output" in error
        assert results(tmp_path / "out") == before and before.keys() == {"teacher"}
