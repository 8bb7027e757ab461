"""Wrong options of every command: one line that names what is wrong, status 2, nothing written."""

import subprocess
import sys

import pytest
from hypothesis import given, settings

from tests.faults import command_options, configurations
from tests.faults.test_configurations import GIVEN
from tfdistill.cli import options
from tfdistill.cli.commands import COMMANDS, export
from tfdistill.cli.exports import predict
from tfdistill.cli.main import app, main


@pytest.mark.parametrize("kind", command_options.WRONG)
def test_a_wrong_option_is_answered_in_one_line(tmp_path_factory, kind):
    folder = tmp_path_factory.mktemp("options")

    @settings(max_examples=30, **GIVEN)
    @given(command_options.WRONG[kind])
    def check(case):
        answer = configurations.ran(folder, list(case.options))
        assert command_options.fault(case, *answer) is None, (case, answer)

    check()


def bound(arguments):
    """Return what the function of a command would be given."""
    return app(COMMANDS).parse_args(arguments, exit_on_error=False, print_error=False)[1].arguments


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["predict", "M", "a.png", "b.png", "--top", "1"], "top", 1),
        (["predict", "--top=1", "M", "--output", "7", "a.png"], "output", "7"),
        (["predict", "M", "a.png", "--top", "1", "--top", "2"], "top", 2),
        (["predict", "M", "a", "--top", "1", "b"], "images", "['a', 'b']"),
        (["predict", "M", "--", "--top"], "images", "['--top']"),
        (["demo", "M", "--port", "0"], "port", 0),
        (["evaluate", "M", "--batch_size=7", "--allow-unsafe"], "allow_unsafe", True),
        (["evaluate", "--data.source", "digits", "M", "--batch_size=7"], "batch_size", 7),
        (["doctor", "--data_dir", "d"], "data_dir", "d"),
    ],
)
def test_options_of_a_command(arguments, key, value):
    found = bound(arguments)[key]
    if isinstance(found, list):
        found = list(map(str, found))
    assert (found if isinstance(value, int) else str(found)) == value


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--formats", "onnx"], "formats", ["onnx"]),
        (["--formats", "litert-int8, onnx"], "formats", ["litert-int8", "onnx"]),
        (["--formats=[litert-int8,onnx]"], "formats", ["litert-int8", "onnx"]),
        (["--formats", "onnx", "--formats", "litert-int8"], "formats", ["onnx", "litert-int8"]),
        (["--check_images", "null"], "check_images", None),
        (["--check_images", "7"], "check_images", 7),
        (["--name", "7"], "name", "7"),
        (["--resize"], "resize", True),
        ([], "folder", "saved_models"),
    ],
)
def test_options_of_export(words, key, value):
    found = bound(["export", *words, "M"])
    given = found.get("given", export.__kwdefaults__["given"])
    assert str(found["path"]) == "M" and getattr(given.written, key) == value


def test_options_stand_over_the_images_of_a_file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("data: {source: imagewoof, image_size: 32, augment: {flip: true}}\n")
    words = ["--data.image_size=64", "M", "--data.augment.cutout", "2"]
    given = options.read(words, options.Images)
    found = given.images(path)
    assert str(given.place) == "M" and (found.source, found.image_size) == ("imagewoof", 64)
    assert found.augment.flip and found.augment.cutout == 2
    assert given.images(None).source == "digits"
    assert options.read(["M"], options.Images).images(None) is None


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_a_command_explains_all_that_it_takes(name, capsys):
    assert main([*name.split(), "--help"]) == 0
    printed = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert printed.startswith(f"Usage: tfdistill {name}")
    for argument in command_options.declared(name):
        assert f"{argument.name} " in printed
        assert argument.parameter.help, argument.name


def test_the_options_of_predict_are_those_that_it_hands_on():
    handed_on = {"format", "top", "batch_size", "output", "pixel_range", "allow-unsafe"}
    assert set(options.named(predict)) == handed_on


def test_help_and_errors_do_not_wait_for_tensorflow():
    script = (
        "import sys; from tfdistill.cli.main import main\n"
        "assert main(['--help']) == 0 and main(['export', 'M', '--formats', 'x']) == 2\n"
        "assert main(['predict', 'M', 'a.png', '--top', 'x']) == main(['run', 'nowhere']) == 2\n"
        "assert main(['demo', 'M', '--port', 'x']) == main(['evaluate', 'M', '--data.x=1']) == 2\n"
        "assert main(['keys']) == main(['completion', 'bash']) == 0\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0
