"""An exported student behind a gRPC server with TensorFlow Serving's messages."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tests.serving.conftest import export, new_network
from tests.warmup import read_warmup
from tfdistill.export import saved_model

pytestmark = pytest.mark.slow

SECONDS = 600  # before a server is taken for hanging


@pytest.fixture
def stub(served):
    with grpc.insecure_channel(served.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def _request(model="student", signature="serving_default", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def _predict(stub, request):
    response = stub.Predict(request, timeout=SECONDS)
    return {name: tf.make_ndarray(output) for name, output in response.outputs.items()}


def _refusal(stub, request):
    with pytest.raises(grpc.RpcError) as error:
        stub.Predict(request, timeout=SECONDS)
    return error.value


@pytest.mark.parametrize("batch", [1, 7])
def test_batches_of_any_size_are_answered(served, stub, batch):
    outputs = _predict(stub, _request(image=served.images[:batch]))
    expected = served.expected()[:batch]
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-6)
    assert outputs["class_id"].tolist() == expected.argmax(1).tolist()


def test_warmup_requests_are_answered(served, stub):
    requests = read_warmup(served.folder / "student" / "1" / saved_model.WARMUP)
    assert {request.model_spec.signature_name for request in requests} == {
        saved_model.DEFAULT,
        saved_model.BYTES,
    }
    for request in requests:
        [proto] = request.inputs.values()
        outputs = _predict(stub, request)
        assert outputs["probabilities"].shape == (len(tf.make_ndarray(proto)), 3)


def test_output_filter_chooses_outputs(served, stub):
    request = _request(image=served.images)
    request.output_filter.append("class_id")
    assert list(_predict(stub, request)) == ["class_id"]


def test_after_a_broken_image_the_server_still_answers(served, stub):
    encoded = [path.read_bytes() for path in served.files]
    broken = _request(signature="bytes", image_bytes=[encoded[0], encoded[1][:60]])
    error = _refusal(stub, broken)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "image_bytes[1]" in error.details()
    outputs = _predict(stub, _request(signature="bytes", image_bytes=encoded))
    assert outputs["class_id"].tolist() == served.expected().argmax(1).tolist()


@pytest.mark.parametrize(
    "request_, code",
    [
        (_request("teacher", image=np.zeros((1, 8, 8, 1), "uint8")), "NOT_FOUND"),
        (
            _request("student", "logits", image=np.zeros((1, 8, 8, 1), "uint8")),
            "FAILED_PRECONDITION",
        ),
        (_request("student", image=np.zeros((1, 8, 8, 1), "float32")), "INVALID_ARGUMENT"),
        (_request("student", image=np.zeros((1, 9, 9, 1), "uint8")), "INVALID_ARGUMENT"),
        (_request("student", pixels=np.zeros((1, 8, 8, 1), "uint8")), "INVALID_ARGUMENT"),
    ],
)
def test_requests_that_do_not_fit_the_export_are_refused(stub, request_, code):
    assert _refusal(stub, request_).code().name == code


def test_a_new_version_is_served_without_a_restart_and_the_last_one_stays(served, stub):
    folder = served.folder / "rolling"
    (folder / "tmp").mkdir(parents=True)
    (folder / "tmp" / "saved_model.pb").touch()
    networks = {number: new_network(number) for number in (2, 10, 11)}
    export(networks[2], folder / "2", served.images)
    export(networks[10], folder / "10", served.images)

    def logits(version=None):
        request = _request("rolling", image=served.images)
        if version:
            request.model_spec.version.value = version
        return _predict(stub, request)["logits"]

    def expected(version):
        return networks[version](served.images.astype("float32"))

    np.testing.assert_allclose(logits(), expected(10), atol=1e-5)
    export(networks[11], folder / "11", served.images)
    np.testing.assert_allclose(logits(), expected(11), atol=1e-5)
    np.testing.assert_allclose(logits(10), expected(10), atol=1e-5)
    old = _request("rolling", image=served.images)
    old.model_spec.version.value = 2
    assert _refusal(stub, old).code() == grpc.StatusCode.NOT_FOUND
