"""Networks in a process of their own: what it cannot import, what it answers, how it dies."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import forked
from tfdistill import models
from tfdistill.config import ModelConfig
from tfdistill.export import isolated, litert, onnx, saved_model, verify
from tfdistill.export.format import open_model
from tfdistill.export.isolated import Probe, ProbeError
from tfdistill.utils import checks

pytestmark = pytest.mark.slow

NAMES = ("cat", "Käfer", "tree")
KINDS = {"savedmodel": "served", "litert": "model.tflite", "onnx": "model.onnx"}
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    keras.utils.set_random_seed(0)
    network = models.build(ModelConfig("cnn2"), (8, 8, 3), 3, 127.5, 127.5)
    folder = tmp_path_factory.mktemp("exports")
    saved_model.write(network, folder / KINDS["savedmodel"], (8, 8, 3), NAMES)
    saved_model.write_numeric(network, folder / "numeric", (8, 8, 3))
    litert.convert(folder / "numeric", folder / KINDS["litert"], "float32")
    onnx.convert(folder / "numeric", folder / KINDS["onnx"], NAMES)
    return folder


@pytest.fixture(scope="module")
def answers(folder):
    """What the SavedModel says in this process."""
    return open_model(folder / KINDS["savedmodel"])(PIXELS)


@pytest.mark.parametrize("kind", ["litert", "onnx"])
def test_it_answers_and_measures(folder, answers, kind):
    with Probe(folder / KINDS[kind]) as probe:
        for batch_size in (1, 2, 64):
            found = probe.answer(PIXELS, batch_size)
            np.testing.assert_allclose(found["logits"], answers["logits"], atol=1e-5)
            np.testing.assert_array_equal(found["class_id"], answers["class_id"])
        seconds = probe.time(PIXELS, batch_size=32, calls=4)
        assert len(seconds) == 4
        assert all(0 < each < 60 for each in seconds)
        assert 2**20 < probe.peak_bytes() < 2**34
        with pytest.raises(ProbeError, match=r"^Only a SavedModel takes image files"):
            probe.answer_bytes([b"no image"])


def test_a_saved_model_answers_pixels_and_files(folder, answers):
    with Probe(folder / KINDS["savedmodel"]) as probe:
        files = [tf.io.encode_png(image).numpy() for image in PIXELS]
        for found in (probe.answer(PIXELS, 2), probe.answer_bytes(files, 2)):
            np.testing.assert_allclose(found["logits"], answers["logits"], atol=1e-5)
            assert found["class_name"].tolist() == answers["class_name"].tolist()
        with pytest.raises(ProbeError, match=r"^The SavedModel refuses.*: image_bytes\[1\]"):
            probe.answer_bytes([files[0], b"no image"])
        with pytest.raises(ProbeError, match="one or more image files"):
            probe.answer_bytes([])
        assert len(probe.time(PIXELS, batch_size=1, calls=2)) == 2
        with pytest.raises(ProbeError, match=r"Received: uint8 \[0, 8, 8, 3\]"):
            probe.time(PIXELS[:0], batch_size=1, calls=2)


def test_wrong_images_are_refused_and_the_process_goes_on(folder, answers):
    with Probe(folder / KINDS["onnx"]) as probe:
        with pytest.raises(ProbeError, match=r"Received: uint8 \[5, 8, 7, 3\]"):
            probe.answer(PIXELS[:, :, :7])
        with pytest.raises(ProbeError, match=r"Received: float32 \[5, 8, 8, 3\]"):
            probe.time(PIXELS.astype("float32"), 1, 1)
        found = probe.answer(PIXELS)
    np.testing.assert_allclose(found["logits"], answers["logits"], atol=1e-5)


@pytest.mark.parametrize(
    ("runtime", "refused"),
    [
        (litert.LiteRT, ["tfdistill", "tensorflow", "keras"]),
        (onnx.Onnx, ["tfdistill", "tensorflow", "keras"]),
        (saved_model.SavedModel, ["tfdistill"]),
    ],
)
def test_the_process_cannot_import_what_an_export_must_not_need(tmp_path, runtime, refused):
    # the program as a probe starts it, which then tries the imports
    place = f"{sys.modules[runtime.__module__].__file__}:{runtime.__name__}"
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['isolated.py', {str(tmp_path / 'missing')!r}, {place!r}]\n"
        f"try: runpy.run_path({isolated.__file__!r}, run_name='__main__')\n"
        "except SystemExit: print('ended', file=sys.stderr)\n"
        f"for name in [*{refused}, 'numpy']:\n"
        "    try: __import__(name)\n"
        "    except ImportError: print(name, file=sys.stderr)\n"
    )
    if "tensorflow" in refused:
        command = [sys.executable, "-I", "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        printed, errors = done.stdout, done.stderr
    else:  # TensorFlow need not be imported again for that
        gone = "for name in [*sys.modules]:\n if 'tfdistill' in name: del sys.modules[name]\n"
        (tmp_path / "program.py").write_text(f"import sys\n{gone}{program}")
        printed, errors = forked.program(tmp_path / "program.py").communicate()
    assert json.loads(printed)["error"].startswith("Cannot read the model")
    assert errors.splitlines()[-1 - len(refused) :] == ["ended", *refused]


@pytest.mark.parametrize(
    ("imports", "said"),
    [
        ("os.write(2, b'no memory\\nfor it'); os.abort()", "killed by signal 6. It printed: ...no"),
        ("os._exit(3)", "exit status 3."),
        ("raise ImportError('libtf.so: no memory')", "cannot be imported: libtf.so: no memory."),
        ("raise ModuleNotFoundError(name='numpy')", "cannot be imported: ModuleNotFoundError."),
    ],
)
def test_a_runtime_that_cannot_start_is_told_of(tmp_path, imports, said):
    (tmp_path / "broken.py").write_text(f"import os\n{imports}")
    (tmp_path / "runtime.py").write_text(
        "import sys\nfrom tfdistill.export.format import Runtime, imported\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "class Broken(Runtime):\n"
        "    def __init__(self, path, threads): imported('broken', 'broken', path)\n"
    )

    class OfBroken(Probe):
        def _runtime(self):
            return f"{tmp_path / 'runtime.py'}:Broken"

    with pytest.raises(ProbeError, match=re.escape(said)) as caught, OfBroken(tmp_path):
        pass
    assert "\n" not in str(caught.value)


def test_a_killed_process_is_an_error_and_no_hang(folder):
    with Probe(folder / KINDS["litert"]) as probe:
        os.kill(probe._process.pid, signal.SIGKILL)
        with pytest.raises(ProbeError, match="has ended: killed by signal 9"):
            probe.answer(PIXELS)
        with pytest.raises(ProbeError, match="killed by signal 9"):
            probe.peak_bytes()
        # As every command says it that exports.
        says = "killed by signal 9, as the system does when memory runs out"
        with pytest.raises(checks.Refused, match=says), verify.refused():
            probe.answer(PIXELS)


def test_its_end_leaves_no_process_and_no_files(folder):
    with Probe(folder / KINDS["litert"]) as probe:
        probe.answer(PIXELS)
        process, files = probe._process, probe._folder
        assert process.poll() is None
        assert files.is_dir()
    assert process.poll() is not None
    assert not files.exists()


def test_damaged_and_missing_models_are_errors_of_one_line(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"damaged")
    with pytest.raises(ProbeError, match=f"^Cannot read the model {path}: .+\\.$"), Probe(path):
        pass
    missing = Path("missing.tflite")
    with pytest.raises(ProbeError, match="^There is no model missing.tflite"), Probe(missing):
        pass


def test_it_ends_with_the_process_that_started_it(folder):
    program = (
        "import sys, time; from tfdistill.export.isolated import Probe\n"
        "with Probe(sys.argv[1]) as probe:\n"
        "    print(probe._process.pid, flush=True)\n"
        "    time.sleep(1000)\n"
    )
    command = [sys.executable, "-c", program, str(folder / KINDS["litert"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    end = time.monotonic() + 600
    while _runs(child):
        assert time.monotonic() < end, f"{child} is still there"
        time.sleep(0.05)


def _runs(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
