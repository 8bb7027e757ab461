"""What a shell or keras.json holds for other programs: handled, or refused in one line."""

import os
import subprocess
import sys

import keras
import pytest

from tfdistill.utils import tensorflow
from tfdistill.utils.checks import UsageError


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


@pytest.mark.slow
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
