"""Wrong configurations: one line that names what is wrong, status 2, nothing written or run."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.faults import configurations
from tfdistill.cli.options import study_config
from tfdistill.config import StudyConfig, read_yaml, to_dict

pytestmark = pytest.mark.slow

GIVEN = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "phases": [Phase.generate, Phase.shrink],
    "suppress_health_check": list(HealthCheck),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("configurations")


@pytest.mark.parametrize("kind", configurations.WRONG)
def test_a_wrong_configuration_is_answered_in_one_line(folder, kind):
    @settings(max_examples=40, **GIVEN)
    @given(configurations.WRONG[kind])
    def check(case):
        answer = configurations.answer(folder, case.text, *case.options)
        assert configurations.fault(case, *answer) is None, (case, answer)

    check()


@settings(max_examples=25, **GIVEN)
@given(configurations.right())
def test_a_right_configuration_is_planned(folder, values):
    assert configurations.answer(folder, configurations.text_of(values)) == (0, "", [])


@pytest.mark.parametrize(
    "data", [b"\x80\x81", bytes(range(256)), b"\x00", b"\x89PNG\r\n\x1a\n\x00"]
)
def test_a_binary_file_is_no_configuration(folder, data):
    status, error, written = configurations.answer(folder, data)
    assert status == 2 and "is not YAML" in error and error.count("\n") == 1 and not written


@pytest.mark.parametrize("path", configurations.CONFIGS, ids=lambda path: path.parent.name)
def test_what_a_study_writes_down_is_read_as_the_same_study(tmp_path, path):
    config = study_config([str(path)])
    copy = tmp_path / "copy.yaml"
    copy.write_text(configurations.text_of(to_dict(config)))
    assert study_config([str(copy)]) == config


@pytest.mark.parametrize(
    ("options", "key", "value"),
    [
        (["--training.epochs", "7"], "training.epochs", 7),
        (["--training={epochs: 7}"], "training.batch_size", 32),
        (["--training.jit", "on"], "training.jit", "on"),
        (["--training.learning_rate=1"], "training.learning_rate", 1.0),
        (["--training.learning_rate=1e-2"], "training.learning_rate", 0.01),
        (["--student.width", "2"], "student.name", "cnn2"),
        (["--student", "null"], "student", None),
        (["--note", "a: b"], "note", "a: b"),
        (["--note="], "note", ""),
        (["--output", "5"], "output", "5"),
        (["--data.normalize", "[0.5, 1]"], "data.normalize", [0.5, 1]),
        (["--data.normalize", "none"], "data.normalize", "none"),
        (["--seeds", "[7]"], "seeds", [7]),
        (["--seeds+", "7"], "seeds", [0, 1, 7]),
        (["--seeds=[1]", "--seeds=[2]"], "seeds", [2]),
        (["--sweep.space.student.width", "[1, 2]"], "sweep.space", {"student.width": [1, 2]}),
    ],
)
def test_values_on_the_command_line(tmp_path, options, key, value):
    path = tmp_path / "study.yaml"
    path.write_text(configurations.text_of(configurations.BASE))
    found = to_dict(study_config([str(path), *options]))
    for name in key.split("."):
        found = found[name]
    assert found == value and type(found) is type(value)


def test_a_part_of_a_setting_keeps_the_rest_of_its_default(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("sweep: {space: {student.width: [1]}}\ndata: {augment: {flip: true}}\n")
    config = study_config([str(path)])
    assert config.sweep.space == {"student.width": [1]} and config.sweep.trials == 20
    assert config.data.augment.flip and config.data.source == StudyConfig().data.source


def test_shared_parts_of_a_file_may_be_written_once(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("training: &t {epochs: 3}\nstudent_training: {<<: *t, batch_size: 8}\n")
    assert read_yaml(path)["student_training"] == {"epochs": 3, "batch_size": 8}
