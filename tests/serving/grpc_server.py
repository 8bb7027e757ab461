"""A server with the gRPC and REST interfaces of TensorFlow Serving, as a process of its own.

`tests.forked.program(THIS_FILE, FOLDER)` serves FOLDER/NAME/VERSION on free ports, prints
"ready GRPC_PORT REST_PORT" and ends with the process of the tests.
"""

import multiprocessing
import os
import sys
from concurrent import futures
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tests.serving import rest_server
from tests.serving.served_models import Failure, ServedModels, Version


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict over `ServedModels`."""

    def __init__(self, models: ServedModels):
        self.models = models

    def Predict(self, request, context):
        """Return the outputs that `output_filter` names, or all."""
        try:
            spec = request.model_spec
            number = spec.version.value if spec.HasField("version") else None
            version = self.models.find(spec.name, number)
            signature = spec.signature_name or "serving_default"
            inputs = {name: _tensor(proto) for name, proto in request.inputs.items()}
            outputs = version.predict(signature, inputs)
            return self._response(version, signature, outputs, list(request.output_filter))
        except Failure as error:
            context.abort(error.code, error.text)

    def _response(self, version: Version, signature: str, outputs: dict, wanted: list[str]):
        if unknown := set(wanted) - set(outputs):
            text = f"output tensor alias not found in signature: {unknown}"
            raise Failure(grpc.StatusCode.INVALID_ARGUMENT, text)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = version.model
        response.model_spec.version.value = version.number
        response.model_spec.signature_name = signature
        for name in wanted or outputs:
            response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
        return response


def _tensor(proto) -> tf.Tensor:
    try:
        return tf.constant(tf.make_ndarray(proto))
    except (ValueError, TypeError) as error:
        raise Failure(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None


def main(folder: Path) -> None:
    """Serve as long as the process that started this one lives."""
    models = ServedModels(folder)
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(2), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(models), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print("ready", port, rest_server.start(models), flush=True)
    multiprocessing.parent_process().join()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
