"""The public names, and what importing them costs."""

import subprocess
import sys

import tfdistill


def test_every_public_name_is_there_and_documented():
    for name in tfdistill.__all__:
        value = getattr(tfdistill, name)
        assert name == "__version__" or value.__doc__


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(tfdistill, "Distiler")


def test_importing_the_package_and_its_configuration_leaves_tensorflow_out():
    program = (
        "import sys, tfdistill, tfdistill.cli.main, tfdistill.training.runner\n"
        "import tfdistill.data, tfdistill.models, tfdistill.tuners, tfdistill.teacher_cache\n"
        "import tfdistill.inference.demo\n"
        "print([name for name in ('tensorflow', 'keras', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
