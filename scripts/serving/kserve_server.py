"""Serves an exported SavedModel with KServe, over the REST form of TensorFlow Serving.

    python kserve_server.py FOLDER NAME [--port 8080]

FOLDER is a model's folder, of which the newest version is served, or one version. It answers
POST /v1/models/NAME:predict with {"signature_name": ..., "instances": [...]}, GET /v1/models/NAME,
and GET /v1/models/NAME/metadata with the size of the images. It needs kserve and tensorflow, not
tfdistill; scripts/serve_kserve.sh installs them. KServe opens the port on every address.
"""

import argparse
import base64
import binascii
import sys
from pathlib import Path

import kserve
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from kserve.errors import InvalidInput
from kserve.model_server import app
from tensorflow.core.protobuf import saved_model_pb2


class SavedModel(kserve.Model):
    """A SavedModel with signatures of one input each."""

    def __init__(self, name: str, folder: Path):
        super().__init__(name)
        self.folder = folder
        self.load()

    def load(self) -> bool:
        """Read the model from its folder."""
        self.model = tf.saved_model.load(str(self.folder))
        self.ready = True
        return self.ready

    def predict(self, payload: dict, headers=None, response_headers=None) -> dict:
        """Return the outputs by name of each instance.

        Args:
            payload: `instances`, each {"b64": an encoded image} or nested lists of pixels, and the
                `signature_name`, by default `serving_default`.

        Raises:
            InvalidInput: The signature is unknown, or an instance does not fit it.
        """
        if not isinstance(payload, dict) or not payload.get("instances"):
            raise InvalidInput("The request must be application/json with a list of instances.")
        name = payload.get("signature_name", "serving_default")
        if name not in self.model.signatures:
            raise InvalidInput(f'Serving signature name: "{name}" not found in signature def')
        signature = self.model.signatures[name]
        [(key, spec)] = signature.structured_input_signature[1].items()
        try:
            outputs = signature(**{key: _batch(payload["instances"], spec)})
        except (tf.errors.OpError, ValueError, TypeError, KeyError, binascii.Error) as error:
            raise InvalidInput(str(error)) from error
        columns = {name: output.numpy().tolist() for name, output in outputs.items()}
        rows = zip(*columns.values(), strict=True)
        return {"predictions": [dict(zip(columns, map(_text, row), strict=True)) for row in rows]}

    def metadata(self) -> dict:
        """Return the signatures as TensorFlow Serving describes them."""
        content = (self.folder / "saved_model.pb").read_bytes()
        graph = saved_model_pb2.SavedModel.FromString(content).meta_graphs[0]
        signatures = {
            name: MessageToDict(definition, preserving_proto_field_name=True)
            for name, definition in graph.signature_def.items()
        }
        return {
            "model_spec": {"name": self.name, "signature_name": "", "version": self.folder.name},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }


def _batch(instances: list, spec: tf.TensorSpec) -> tf.Tensor:
    """Return the instances as one tensor that fits a signature's input; raise ValueError if not."""
    values = tf.constant([_value(instance) for instance in instances])
    # TensorFlow itself takes 300 for a byte, as 44, and images of any size.
    if spec.dtype == tf.uint8 and values.dtype == tf.int32:
        if tf.reduce_any((values < 0) | (values > 255)):
            raise ValueError("Pixels must be whole numbers from 0 to 255.")
        values = tf.cast(values, tf.uint8)
    if values.dtype != spec.dtype or not spec.shape.is_compatible_with(values.shape):
        expected, received = (f"{one.dtype.name} {one.shape}" for one in (spec, values))
        raise ValueError(f"The instances must be {expected}. Received: {received}.")
    return values


def _value(instance):
    """Return what a signature takes for one instance: bytes or pixels."""
    return base64.b64decode(instance["b64"]) if isinstance(instance, dict) else instance


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


def newest(folder: Path) -> Path:
    """Return the folder to load: the newest version in `folder`, or `folder` itself."""
    if (folder / "saved_model.pb").is_file():
        return folder
    found = [path.parent for path in folder.glob("*/saved_model.pb")]
    versions = [path for path in found if path.name.isdigit()]
    if not versions:
        sys.exit(
            f"FOLDER must hold VERSION/saved_model.pb. Received: {folder}. Export a model first."
        )
    return max(versions, key=lambda path: int(path.name))


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    model = SavedModel(options.name, newest(options.folder))
    app.add_api_route(f"/v1/models/{options.name}/metadata", model.metadata)
    kserve.ModelServer(http_port=options.port, enable_grpc=False).start([model])


if __name__ == "__main__":
    main()
