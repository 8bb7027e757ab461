"""Exported models in a folder, answered as TensorFlow Serving answers: for tests of clients."""

import threading
from dataclasses import dataclass
from pathlib import Path

import grpc
import tensorflow as tf

KEPT_VERSIONS = 2
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Failure(Exception):
    """A request that cannot be answered: a status code of gRPC and a text."""

    def __init__(self, code: grpc.StatusCode, text: str):
        super().__init__(text)
        self.code, self.text = code, text


@dataclass(frozen=True)
class Version:
    """One loaded SavedModel."""

    model: str
    number: int
    loaded: object

    @property
    def signatures(self):
        """Return the signatures by name."""
        return self.loaded.signatures

    def inputs(self, signature: str) -> dict[str, tf.TensorSpec]:
        """Return the inputs of a signature by name."""
        return self.signatures[signature].structured_input_signature[1]

    def predict(self, signature: str, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Return the outputs by name."""
        if signature not in self.signatures:
            raise Failure(
                grpc.StatusCode.FAILED_PRECONDITION,
                f'Serving signature key "{signature}" not found.',
            )
        expected = self.inputs(signature)
        if set(inputs) != set(expected):
            raise _invalid(f"input must be {sorted(expected)}, but got {sorted(inputs)}")
        for name, spec in expected.items():
            if inputs[name].dtype != spec.dtype or not spec.shape.is_compatible_with(
                inputs[name].shape
            ):
                raise _invalid(f"{name} must be {spec}, but got {inputs[name]!r:.200}")
        try:
            return self.signatures[signature](**inputs)
        except tf.errors.OpError as error:
            raise Failure(CODES[error.error_code], error.message) from None


class ServedModels:
    """The models in FOLDER/NAME/VERSION; the folder is looked at again at every request."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._loaded: dict[Path, Version] = {}
        self._lock = threading.Lock()

    def versions(self, model: str) -> list[int]:
        """Return the newest versions of a model, the newest first; raise if there is none."""
        found = [path.parent for path in (self.folder / model).glob("*/saved_model.pb")]
        numbers = sorted((int(path.name) for path in found if path.name.isdigit()), reverse=True)
        if not model or not numbers:
            raise _not_found(f"Latest({model})")
        return numbers[:KEPT_VERSIONS]

    def find(self, model: str, number: int | None = None) -> Version:
        """Return a version of a model, by default the newest; raise if it is not served."""
        versions = self.versions(model)
        if number is not None and number not in versions:
            raise _not_found(f"Specific({model}, {number})")
        number = versions[0] if number is None else number
        path = self.folder / model / str(number)
        with self._lock:
            if path not in self._loaded:
                self._loaded[path] = Version(model, number, tf.saved_model.load(str(path)))
            return self._loaded[path]


def _invalid(text: str) -> Failure:
    return Failure(grpc.StatusCode.INVALID_ARGUMENT, text)


def _not_found(what: str) -> Failure:
    return Failure(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {what}")
