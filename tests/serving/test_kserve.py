"""An exported student behind KServe's model server, an implementation that is not ours.

Runs if TFDISTILL_KSERVE names the Python of an environment with kserve and tensorflow, such as
the one that scripts/serve_kserve.sh makes: TFDISTILL_KSERVE=.venv-kserve/bin/python.
"""

import json
import os
import socket
import subprocess
import urllib.error
import urllib.request

import numpy as np
import pytest

from tests.serving.conftest import CLASSES, answers
from tests.serving.processes import ROOT, Process

KSERVE = os.environ.get("TFDISTILL_KSERVE")
needs_kserve = pytest.mark.skipif(not KSERVE, reason="TFDISTILL_KSERVE names no Python with kserve")


@pytest.fixture(scope="module")
def url(exported):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = ROOT / "scripts" / "serving" / "kserve_server.py"
    command = [KSERVE, str(script), str(exported[0] / "student"), "student", "--port", str(port)]
    with Process(command) as process:
        process.line_with("Uvicorn running on", seconds=180)
        yield f"http://127.0.0.1:{port}"


@needs_kserve
@pytest.mark.parametrize("signature", ["bytes", "serving_default"])
def test_answers_are_the_networks(url, exported, query, signature):
    _, network, images, files = exported
    completed = query("student", *files, "--url", url, "--signature", signature, "--json")
    expected = np.asarray(network(images.astype("float32"), training=False))
    expected = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    np.testing.assert_allclose(answers(completed, "probabilities"), expected, atol=1e-6)
    names = [CLASSES[c] for c in expected.argmax(1)]
    np.testing.assert_array_equal(answers(completed, "class_name"), names)


@needs_kserve
def test_a_broken_image_is_refused_and_the_others_are_answered(url, exported, query, tmp_path):
    files = exported[3]
    broken = tmp_path / "broken.png"
    broken.write_bytes(files[1].read_bytes()[:60])
    completed = query("student", files[0], broken, "--url", url, "--signature", "bytes", "--json")
    good, bad = json.loads(completed.stdout)
    assert good["class_name"] in CLASSES
    assert "answered 400: image_bytes[0] is cut off" in bad["error"]


@needs_kserve
@pytest.mark.parametrize(
    "instance, text",
    [
        ([[[300]] * 8] * 8, "from 0 to 255"),
        ([[[0.5]] * 8] * 8, "must be uint8"),
        ([[[3]] * 9] * 9, "must be uint8 (None, 8, 8, 1)"),
        ([[[1], [2]], [[3]]], "non-rectangular"),
        ({"b64": "AAAA"}, "must be uint8"),
    ],
)
def test_instances_that_are_no_images_are_refused(url, instance, text):
    request = urllib.request.Request(
        f"{url}/v1/models/student:predict",
        json.dumps({"instances": [instance]}).encode(),
        {"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=60)
    assert error.value.code == 400
    assert text in json.load(error.value)["error"]


@needs_kserve
def test_an_unknown_model_is_one_line(url, exported, query):
    completed = query("teacher", exported[3][0], "--url", url, "--signature", "bytes")
    assert completed.returncode == 1
    [line] = completed.stderr.splitlines()
    assert "has no model teacher" in line


@pytest.mark.parametrize(
    "arguments, text",
    [
        ([], "Received 0 values"),
        (["missing"], "must be the folder of an export"),
        ([""], "hold VERSION"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_installed(tmp_path, arguments, text):
    script = ROOT / "scripts" / "serve_kserve.sh"
    folders = [str(tmp_path / name) for name in arguments]
    completed = subprocess.run(
        ["bash", str(script), *folders], capture_output=True, text=True, timeout=60
    )
    assert completed.returncode == 2
    [line] = completed.stderr.splitlines()
    assert text in line
