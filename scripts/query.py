#!/usr/bin/env python3
"""Asks a TensorFlow Serving (or KServe) server what images show. One file, made to be copied.

    python query.py MODEL_NAME cat.jpg dog.png --signature bytes
    python query.py MODEL_NAME digit.png --grpc localhost:8500 --top 3

REST with encoded images (`--signature bytes`) needs Python alone; decoding them here
(`--signature serving_default`) needs pillow and numpy, and images of the model's size; `--grpc`
needs tensorflow-serving-api. Two decoders differ by a grey level now and then: bytes are surest.
Every file is looked at before it is sent. What is wrong with one image is said of that image, and
the others are still answered. Exit status: 0, or 1 if anything went wrong.
"""

import argparse
import base64
import contextlib
import http.client
import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEGAPIXELS = 25
BATCH = 32  # images in one request; must not be above max_batch_size of the server
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# Start-of-frame markers of JPEG; the three left out in between mean other things.
JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
INPUTS = {"bytes": "image_bytes", "serving_default": "image"}


class QueryError(Exception):
    """The question cannot be answered; one line for the user."""


class Refused(QueryError):
    """The server did not accept these images; others may still be accepted."""


@dataclass
class Item:
    """One image: what is sent for it, and the answer (the outputs by name) or the error."""

    path: str
    value: Any = None
    answer: dict | None = None
    error: str | None = None


@dataclass(frozen=True)
class Question:
    """Which model is asked, and how."""

    model: str
    version: str | None
    signature: str
    timeout: float


# --- looking at files -------------------------------------------------------------------------


def image_size(file) -> tuple[int, int]:
    """Return width and height, from the header of a JPEG or PNG file; else raise ValueError."""
    magic = file.read(8)
    if magic == PNG:
        header = file.read(16)
        size = int.from_bytes(header[8:12], "big"), int.from_bytes(header[12:16], "big")
    elif magic.startswith(JPEG):
        size = _jpeg_size(file)
    else:
        raise ValueError("neither JPEG nor PNG")
    if 0 in size:
        raise ValueError("no width or height in the header")
    return size


def _jpeg_size(file) -> tuple[int, int]:
    file.seek(2)
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if marker == 0xFF:  # a fill byte before the marker
            file.seek(-3, 1)
        elif marker in JPEG_FRAMES:
            frame = file.read(5)
            return int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")
        elif length < 2:
            break
        else:
            file.seek(length - 2, 1)
    raise ValueError("a JPEG without a size")


def read_encoded(path: str) -> bytes:
    """Return the bytes of an image file that is fit to be sent; raise ValueError or OSError."""
    if Path(path).is_file() and not os.path.getsize(path):
        raise ValueError("the file is empty")
    with open(path, "rb") as file:
        width, height = image_size(file)
        if width * height > MEGAPIXELS * 1e6:
            raise ValueError(f"{width}x{height} pixels, over {MEGAPIXELS} megapixels")
        file.seek(0)
        return file.read()


def decode(encoded: bytes, shape: tuple):
    """Return uint8 [height, width, channels] pixels of the size that the model takes."""
    import io

    import numpy as np
    from PIL import Image

    height, width, channels = shape
    with Image.open(io.BytesIO(encoded)) as image:
        if image.mode.startswith("I"):
            raise ValueError("16-bit pixels; use --signature bytes")
        # Images are resized by the model, as in training; a copy of that here would differ.
        if height and image.size != (width, height):
            size = f"{image.width}x{image.height} pixels where the model takes {width}x{height}"
            raise ValueError(f"{size}; use --signature bytes")
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), "uint8")
        return pixels.reshape(image.height, image.width, channels)


def read_items(paths: list[str], shape: tuple | None) -> list[Item]:
    """Return one item per path, with bytes, or with pixels if `shape` is given."""
    items = []
    for path in paths:
        item = Item(path)
        try:
            encoded = read_encoded(path)
            item.value = decode(encoded, shape) if shape else encoded
        except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: Pillow on some PNGs
            item.error = getattr(error, "strerror", None) or one_line(str(error))
        items.append(item)
    return items


# --- asking -----------------------------------------------------------------------------------


