#!/usr/bin/env python3
"""Asks a TensorFlow Serving server what images show. One file, made to be copied.

    python query.py MODEL cat.jpg dog.png
    python query.py MODEL digit.png --grpc localhost:8500 --signature serving_default

The signature `bytes` takes whole JPEG and PNG files and, over REST, needs Python alone;
`serving_default` takes pixels, of the model's size and channels, and needs pillow and numpy.
`--grpc` needs tensorflow-serving-api. What goes wrong with an image is one line of standard error.
"""

import argparse
import base64
import json
import os
import sys
import urllib.error
import urllib.request


def read(path: str, signature: str):
    """Return what a signature takes: an image file's bytes, or its pixels as uint8 [h, w, c]."""
    if signature == "bytes":
        with open(path, "rb") as file:
            return file.read()
    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        if image.mode[0] in "IF":
            raise ValueError("more than 8 bits a colour; use --signature bytes")
        image = ImageOps.exif_transpose(image)
        pixels = np.array(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    return pixels.reshape(*pixels.shape[:2], -1)


def printable(text: str) -> str:
    """Return text in one line that a terminal shows and does not obey."""
    return "".join(x if x.isprintable() else ascii(x)[1:-1] for x in text)


def over_rest(given: argparse.Namespace, image) -> tuple[str, float]:
    """Return an image's class and probability."""
    encoded = isinstance(image, bytes)
    instance = {"b64": base64.b64encode(image).decode()} if encoded else image.tolist()
    body = json.dumps({"signature_name": given.signature, "instances": [instance]}).encode()
    url = f"{given.url.rstrip('/')}/v1/models/{given.model}:predict"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            [outputs] = json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        raise ValueError(f"{url}: {error.code}: {error.read().decode()}") from None
    name = outputs["class_name"] if "class_name" in outputs else outputs["labels"]
    return name, max(outputs["probabilities"])


def over_grpc(given: argparse.Namespace, image) -> tuple[str, float]:
    """Return an image's class and probability."""
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    name, value = ("image_bytes", [image]) if isinstance(image, bytes) else ("image", image[None])
    request = predict_pb2.PredictRequest(inputs={name: tf.make_tensor_proto(value)})
    request.model_spec.name, request.model_spec.signature_name = given.model, given.signature
    with grpc.insecure_channel(given.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            outputs = stub.Predict(request, timeout=30).outputs
        except grpc.RpcError as error:
            raise ValueError(f"{given.grpc}: {error.code().name}: {error.details()}") from None
    name = "class_name" if "class_name" in outputs else "labels"
    label, probabilities = (tf.make_ndarray(outputs[n])[0] for n in (name, "probabilities"))
    return label.decode(), probabilities.max()


def main() -> int:
    """Ask, print file, class and probability of every image, and return the exit status.

    Of a network of several labels: those that are there (cat|dog), and the largest probability.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--url", default="http://localhost:8501", help="(%(default)s)")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="ask there over gRPC, not over REST")
    parser.add_argument("--signature", choices=("bytes", "serving_default"), default="bytes")
    given, status = parser.parse_args(), 0
    if given.grpc:  # what TensorFlow writes past Python at its start is no error
        sys.stderr = os.fdopen(os.dup(2), "w")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for path in given.images:
        try:
            image = read(path, given.signature)
            label, probability = (over_grpc if given.grpc else over_rest)(given, image)
        except Exception as error:  # whatever it is, one line an image
            print(printable(" ".join(f"{path}: {error}".split()))[:400], file=sys.stderr)
            status = 1
        else:
            print(f"{printable(path)}  {printable(label)}  {probability:.4f}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
