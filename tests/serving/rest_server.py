"""The REST interface of TensorFlow Serving over `ServedModels`: predict, status, metadata."""

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import tensorflow as tf
from google.protobuf.json_format import MessageToDict

from tests.serving.served_models import Failure, ServedModels, Version

PATH = re.compile(
    r"/v1/models/(?P<model>[^/:]+)(/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<action>[:/]\w+)?"
)
STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 412,
}


def start(models: ServedModels) -> int:
    """Serve in a thread of this process; return the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._answer(lambda: _get(models, self.path))

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


def _parts(path: str) -> re.Match:
    found = PATH.fullmatch(path)
    if not found:
        raise Failure(grpc.StatusCode.INVALID_ARGUMENT, f"Malformed request: {path}")
    return found


def _version(models: ServedModels, parts: re.Match) -> Version:
    if parts["label"]:
        return models.labelled(parts["model"], parts["label"])
    return models.find(parts["model"], int(parts["version"]) if parts["version"] else None)


def _get(models: ServedModels, path: str) -> dict:
    parts = _parts(path)
    if parts["action"] == "/metadata":
        return _metadata(_version(models, parts))
    ok = {"error_code": "OK", "error_message": ""}
    return {
        "model_version_status": [
            {"version": str(version), "state": "AVAILABLE", "status": ok}
            for version in models.versions(parts["model"])
        ]
    }


def _metadata(version: Version) -> dict:
    signatures = MessageToDict(
        version.definitions,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    spec = {"name": version.model, "signature_name": "", "version": str(version.number)}
    return {"model_spec": spec, "metadata": {"signature_def": signatures}}


def _predict(models: ServedModels, path: str, body: dict) -> dict:
    version = _version(models, _parts(path))
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
