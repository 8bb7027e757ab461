"""What a shell or keras.json holds for other programs: handled, or refused in one line."""

import os
import signal
import subprocess
import sys

import keras
import pytest

from tfdistill.utils import tensorflow
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name, read, write, value",
    [
        ("floatx", keras.config.floatx, keras.config.set_floatx, "float16"),
        ("epsilon", keras.config.epsilon, keras.config.set_epsilon, 1e-3),
        ("max_epochs", keras.config.max_epochs, keras.config.set_max_epochs, 1),
        (
            "max_steps_per_epoch",
            keras.config.max_steps_per_epoch,
            keras.config.set_max_steps_per_epoch,
            1,
        ),
        (
            "image_data_format",
            keras.config.image_data_format,
            keras.config.set_image_data_format,
            "channels_first",
        ),
    ],
)
def test_what_would_change_results_is_refused(name, read, write, value):
    before = read()
    tensorflow.start()
    try:
        write(value)
        with pytest.raises(UsageError, match=f"set to {name}={before}.* Received: {name}={value}"):
            tensorflow.start()
    finally:
        write(before)
    tensorflow.start()


@pytest.mark.parametrize(
    "content, line",
    [
        ('{"backend": "torch", "image_data_format": "channels_first"}', "image_data_format=chann"),
        ("[1]", "Keras cannot be imported as it is set up"),
    ],
)
def test_a_command_needs_no_backend_of_the_shell_and_names_a_wrong_keras_json(
    content, line, tmp_path
):
    (tmp_path / "keras.json").write_text(content)
    shell = {"KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "1", "KERAS_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tfdistill", "doctor"],
        env={**os.environ, **shell},
        capture_output=True,
        text=True,
    )
    (error,) = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == "" and line in error
    assert error.startswith("tfdistill: error: ") and f"keras.json in {tmp_path}" in error


PRINTS = "import os, sys\nos.write(2, b'native: no memory\\n\\n')\n"
REMEDY = "See whether memory is short"


def _with_tensorflow(code, folder, *command, stub="tensorflow/__init__.py"):
    """Return how a command ends where the package `tensorflow` is this code."""
    path = folder / "packages" / stub
    path.parent.mkdir(parents=True)
    path.write_text(code)
    places = os.pathsep.join([str(folder / "packages"), os.getcwd()])
    return subprocess.run(
        [sys.executable, *map(str, command)],
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        ("os.abort()", -signal.SIGABRT),
        ("os._exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_what_a_tensorflow_prints_that_ends_the_process_is_shown(ends, status, tmp_path):
    done = _with_tensorflow(f"import signal\n{PRINTS}{ends}", tmp_path, "-m", "tfdistill", "doctor")
    line, *printed = done.stderr.splitlines()
    assert done.returncode == status and done.stdout == ""
    assert line.startswith("tfdistill: error: TensorFlow could not start") and REMEDY in line
    assert printed == ["native: no memory", ""]


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("raise ImportError('libtensorflow_cc.so: no memory\\nmore')", "libtensorflow_cc.so: no m"),
        ("raise ValueError('numpy.dtype size changed')", "ValueError: numpy.dtype size changed"),
        ("raise MemoryError", "MemoryError"),
        ("sys.exit('no CPU for it')", "SystemExit: no CPU for it"),
        ("", "No module named 'tensorflow.python'"),
    ],
)
def test_a_tensorflow_that_cannot_be_imported_is_one_line_and_what_it_printed(
    fails, said, tmp_path
):
    done = _with_tensorflow(PRINTS + fails, tmp_path, "-m", "tfdistill", "doctor")
    line, *printed = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == ""
    assert line.startswith("tfdistill: error: TensorFlow cannot be imported. ")
    assert said in line and REMEDY in line and printed == ["native: no memory"]


@pytest.mark.parametrize("command", ["distill", "reproduce"])
def test_commands_that_open_networks_first_say_so_too(command, mysteries, tmp_path):
    run = mysteries / "out" / "runs" / "single-0"
    given = {"distill": ["digits", "--teacher", run / "best.keras"], "reproduce": [run]}[command]
    out = tmp_path / "out"
    done = _with_tensorflow(
        "raise ImportError", tmp_path, "-m", "tfdistill", command, *given, "--output", out
    )
    assert done.returncode == 2 and not out.exists()
    assert "tfdistill: error: TensorFlow cannot be imported. ImportError" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_signal_while_tensorflow_starts_is_one_line(tmp_path):
    # Deaf, as native code is: the process is ended without another instruction of Python's.
    deaf = "import os, signal, threading\nos.kill(os.getpid(), signal.SIGTERM)\n"
    deaf += "while True:\n    try: threading.Event().wait()\n    except KeyboardInterrupt: pass\n"
    done = _with_tensorflow(deaf, tmp_path, "-m", "tfdistill", "doctor")
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "tfdistill: stopped by SIGTERM.\n"


def test_what_is_kept_back_is_dropped_unless_the_process_ends(tmp_path):
    program = (
        "import os, sys\nfrom tfdistill.utils import tensorflow\n"
        "with tensorflow.quiet():\n    os.write(1, b'one'); print('two', file=sys.stderr)\n"
        "print('said')\n"
        "with tensorflow.muted((2,), 'The converter ended.') as printed:\n"
        "    os.write(2, b'three'); sys.stderr.write(' four'); assert printed() == 'three four'\n"
        "    os._exit(1)\n"
    )
    done = _with_tensorflow("", tmp_path, "-c", program)
    assert done.stdout == "said\n"
    line, printed = done.stderr.splitlines()
    assert "The converter ended." in line and printed == "three four"
