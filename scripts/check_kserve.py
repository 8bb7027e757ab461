"""Checks before a release that KServe's model server, which is not ours, serves an export rightly.

    .venv/bin/python scripts/check_kserve.py

Exports a small network, lets KServe serve it and compares its answers over both signatures with
those of the Keras network. KServe and its TensorFlow (a gigabyte, the first time) go into
.venv-kserve, because they need other versions of shared packages. Exit status 1 where an answer is
not as it must be.
"""

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

PYTHON = Path(__file__).parents[1] / ".venv-kserve" / "bin" / "python"
PACKAGES = ("kserve>=0.21,<0.22", "tensorflow>=2.21,<2.22")
SECONDS = 300  # that the server may take to start
SHAPE = (8, 8, 1)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def serve(folder: str, port: int) -> None:
    """Serve the SavedModel in a folder as `student`, in .venv-kserve."""
    import kserve
    import tensorflow as tf

    class SavedModel(kserve.Model):
        def __init__(self):
            super().__init__("student")
            self.model = tf.saved_model.load(folder)
            self.ready = True

        def predict(self, payload: dict, headers=None, response_headers=None) -> dict:
            signature = self.model.signatures[payload["signature_name"]]
            [(name, spec)] = signature.structured_input_signature[1].items()
            values = [
                base64.b64decode(one["b64"]) if isinstance(one, dict) else one
                for one in payload["instances"]
            ]
            try:
                outputs = signature(**{name: tf.constant(values, spec.dtype)})
            except tf.errors.InvalidArgumentError as error:
                raise kserve.errors.InvalidInput(error.message) from error
            return {"predictions": outputs["probabilities"].numpy().tolist()}

    kserve.ModelServer(http_port=port, enable_grpc=False).start([SavedModel()])


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """Start KServe in a process of its own, and give the model's address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, deadline = f"http://127.0.0.1:{port}/v1/models/student", time.monotonic() + SECONDS
    command, log = [PYTHON, __file__, "--serve", folder, str(port)], folder.parent / "kserve.log"
    with log.open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
    try:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(url):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"KServe did not start:\n{log.read_text()}")
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait()


def ask(url: str, signature: str, instances: list) -> list:
    """Return the probabilities of some instances."""
    body = json.dumps({"signature_name": signature, "instances": instances}).encode()
    request = urllib.request.Request(f"{url}:predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)["predictions"]


def check(folder: Path) -> bool:
    """Export, ask and compare; return whether all is as it must be."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tfdistill.export import saved_model

    layers = [keras.layers.Rescaling(1 / 64), keras.layers.Flatten(), keras.layers.Dense(3)]
    network = keras.Sequential([keras.Input(SHAPE), *layers])
    images = np.random.default_rng(0).integers(0, 256, (7, *SHAPE), dtype="uint8")
    expected = tf.nn.softmax(network(images.astype("float32"))).numpy()
    saved_model.write(network, folder, SHAPE, ["circle", "square", "triangle"])
    files = [tf.io.encode_png(image).numpy() for image in images]
    encoded = [{"b64": base64.b64encode(file).decode()} for file in files]
    with server(folder) as url:
        right = True
        for signature, instances in (("serving_default", images.tolist()), ("bytes", encoded)):
            worst = np.abs(np.array(ask(url, signature, instances)) - expected).max()
            print(f"{signature}: probabilities differ by {worst:.1e} at most")
            right &= worst < 1e-6
        try:
            ask(url, "bytes", [{"b64": base64.b64encode(files[0][:60]).decode()}])
            text = "accepted"
        except urllib.error.HTTPError as error:
            text = f"{error.code} {error.read().decode()}"
        named = text.startswith("400") and "image_bytes[0] is cut off" in text
        print("an image that is cut off is", "refused by name" if named else text)
        return right and named


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
        sys.exit()
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", PYTHON.parents[1]], check=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    with tempfile.TemporaryDirectory() as name:
        sys.exit(0 if check(Path(name) / "1") else 1)
