"""Wrong options of every command: one line that names what is wrong, status 2, nothing written."""

import subprocess
import sys

import pytest
from hypothesis import given, settings

from tests.faults import command_options, configurations
from tests.faults.test_configurations import GIVEN
from tfdistill.cli import help_pages, options
from tfdistill.cli.commands import COMMANDS


@pytest.mark.parametrize("kind", command_options.WRONG)
def test_a_wrong_option_is_answered_in_one_line(tmp_path_factory, kind):
    folder = tmp_path_factory.mktemp("options")

    @settings(max_examples=60, **GIVEN)
    @given(command_options.WRONG[kind])
    def check(case):
        answer = configurations.ran(folder, list(case.options))
        assert configurations.fault(case, *answer) is None, (case, answer)

    check()


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["predict", "M", "a.png", "b.png", "--top", "1"], "top", 1),
        (["predict", "--top=1", "M", "--output", "x.csv", "a.png"], "output", "x.csv"),
        (["predict", "M", "a.png", "--top", "x", "--top", "2"], "top", 2),
        (["predict", "M", "--", "--top"], "top", 3),
        (["predict", "M", "a.png", "--output", "7"], "output", "7"),
        (["export", "M", "--formats", "onnx"], "formats", ["onnx"]),
        (["export", "M", "--formats", "litert-int8, onnx"], "formats", ["litert-int8", "onnx"]),
        (["export", "M", "--formats=[litert-int8,onnx]"], "formats", ["litert-int8", "onnx"]),
        (["export", "M", "--formats+=onnx"], "formats", ["onnx"]),
        (["export", "M", "--check_images", "null"], "check_images", None),
        (["export", "M", "--name", "7"], "name", "7"),
        (["demo", "M", "--port", "0"], "port", 0),
        (["evaluate", "M", "--batch_size=7", "--allow-unsafe"], "batch_size", 7),
    ],
)
def test_options_of_a_command(arguments, key, value):
    given = options.read(arguments[0], arguments[1:])
    found = getattr(given.options, key)
    assert found == value and type(found) is type(value)
    assert given.unsafe == ("--allow-unsafe" in arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "places"),
    [
        ("predict", ["M", "a", "--top", "1", "b"], {"model": "M", "images": ["a", "b"]}),
        ("predict", ["M", "--", "--top"], {"model": "M", "images": ["--top"]}),
        ("studies", [], {"name": None}),
        ("studies", ["mysteries"], {"name": "mysteries"}),
        ("doctor", [], {}),
    ],
)
def test_places_of_a_command(name, arguments, places):
    assert options.read(name, arguments).places == places


def test_options_stand_over_the_images_of_a_file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("data: {source: imagewoof, image_size: 32, augment: {flip: true}}\n")
    images = options.read("evaluate", ["M", "--data.image_size=64", "--data.augment.cutout=2"])
    found = images.images(path)
    assert (found.source, found.image_size) == ("imagewoof", 64)
    assert found.augment.flip and found.augment.cutout == 2
    assert images.images(None).source == "digits"
    assert options.read("evaluate", ["M"]).images(None) is None


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_a_command_explains_every_option(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        options.read(name, ["--help"])
    printed = capsys.readouterr().out
    assert printed == help_pages.page(name)
    lines = " ".join(printed.split())
    for place, about in COMMANDS[name].places.items():
        assert f"{place.upper()} {about}" in lines
    for field in command_options.LEAVES[name]:
        parents = field.key.split(".")
        shown = [f"--{'.'.join(parents[:depth])}.KEY" for depth in range(1, len(parents))]
        assert any(f"{option} " in lines for option in (f"--{field.key}", *shown)), field


def test_help_and_errors_do_not_wait_for_tensorflow():
    script = (
        "import sys; from tfdistill.cli.main import main\n"
        "assert main(['--help']) == 0 and main(['export', 'M', '--formats', 'x']) == 2\n"
        "assert main(['predict', 'M', 'a.png', '--top', 'x']) == 2\n"
        "assert main(['demo', 'M', '--port', 'x']) == main(['evaluate', 'M', '--data.x=1']) == 2\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0
