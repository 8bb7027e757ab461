"""scripts/serve.sh and the files of scripts/serving, as far as they go without a Docker daemon."""

import os
import shlex
import shutil
import subprocess

import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from tests.serving.conftest import ROOT
from tfdistill.export import saved_model

SCRIPT, SERVING = ROOT / "scripts" / "serve.sh", ROOT / "scripts" / "serving"
FIELD = descriptor_pb2.FieldDescriptorProto
# Messages of TensorFlow Serving that tensorflow-serving-api does not ship, as far as they are used.
MESSAGES = {
    "BatchingParameters": {
        "max_batch_size": ".google.protobuf.Int64Value",
        "batch_timeout_micros": ".google.protobuf.Int64Value",
        "max_enqueued_batches": ".google.protobuf.Int64Value",
    },
    "PrometheusConfig": {"enable": FIELD.TYPE_BOOL, "path": FIELD.TYPE_STRING},
    "MonitoringConfig": {"prometheus_config": ".PrometheusConfig"},
}


@pytest.fixture
def folder(tmp_path):
    """A folder with a/1, a/2, b/3 and what is no model; no server reads the files."""
    folder = tmp_path / "my models"
    for version in ("a/1", "a/2", "b/3", "b/building", "c/building", ".hidden/1"):
        (folder / version).mkdir(parents=True)
        (folder / version / "saved_model.pb").touch()
    (folder / "empty" / "1").mkdir(parents=True)
    (folder / "README.md").touch()
    return folder


def _serve(*arguments, **environment):
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


def _refusal(*arguments, **environment) -> str:
    completed = _serve(*arguments, **environment)
    assert completed.returncode == 2, completed.stdout
    [line] = completed.stderr.splitlines()
    return line


def _dry_run(*arguments, **environment):
    """Return the models of the configuration by name, and the words of the command."""
    completed = _serve(*arguments, **environment)
    assert completed.returncode == 0, completed.stderr
    *lines, command = completed.stdout.splitlines()
    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse("\n".join(lines), config)
    return {model.name: model for model in config.model_config_list.config}, shlex.split(command)


def _after(words: list[str], option: str) -> list[str]:
    return [words[place + 1] for place, word in enumerate(words) if word == option]


def test_every_model_is_served_in_its_two_newest_versions(folder):
    models, _ = _dry_run(folder, "--dry-run")
    assert {name: model.base_path for name, model in models.items()} == {
        "a": "/models/a",
        "b": "/models/b",
    }
    assert models["a"].model_version_policy.latest.num_versions == 2


def test_a_dry_run_writes_nothing(folder):
    before = sorted(folder.rglob("*"))
    _dry_run(folder, "--dry-run")
    assert sorted(folder.rglob("*")) == before


def test_the_container_is_pinned_and_can_change_nothing(folder):
    _, words = _dry_run(folder, "--dry-run")
    assert {"--read-only", "--user", "--memory"} <= set(words)
    assert _after(words, "--cap-drop") == ["ALL"]
    assert _after(words, "--volume") == [f"{folder}:/models:ro", f"{SERVING}:/serving:ro"]
    [image] = [word for word in words if word.startswith("tensorflow/serving")]
    assert image.startswith("tensorflow/serving:2.")


def test_ports_are_open_on_this_machine_only_unless_told(folder):
    _, words = _dry_run(folder, "--dry-run")
    assert _after(words, "--publish") == ["127.0.0.1:8501:8501", "127.0.0.1:8500:8500"]
    told = {"TF_SERVING_ADDRESS": "0.0.0.0", "TF_SERVING_REST_PORT": "80"}
    _, words = _dry_run(folder, "--dry-run", **told)
    assert _after(words, "--publish") == ["0.0.0.0:80:8501", "0.0.0.0:8500:8500"]


def test_further_options_are_those_of_docker_run(folder):
    _, words = _dry_run(folder, "--dry-run", "--memory", "8g", "--env", "A=b c")
    image = words.index("tensorflow/serving:2.20.0")
    assert _after(words[:image], "--memory")[-1] == "8g"  # Docker takes the last
    assert _after(words[:image], "--env") == ["A=b c"]


def test_files_that_the_container_names_are_mounted(folder):
    _, words = _dry_run(folder, "--dry-run")
    named = [word.partition("=/serving/")[2] for word in words if "=/serving/" in word]
    assert sorted(named) == sorted(path.name for path in SERVING.iterdir())


def test_what_cannot_be_served_is_one_line(folder):
    assert "No models in" in _refusal(folder / "empty")
    assert "FOLDER must be a folder" in _refusal(folder / "missing")
    (folder / 'a"b' / "1").mkdir(parents=True)
    (folder / 'a"b' / "1" / "saved_model.pb").touch()
    assert "letters, digits" in _refusal(folder)


def test_without_docker_is_one_line(folder, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "basename", "dirname", "grep", "id"):
        (programs / name).symlink_to(shutil.which(name))
    assert "Docker is not installed" in _refusal(folder, PATH=str(programs))
    assert not (folder / ".serving").exists()


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


def test_batches_hold_what_warmup_sends():
    batching = _parsed("BatchingParameters", "batching.config")
    assert batching.max_batch_size.value >= max(saved_model.WARMUP_BATCHES)
    assert 0 < batching.batch_timeout_micros.value < 100_000
    assert batching.max_enqueued_batches.value > 0


def test_metrics_are_on():
    assert _parsed("MonitoringConfig", "monitoring.config").prometheus_config.enable
