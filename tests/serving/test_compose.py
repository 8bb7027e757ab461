"""scripts/serve.sh and the files of scripts/serving, as far as they go without a Docker daemon."""

import runpy
import shlex
import shutil
import socket
import subprocess

import pytest
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from tests.serving.processes import ROOT
from tfdistill.export import saved_model

SCRIPT, SERVING = ROOT / "scripts" / "serve.sh", ROOT / "scripts" / "serving"
FIELD = descriptor_pb2.FieldDescriptorProto
# Messages of TensorFlow Serving that tensorflow-serving-api does not ship, as far as they are used.
MESSAGES = {
    "BatchingParameters": {
        "max_batch_size": ".google.protobuf.Int64Value",
        "batch_timeout_micros": ".google.protobuf.Int64Value",
        "max_enqueued_batches": ".google.protobuf.Int64Value",
        "num_batch_threads": ".google.protobuf.Int64Value",
    },
    "PrometheusConfig": {"enable": FIELD.TYPE_BOOL, "path": FIELD.TYPE_STRING},
    "MonitoringConfig": {"prometheus_config": ".PrometheusConfig"},
}


@pytest.fixture
def folder(tmp_path):
    """A folder with a/1, a/2, b/3 and what is no model; no server reads the files."""
    folder = tmp_path / "my models"
    for version in ("a/1", "a/2", "b/3", "b/building", ".hidden/1"):
        (folder / version).mkdir(parents=True)
        (folder / version / "saved_model.pb").touch()
    (folder / "empty" / "1").mkdir(parents=True)
    (folder / "README.md").touch()
    return folder


def _serve(*arguments, **environment):
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=environment or None
    )


def _refusal(*arguments, **environment) -> str:
    completed = _serve(*arguments, **environment)
    assert completed.returncode == 2, completed.stdout
    [line] = completed.stderr.splitlines()
    return line


def _models(*arguments):
    completed = _serve(*arguments, "--dry-run")
    assert completed.returncode == 0, completed.stderr
    config = model_server_config_pb2.ModelServerConfig()
    *lines, _ = completed.stdout.splitlines()
    text_format.Parse("\n".join(lines), config)
    return {model.name: model for model in config.model_config_list.config}


def _parsed(name: str, file: str):
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    described = descriptor_pb2.FileDescriptorProto(
        name="serving.proto", syntax="proto3", dependency=[wrappers_pb2.DESCRIPTOR.name]
    )
    for message, fields in MESSAGES.items():
        added = described.message_type.add(name=message)
        for number, (field, kind) in enumerate(fields.items(), 1):
            of = {"type_name": kind} if isinstance(kind, str) else {"type": kind}
            added.field.add(name=field, number=number, label=FIELD.LABEL_OPTIONAL, **of)
    pool.Add(described)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))()
    return text_format.Parse((SERVING / file).read_text(), message)


def _compose() -> dict:
    return yaml.safe_load((SERVING / "compose.yaml").read_text())["services"]["serving"]


def test_every_model_is_served_in_its_two_newest_versions(folder):
    models = _models(folder)
    assert {name: model.base_path for name, model in models.items()} == {
        "a": "/models/a",
        "b": "/models/b",
    }
    assert models["a"].model_version_policy.latest.num_versions == 2


def test_only_the_named_models_are_served(folder):
    assert list(_models(folder, "--name", "b")) == ["b"]


def test_labels_pin_the_versions_that_they_name(folder):
    models = _models(folder, "--label", "a:stable=1", "--label", "a:canary=2")
    assert dict(models["a"].version_labels) == {"stable": 1, "canary": 2}
    assert list(models["a"].model_version_policy.specific.versions) == [1, 2]
    assert models["b"].model_version_policy.latest.num_versions == 2


def test_two_labels_of_one_version_load_it_once(folder):
    models = _models(folder, "--label", "a:stable=2", "--label", "a:canary=2")
    assert list(models["a"].model_version_policy.specific.versions) == [2]


def test_a_dry_run_writes_nothing_and_prints_a_command_that_compose_would_take(folder):
    before = sorted(folder.rglob("*"))
    command = _serve(folder, "--dry-run").stdout.splitlines()[-1]
    assert sorted(folder.rglob("*")) == before
    words = shlex.split(command)
    assert f"TF_SERVING_MODELS={folder}" in words
    assert words[words.index("--file") + 1] == str(SERVING / "compose.yaml")


