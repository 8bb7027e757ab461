"""Network files from outside: opened in a process with bounds first, refused in one line."""

import re
import shutil

import pytest
from PIL import Image

from tests.faults import hostile_networks
from tests.faults.openers import endless, good, hoarder, killed, unknown, wrapped, wrong
from tfdistill.cli.main import main
from tfdistill.config import DataConfig, ModelConfig, RunConfig, TrainingConfig
from tfdistill.models.weights import hdf5
from tfdistill.training import train
from tfdistill.utils import foreign
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow  # processes that start TensorFlow


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return hostile_networks.write(tmp_path_factory.mktemp("networks"))


@pytest.fixture(autouse=True)
def tried(monkeypatch, tmp_path):
    """Files are tried, and none is known yet; a busy machine has time."""
    monkeypatch.setenv("TFDISTILL_OPEN_SECONDS", "600")
    monkeypatch.setenv("TFDISTILL_CACHE", str(tmp_path / "cache"))


MEMORY = r"takes more memory than 2\.\d GiB"


@pytest.mark.parametrize(
    ("opens", "said"),
    [
        (killed, "ended the process that opened it, of bounded memory: corrupted unsorted chunks"),
        (hoarder, MEMORY),
        (wrapped, MEMORY),
        (wrong, "takes two images."),
    ],
)
def test_what_goes_wrong_is_one_line_that_names_the_file(opens, said, tmp_path):
    path = tmp_path / "a.keras"
    path.write_bytes(b"any")
    for _ in range(2):  # it is not known for what was refused
        with pytest.raises(UsageError, match=f"^{re.escape(str(path))} {said}") as caught:
            foreign.try_out(path, opens)
        assert "\n" not in str(caught.value)


def test_what_does_not_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDISTILL_OPEN_SECONDS", "1.5")
    path = tmp_path / "a.keras"
    path.write_bytes(b"any")
    said = "was not open and asked once after 1.5 seconds. .* --allow-unsafe"
    with pytest.raises(UsageError, match=said):
        foreign.try_out(path, endless)


def test_a_file_is_tried_once_and_again_when_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "a.keras"
    path.write_bytes(b"any")
    foreign.try_out(path, good)
    foreign.try_out(path, killed)  # known by now
    other = tmp_path / "b.keras"
    foreign.try_out(shutil.copy(path, other), killed)
    other.write_bytes(b"other")
    with pytest.raises(UsageError, match="ended the process"):
        foreign.try_out(other, killed)
    foreign.know(foreign.sum_of(other))
    foreign.try_out(other, killed)
    third = tmp_path / "c.keras"
    third.write_bytes(b"third")
    foreign.try_out(third, good, keep=False)
    with pytest.raises(UsageError, match="ended the process"):
        foreign.try_out(third, killed)
    monkeypatch.setenv("TFDISTILL_OPEN_SECONDS", "0")
    foreign.try_out(third, killed)


def test_a_folder_is_known_by_what_tensorflow_reads_of_it(tmp_path):
    for name in ("saved_model.pb", "variables/variables.index", "assets/names.txt", "labels.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    before = foreign.sum_of(tmp_path)
    (tmp_path / "labels.txt").write_text("others")
    assert foreign.sum_of(tmp_path) == before
    sums = {before}
    for name in ("saved_model.pb", "variables/variables.index", "assets/names.txt"):
        (tmp_path / name).write_text("others")
        sums.add(foreign.sum_of(tmp_path))
    (tmp_path / "assets" / "more.txt").write_text("")
    assert len(sums | {foreign.sum_of(tmp_path)}) == 5


def test_classes_of_a_program_of_ones_own_are_left_to_it(tmp_path):
    path = tmp_path / "a.keras"
    path.write_bytes(b"any")
    foreign.try_out(path, unknown)
    with pytest.raises(UsageError, match="ended the process"):
        foreign.try_out(path, killed)  # it is not known for that


@pytest.mark.parametrize("given", ["soon", "-1", "nan"])
def test_seconds_that_are_none_are_refused(given, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDISTILL_OPEN_SECONDS", given)
    with pytest.raises(UsageError, match=r"TFDISTILL_OPEN_SECONDS must be .*Received: "):
        foreign.try_out(tmp_path, good)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("huge.weights.h5", MEMORY),
        ("huge.keras", MEMORY),
        ("zeros.keras", MEMORY),
        ("cut.keras", ": "),
    ],
)
def test_weights_that_are_far_more_than_their_file_are_refused(networks, name, said):
    path = networks[name]
    with pytest.raises(UsageError, match=f"^{re.escape(str(path))}.*{said}"):
        foreign.try_out(path, hdf5.read_once, keep=False)


def test_weights_that_are_whole_pass(networks):
    for name in ("good.keras", "good.weights.h5", "units.keras"):
        foreign.try_out(networks[name], hdf5.read_once, keep=False)


def test_commands_try_a_network_before_they_open_it(networks, tmp_path, capsys, monkeypatch):
    image = tmp_path / "black.png"
    Image.new("L", (8, 8)).save(image)
    # Opened here, it would take 51 GB.
    assert main(["predict", str(networks["units.keras"]), str(image)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"{networks['units.keras']} {MEMORY}", line)
    assert main(["predict", str(networks["good.keras"]), str(image)]) == 0
    monkeypatch.setenv("TFDISTILL_OPEN_SECONDS", "0.001")
    assert main(["predict", str(networks["good.keras"]), str(image)]) == 0
    assert "10.0 %" in capsys.readouterr().out


def test_what_this_machine_has_trained_is_known(tmp_path):
    images = DataConfig("digits", validation=100, train_examples=64)
    training = TrainingConfig(epochs=1, batch_size=32)
    network = ModelConfig("cnn2", width=0.125)
    train.run(RunConfig("teacher", "teacher", 0, images, network, training), tmp_path)
    for part in ("best", "last"):
        foreign.try_out(tmp_path / f"runs/teacher/{part}.keras", killed)
