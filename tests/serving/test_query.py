"""scripts/query.py over REST and gRPC, as a user runs it."""

import socket
import subprocess
import sys

import pytest
from PIL import Image

from tests.serving.conftest import CLASSES, ROOT, answers, expected_answers

pytestmark = pytest.mark.slow


@pytest.fixture(params=["rest", "grpc"])
def place(request, served) -> tuple[str, str]:
    """Options that name the server."""
    return ("--url", served.url) if request.param == "rest" else ("--grpc", served.grpc)


def _one_line(completed) -> str:
    assert completed.returncode == 1, completed.stdout
    [line] = completed.stderr.splitlines()
    return line


@pytest.mark.parametrize("signature", ["bytes", "serving_default"])
def test_answers_are_the_networks(served, query, place, signature):
    completed = query("student", *served.files, *place, "--signature", signature)
    assert completed.returncode == 0, completed.stderr
    assert answers(completed) == expected_answers(served)
    assert len({label for _, label, _ in expected_answers(served)}) > 1


def test_what_goes_wrong_with_an_image_does_not_cost_the_others(served, query, place, tmp_path):
    broken, text = tmp_path / "broken.png", tmp_path / "text.png"
    broken.write_bytes(served.files[1].read_bytes()[:60])
    text.write_text("no image at all")
    paths = [served.files[0], broken, text, tmp_path / "missing.png", served.files[2]]
    completed = query("student", *paths, *place)
    assert completed.returncode == 1
    expected = expected_answers(served)
    assert answers(completed) == [expected[0], expected[2]]
    lines = completed.stderr.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(path) for path in paths[1:4]]
    code = "400" if place[0] == "--url" else "INVALID_ARGUMENT"
    assert f"{code}: " in lines[0] and "image_bytes[0] is cut off" in lines[0]
    assert "neither JPEG nor PNG" in lines[1]
    assert "No such file" in lines[2]


def test_an_unknown_model_is_one_line(served, query, place):
    line = _one_line(query("teacher", served.files[0], *place))
    assert "404" in line or "NOT_FOUND" in line


@pytest.mark.parametrize("option", ["--url", "--grpc"])
def test_no_server_is_one_line(query, exported, option):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        url = f"http://{address}" if option == "--url" else address
        line = _one_line(query("student", exported[3][0], option, url))
    assert "Connection refused" in line


def test_encoded_images_need_python_alone(served):
    script = ROOT / "scripts" / "query.py"
    arguments = ["student", served.files[0], "--url", served.url]
    program = "import sys, runpy; sys.modules.update(numpy=None, PIL=None, tensorflow=None);"
    program += f"sys.argv = {list(map(str, [script, *arguments]))!r};"
    program += "runpy.run_path(sys.argv[0], run_name='__main__')"
    completed = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True)
    assert completed.returncode == 0, completed.stderr
    assert CLASSES[served.expected()[0].argmax()] in completed.stdout.decode()


def test_pixels_of_another_size_are_refused_not_resized(served, query, tmp_path):
    Image.new("L", (9, 8)).save(tmp_path / "wide.png")
    path, options = tmp_path / "wide.png", ("--url", served.url, "--signature", "serving_default")
    assert ": 400: " in _one_line(query("student", path, *options))
    Image.new("I;16", (8, 8)).save(tmp_path / "deep.png")
    assert "more than 8 bits" in _one_line(query("student", tmp_path / "deep.png", *options))