class Rest:
    """A server's REST interface (TensorFlow Serving's, or version 1 of KServe's)."""

    def __init__(self, url: str, question: Question):
        self.url, self.question = url.rstrip("/"), question
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise QueryError(f"--url must start with http:// or https://. Received: {url}.")

    def signatures(self) -> dict:
        """Return the model's signatures by name, as the server describes them."""
        return self._call("/metadata")["metadata"]["signature_def"]["signature_def"]

    def predict(self, values: list) -> list[dict]:
        """Return the outputs of each image."""
        if isinstance(values[0], bytes):
            instances = [{"b64": base64.b64encode(value).decode()} for value in values]
        else:
            instances = [value.tolist() for value in values]
        body = {"signature_name": self.question.signature, "instances": instances}
        return self._call(":predict", json.dumps(body).encode())["predictions"]

    def _call(self, action: str, body: bytes | None = None) -> dict:
        path = f"/v1/models/{urllib.parse.quote(self.question.model, safe='')}"
        if version := self.question.version:
            path += f"/{'versions' if version.isdigit() else 'labels'}/{version}"
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path + action, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=self.question.timeout) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._no_answer(error) from None
        except ValueError:
            raise QueryError(f"{self.url} is not a model server: its answer is no JSON.") from None

    def _refusal(self, error: urllib.error.HTTPError) -> QueryError:
        text = error.read().decode(errors="replace")
        try:
            text = json.loads(text)["error"]
        except (ValueError, KeyError, TypeError):
            text = text or error.reason
        if error.code == 404:
            return no_model(self.url, self.question, text)
        alone = error.code == 400 and "signature def" not in text
        kind = Refused if alone else QueryError
        return kind(f"{self.url} answered {error.code}: {one_line(text)}")

    def _no_answer(self, error: Exception) -> QueryError:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return too_slow(self.url, self.question)
        return no_server(self.url, getattr(reason, "strerror", None) or str(reason))


class Grpc:
    """A server's gRPC interface (TensorFlow Serving's)."""

    def __init__(self, address: str, question: Question):
        try:
            with quiet():
                import grpc
                import numpy
                import tensorflow
                from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2
                from tensorflow_serving.apis import prediction_service_pb2_grpc as services
        except ImportError as error:
            raise QueryError(
                f"--grpc needs a package ({error.name}): pip install tensorflow-serving-api"
            ) from None
        self.address, self.question = address, question
        self.grpc, self.numpy, self.tensorflow = grpc, numpy, tensorflow
        self.messages, self.metadata = predict_pb2, get_model_metadata_pb2
        # Images of a batch are larger than gRPC's limit of 4 MB for one message.
        unlimited = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        self.stub = services.PredictionServiceStub(
            grpc.insecure_channel(address, options=unlimited)
        )

    def signatures(self) -> dict:
        """Return the model's signatures by name, as the server describes them."""
        from google.protobuf.json_format import MessageToDict

        request = self.metadata.GetModelMetadataRequest(metadata_field=["signature_def"])
        signatures = self.metadata.SignatureDefMap()
        response = self._call(self.stub.GetModelMetadata, request)
        response.metadata["signature_def"].Unpack(signatures)
        return MessageToDict(signatures, preserving_proto_field_name=True)["signature_def"]

    def predict(self, values: list) -> list[dict]:
        """Return the outputs of each image."""
        request = self.messages.PredictRequest()
        request.model_spec.signature_name = self.question.signature
        tensor = values if isinstance(values[0], bytes) else self.numpy.stack(values)
        proto = self.tensorflow.make_tensor_proto(tensor)
        request.inputs[INPUTS[self.question.signature]].CopyFrom(proto)
        response = self._call(self.stub.Predict, request)
        columns = {
            name: self.tensorflow.make_ndarray(output).tolist()
            for name, output in response.outputs.items()
        }
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return [{**row, "class_name": row.get("class_name", b"").decode()} for row in rows]

    def _call(self, method, request):
        request.model_spec.name = self.question.model
        if version := self.question.version:
            if version.isdigit():
                request.model_spec.version.value = int(version)
            else:
                request.model_spec.version_label = version
        try:
            return method(request, timeout=self.question.timeout)
        except self.grpc.RpcError as error:
            raise self._refusal(error) from None

    def _refusal(self, error) -> QueryError:
        code, text, codes = error.code(), error.details() or "", self.grpc.StatusCode
        if code == codes.NOT_FOUND:
            return no_model(self.address, self.question, text)
        if code == codes.UNAVAILABLE:
            return no_server(self.address, one_line(text))
        if code == codes.DEADLINE_EXCEEDED:
            return too_slow(self.address, self.question)
        kind = Refused if code == codes.INVALID_ARGUMENT else QueryError
        return kind(f"{self.address} answered {code.name}: {one_line(text)}")


