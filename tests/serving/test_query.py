"""scripts/query.py over REST, as a user runs it."""

import json
import re
import socket
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.serving.conftest import CLASSES, answers
from tests.serving.processes import ROOT


def _one_line(completed) -> str:
    assert completed.returncode == 1, completed.stdout
    [line] = completed.stderr.splitlines()
    return line


@pytest.mark.parametrize("signature", ["bytes", "serving_default"])
def test_answers_are_the_networks(served, query, signature):
    completed = query(
        "student", *served.files, "--url", served.url, "--signature", signature, "--json"
    )
    expected = served.expected()
    assert len(set(expected.argmax(1))) > 1
    np.testing.assert_allclose(answers(completed, "probabilities"), expected, atol=1e-6)
    np.testing.assert_array_equal(answers(completed, "class_id"), expected.argmax(1))
    names = [CLASSES[c] for c in expected.argmax(1)]
    np.testing.assert_array_equal(answers(completed, "class_name"), names)


def test_encoded_images_need_python_alone(served):
    script = ROOT / "scripts" / "query.py"
    arguments = ["student", served.files[0], "--url", served.url, "--signature", "bytes"]
    program = "import sys, runpy; sys.modules.update(numpy=None, PIL=None, tensorflow=None);"
    program += f"sys.argv = {list(map(str, [script, *arguments]))!r};"
    program += "runpy.run_path(sys.argv[0], run_name='__main__')"
    completed = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True)
    assert completed.returncode == 0, completed.stderr
    assert CLASSES[served.expected()[0].argmax()] in completed.stdout.decode()


def test_table_shows_the_likeliest_classes_in_order(served, query, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(CLASSES))
    completed = query(
        "student",
        *served.files,
        "--url",
        served.url,
        "--top",
        2,
        "--labels",
        tmp_path / "labels.txt",
    )
    lines = completed.stdout.splitlines()
    for line, path, probabilities in zip(lines, served.files, served.expected(), strict=True):
        first, second = np.argsort(-probabilities)[:2]
        shown = f"{CLASSES[first]} {probabilities[first]:.4f}", f"{CLASSES[second]} "
        assert re.split("  +", line)[:1] == [str(path)]
        assert shown[0] in line and shown[1] in line and CLASSES[3 - first - second] not in line


def test_without_labels_only_the_likeliest_class_has_a_name(served, query):
    completed = query("student", served.files[0], "--url", served.url)
    first, second = np.argsort(-served.expected()[0])[:2]
    assert CLASSES[first] in completed.stdout
    assert f"class {second} " in completed.stdout


def _png_header(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk


def test_unfit_files_are_named_and_the_others_are_answered(served, query, tmp_path):
    unfit = {
        "empty.png": (b"", "empty"),
        "text.jpg": (b"no image at all", "neither JPEG nor PNG"),
        "huge.png": (_png_header(60_000, 60_000), "60000x60000 pixels, over 25 megapixels"),
        "huge.jpg": (
            b"\xff\xd8\xff\xe0\0\x04ab\xff\xff\xc2\0\x11\x08" + struct.pack(">HH", 5001, 5000),
            "5000x5001 pixels, over 25 megapixels",
        ),
        "flat.png": (_png_header(5, 0), "no width or height"),
        "cut.jpg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG without a size"),
    }
    for name, (content, _) in unfit.items():
        (tmp_path / name).write_bytes(content)
    paths = [served.files[0], *(tmp_path / name for name in unfit), tmp_path / "missing.png"]
    completed = query("student", *paths, "--url", served.url, "--signature", "bytes", "--json")
    assert completed.returncode == 1
    good, *bad = json.loads(completed.stdout)
    assert good["class_id"] == served.expected()[0].argmax()
    for row, text in zip(bad, [text for _, text in unfit.values()] + ["No such file"], strict=True):
        assert text in row["error"]
        assert f"{row['image']}: {row['error']}" in completed.stderr.splitlines()


def test_an_image_that_the_server_refuses_does_not_cost_the_others(served, query, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(served.files[1].read_bytes()[:60])
    completed = query(
        "student", served.files[0], broken, served.files[2], "--url", served.url,
        "--signature", "bytes", "--json",
    )  # fmt: skip
    rows = json.loads(completed.stdout)
    assert [row.get("class_id") for row in rows[::2]] == served.expected()[[0, 2]].argmax(
        1
    ).tolist()
    assert rows[1]["error"].startswith(f"{served.url} answered 400: image_bytes[0] is cut off")
    assert _one_line(completed).startswith(str(broken))


def test_pixels_of_another_size_are_refused_not_resized(served, query, tmp_path):
    Image.new("L", (9, 8)).save(tmp_path / "wide.png")
    completed = query("student", tmp_path / "wide.png", "--url", served.url)
    assert "9x8 pixels where the model takes 8x8; use --signature bytes" in _one_line(completed)


def test_jpeg_files_are_sent_as_they_are(served, query, tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(served.images[0, ..., 0]).resize((40, 30)).save(path, progressive=True)
    completed = query("student", path, "--url", served.url, "--signature", "bytes", "--json")
    assert answers(completed, "probabilities").shape == (1, 3)


def test_unknown_model_and_version_are_one_line(served, query):
    path = served.files[0]
    for more in ([], ["--signature", "bytes"]):
        line = _one_line(query("teacher", path, "--url", served.url, *more))
        assert "has no model teacher" in line
    line = _one_line(query("student", path, "--url", served.url, "--version", 9))
    assert "has no model student version 9" in line


def test_no_server_is_one_line(query, exported):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        line = _one_line(query("student", exported[3][0], "--url", url))
    assert f"No answer from {url}: Connection refused" in line


def test_a_server_that_never_answers_is_given_up(query, exported):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        line = _one_line(query("student", exported[3][0], "--url", url, "--timeout", 0.3))
    assert "within 0.3 s" in line


def test_an_address_without_http_is_one_line(query, exported):
    line = _one_line(query("student", exported[3][0], "--url", "localhost:8501"))
    assert "must start with http://" in line