@pytest.mark.parametrize(
    "arguments, text",
    [
        (["--name", "c"], "No version of the model c"),
        (["--label", "stable=1"], "A label is given as NAME:LABEL=VERSION"),
        (["--label", "c:stable=1"], "a model that is served (a b)"),
        (["--label", "a:stable=7"], "Versions: 1 2"),
        (["--port", "1"], "Unknown option"),
        (["--name"], "--name needs a value"),
        (["more"], "One folder is expected"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, arguments, text):
    assert text in _refusal(folder, *arguments)


def test_a_folder_without_models_is_one_line(folder):
    assert "No models in" in _refusal(folder / "empty")
    assert "FOLDER must be a folder" in _refusal(folder / "missing")


def test_a_model_name_that_cannot_be_quoted_is_refused(folder):
    (folder / 'a"b' / "1").mkdir(parents=True)
    (folder / 'a"b' / "1" / "saved_model.pb").touch()
    assert "letters, digits" in _refusal(folder)


@pytest.fixture
def without_docker(tmp_path):
    """A PATH with what the script needs, but no Docker."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "basename", "chmod", "dirname", "head", "id", "mkdir", "mktemp", "sed"):
        (programs / name).symlink_to(shutil.which(name))
    return str(programs)


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _ports() -> dict[str, str]:
    return {"TF_SERVING_REST_PORT": _free_port(), "TF_SERVING_GRPC_PORT": _free_port()}


def test_without_docker_is_one_line(folder, without_docker):
    line = _refusal(folder, PATH=without_docker, **_ports())
    assert "Docker is not installed" in line
    assert not (folder / ".serving").exists()


def test_a_port_in_use_is_one_line(folder, without_docker):
    with socket.create_server(("127.0.0.1", 0)) as used:
        ports = {**_ports(), "TF_SERVING_GRPC_PORT": str(used.getsockname()[1])}
        line = _refusal(folder, PATH=without_docker, **ports)
    assert f"Port {ports['TF_SERVING_GRPC_PORT']} is in use" in line
    assert "TF_SERVING_GRPC_PORT" in line


def _docker(*arguments) -> bool:
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", *arguments], capture_output=True, timeout=60).returncode == 0


def test_a_daemon_that_does_not_answer_is_one_line(folder, monkeypatch):
    if not _docker("--version") or _docker("info"):
        pytest.skip("needs a Docker client without a daemon")
    for name, port in _ports().items():
        monkeypatch.setenv(name, port)
    assert "The Docker daemon does not answer" in _refusal(folder)


def test_compose_accepts_its_file(folder, monkeypatch):
    if not _docker("compose", "version"):
        pytest.skip("needs Docker's compose plugin")
    monkeypatch.setenv("TF_SERVING_MODELS", str(folder))
    monkeypatch.setenv("TF_SERVING_USER", "1000:1000")
    assert _docker("compose", "--file", str(SERVING / "compose.yaml"), "config", "--quiet")


def test_the_container_is_pinned_and_can_change_nothing():
    service = _compose()
    image = service["image"]
    assert image.startswith("${TF_SERVING_IMAGE:-tensorflow/serving:2.") and "latest" not in image
    assert service["read_only"] and all(mount["read_only"] for mount in service["volumes"])
    assert service["cap_drop"] == ["ALL"]
    assert {"user", "mem_limit", "healthcheck"} <= set(service)


def test_ports_are_open_on_this_machine_only_unless_told():
    ports = _compose()["ports"]
    assert [port.rsplit(":", 1)[1] for port in ports] == ["8501", "8500"]
    assert all(port.startswith("${TF_SERVING_ADDRESS:-127.0.0.1}:") for port in ports)


def test_files_that_the_container_names_are_mounted():
    service = _compose()
    named = [
        word.rsplit("=", 1)[-1] for word in service["command"] + service["healthcheck"]["test"]
    ]
    mounted = [word for word in named if word.startswith("/serving/")]
    assert len(mounted) == 3
    assert all((SERVING / path.removeprefix("/serving/")).is_file() for path in mounted)


def test_batches_hold_what_clients_and_warmup_send():
    batching = _parsed("BatchingParameters", "batching.config")
    sent = runpy.run_path(str(ROOT / "scripts" / "query.py"))["BATCH"]
    assert batching.max_batch_size.value >= max(sent, *saved_model.WARMUP_BATCHES)
    assert 0 < batching.batch_timeout_micros.value < 100_000
    assert batching.max_enqueued_batches.value > 0


def test_metrics_are_on():
    monitoring = _parsed("MonitoringConfig", "monitoring.config")
    assert monitoring.prometheus_config.enable


def test_health_follows_the_models(served, tmp_path):
    config = tmp_path / "models.config"
    *lines, _ = _serve(served.folder, "--name", "student", "--dry-run").stdout.splitlines()

    def health(text, port):
        config.write_text(text)
        command = ["bash", str(SERVING / "health.sh"), str(config), port]
        return subprocess.run(command, capture_output=True, timeout=60).returncode

    port, text = served.url.rsplit(":", 1)[1], "\n".join(lines)
    assert health(text, port) == 0
    assert health(text.replace('"student"', '"teacher"'), port) != 0
    assert health(text, _free_port()) != 0
