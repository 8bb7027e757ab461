"""The REST interface of TensorFlow Serving over `ServedModels`, as far as it predicts."""

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import tensorflow as tf

from tests.serving.served_models import Failure, ServedModels

PATH = re.compile(r"/v1/models/([^/:]+):predict")
STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 412,
}


def start(models: ServedModels) -> int:
    """Serve in a thread of this process; return the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(lambda: _predict(models, self.path, json.loads(body)))

        def log_message(self, *_):
            pass

        def _answer(self, function):
            try:
                status, value = 200, function()
            except Failure as error:
                status, value = STATUS.get(error.code, 500), {"error": error.text}
            except ValueError as error:
                status, value = 400, {"error": str(error)}
            content = json.dumps(value, indent=4).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def _predict(models: ServedModels, path: str, body: dict) -> dict:
    found = PATH.fullmatch(path)
    if not found:
        raise Failure(grpc.StatusCode.INVALID_ARGUMENT, f"Malformed request: {path}")
    version = models.find(found[1])
    signature = body.get("signature_name", "serving_default")
    if signature not in version.signatures:
        text = f'Serving signature name: "{signature}" not found in signature def'
        raise Failure(grpc.StatusCode.INVALID_ARGUMENT, text)
    [(name, spec)] = version.inputs(signature).items()
    values = [_value(instance) for instance in body["instances"]]
    outputs = version.predict(signature, {name: tf.constant(values, spec.dtype)})
    columns = {name: output.numpy().tolist() for name, output in outputs.items()}
    rows = [
        dict(zip(columns, map(_text, row), strict=True))
        for row in zip(*columns.values(), strict=True)
    ]
    return {"predictions": rows}


def _value(instance):
    return base64.b64decode(instance["b64"]) if isinstance(instance, dict) else instance


def _text(value):
    return value.decode() if isinstance(value, bytes) else value