@contextlib.contextmanager
def quiet():
    """Drop what is written to standard error, also past Python: TensorFlow tells of its build."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def pixels_shape(server, question: Question) -> tuple | None:
    """Return (height, width, channels) of the pixels to send; None if encoded images are sent.

    Height and width are None where the model takes any size.
    """
    if question.signature == "bytes":
        return None
    signature = server.signatures().get(question.signature)
    if signature is None:
        raise QueryError(f"The model {question.model} has no signature {question.signature}.")
    dimensions = signature["inputs"][INPUTS[question.signature]]["tensor_shape"]["dim"][1:]
    sizes = [int(dimension["size"]) for dimension in dimensions]
    return tuple(size if size > 0 else None for size in sizes)


def no_model(server: str, question: Question, text: str) -> QueryError:
    """Return the error of a model, or version, that the server does not have."""
    what = question.model + (f" version {question.version}" if question.version else "")
    return QueryError(f"{server} has no model {what}: {one_line(text)}")


def no_server(server: str, reason: str) -> QueryError:
    """Return the error of a server that cannot be reached."""
    return QueryError(f"No answer from {server}: {reason}. Is the server running?")


def too_slow(server: str, question: Question) -> QueryError:
    """Return the error of a server that did not answer in time."""
    return QueryError(f"No answer from {server} within {question.timeout:g} s (--timeout).")


def one_line(text: str) -> str:
    """Return the start of a message without line breaks; of a failed check, what it says."""
    check = re.search(r"assertion failed: \[(.*?)\]\s*\[\[", text, re.DOTALL)
    return " ".join((check[1] if check else text).split())[:300]


def ask(server, items: list[Item], batch: int) -> None:
    """Fill in the answers; images of a refused request are asked again alone."""
    for start in range(0, len(items), batch):
        group = items[start : start + batch]
        try:
            answers = server.predict([item.value for item in group])
        except Refused as error:
            if len(group) > 1:
                ask(server, group, 1)
            else:
                group[0].error = str(error)
            continue
        if len(answers) != len(group) or any("probabilities" not in a for a in answers):
            raise QueryError("The model's answer has no probabilities: is it an image classifier?")
        for item, answer in zip(group, answers, strict=True):
            item.answer = answer


# --- telling ----------------------------------------------------------------------------------


def ranking(answer: dict, labels: list[str] | None, top: int) -> list[tuple[str, float]]:
    """Return the `top` most likely classes as (name, probability), the likeliest first.

    The server names the likeliest class only; the other names need the labels.
    """
    probabilities = answer["probabilities"]
    order = sorted(range(len(probabilities)), key=lambda c: -probabilities[c])[:top]
    names = dict(enumerate(labels or []))
    names.setdefault(answer.get("class_id"), answer.get("class_name"))
    return [(names.get(c) or f"class {c}", probabilities[c]) for c in order]


def print_table(items: list[Item], labels: list[str] | None, top: int) -> None:
    """Print one line an image: its name and the likeliest classes."""
    answered = [(item.path, ranking(item.answer, labels, top)) for item in items if item.answer]
    cells = [[path] + [f"{name} {p:.4f}" for name, p in ranks] for path, ranks in answered]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(map(str.ljust, row, widths)).rstrip())


def print_json(items: list[Item]) -> None:
    """Print a JSON list: the outputs by name for each image, or its error."""
    rows = [{"image": item.path, **(item.answer or {"error": item.error})} for item in items]
    print(json.dumps(rows, indent=1))


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("model", metavar="MODEL_NAME")
    add("images", metavar="IMAGE", nargs="+", help="JPEG or PNG files")
    add("--url", default="http://localhost:8501", help="REST address (default: %(default)s)")
    add("--grpc", metavar="HOST:PORT", help="ask over gRPC instead, as localhost:8500")
    add("--signature", choices=INPUTS, default="serving_default", help="send bytes, or pixels")
    add("--version", help="number or label of the version (default: the newest)")
    add("--labels", type=Path, help="labels.txt of the export, for the names of all classes")
    add("--top", type=int, default=3, help="classes shown per image (default: %(default)s)")
    add("--timeout", type=float, default=30.0, help="seconds (default: %(default)s)")
    add("--json", action="store_true", help="print every output as JSON")
    return parser.parse_args(given)


def run(options: argparse.Namespace) -> int:
    """Ask, print the answers and return the exit status."""
    labels = options.labels and options.labels.read_text("utf-8").splitlines()
    question = Question(options.model, options.version, options.signature, options.timeout)
    server = Grpc(options.grpc, question) if options.grpc else Rest(options.url, question)
    shape = pixels_shape(server, question)
    items = read_items(options.images, shape)
    # Pixels of any size cannot be put together unless the sizes happen to agree.
    batch = 1 if shape and None in shape else BATCH
    ask(server, [item for item in items if item.error is None], batch)
    print_json(items) if options.json else print_table(items, labels, options.top)
    for item in items:
        if item.error:
            print(f"{item.path}: {item.error}", file=sys.stderr)
    return int(any(item.error for item in items))


def main(given: list[str] | None = None) -> int:
    """Return the exit status of the command line."""
    try:
        return run(arguments(given))
    except ImportError as error:
        message = f"--signature serving_default needs pillow and numpy: {error}"
    except (QueryError, OSError) as error:
        message = str(error)
    print(f"query.py: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
