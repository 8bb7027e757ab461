"""A format as somebody else may add it: a SavedModel's folder in one zip file."""

import shutil
import tempfile
from pathlib import Path

from tfdistill.export.format import (
    DEFAULT,
    IMAGE,
    ExportFormat,
    Runtime,
    check_names,
    imported,
)


class Zipped(Runtime):
    """A zip file, unpacked and run by TensorFlow."""

    title = "Zip"
    without = ()

    def __init__(self, path: Path, threads: int | None):
        self._tf = imported("tensorflow", "tensorflow", path)
        with tempfile.TemporaryDirectory() as folder:
            shutil.unpack_archive(path, folder)
            self._model = self._tf.saved_model.load(folder)
        self._answer = self._model.signatures[DEFAULT]
        inputs = self._answer.structured_input_signature[1]
        check_names(inputs, self._answer.structured_outputs)
        self.input_shape = tuple(inputs[IMAGE].shape[1:])

    def run(self, images):
        found = self._answer(image=self._tf.constant(images))
        return {name: value.numpy() for name, value in found.items()}


def _write(source, path: Path) -> None:
    shutil.make_archive(str(path.with_suffix("")), "zip", source.numeric)


ZIP = ExportFormat(
    name="zip",
    title="Zip",
    file="model.zip",
    write=_write,
    runtime=Zipped,
    tolerance=1e-4,
    usage="Unpack `{{ format.files[0].path }}`, {{ sizes }} pixels.",
    limit="It is larger once it is unpacked.",
)
