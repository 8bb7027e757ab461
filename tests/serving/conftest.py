"""One exported student, its images as files, and a server process that answers for it."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tests import forked

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ["circle", "square", "triangle"]


@dataclass(frozen=True)
class Served:
    """A server's folder and addresses, and what the served student was made of."""

    folder: Path
    grpc: str
    url: str
    network: keras.Model
    images: np.ndarray
    files: list[Path]

    def expected(self) -> np.ndarray:
        """Probabilities by the Keras network: float32 [7, 3]."""
        return keras.ops.convert_to_numpy(
            keras.ops.softmax(self.network(self.images.astype("float32"), training=False))
        )


def new_network(seed: int) -> keras.Model:
    """Return an untrained network whose classes differ between random images."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(1 / 64)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def export(network: keras.Model, folder: Path, images: np.ndarray) -> None:
    """Write a version that a server sees whole or not at all."""
    from tfdistill.export import saved_model

    building = folder.parent / f"building-{folder.name}"
    saved_model.write(network, building, (8, 8, 1), CLASSES)
    saved_model.write_warmup(building, folder.parent.name, images)
    building.rename(folder)


@pytest.fixture(scope="session")
def exported(tmp_path_factory) -> tuple[Path, keras.Model, np.ndarray, list[Path]]:
    """Folder of models with student/1, its network, and images [7, 8, 8, 1] with their files."""
    folder = tmp_path_factory.mktemp("saved_models")
    (folder / "student").mkdir()
    images = np.random.default_rng(3).integers(0, 256, (7, 8, 8, 1), dtype="uint8")
    network = new_network(3)
    export(network, folder / "student" / "1", images)
    pictures = tmp_path_factory.mktemp("images")
    files = [pictures / f"{number}.png" for number in range(len(images))]
    for path, image in zip(files, images, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    return folder, network, images, files


@pytest.fixture(scope="session")
def served(exported):
    """A running server of the exported student."""
    folder, network, images, files = exported
    process = forked.program(ROOT / "tests" / "serving" / "grpc_server.py", folder)
    ready = next((line for line in process.stdout if line.startswith("ready ")), None)
    assert ready, process.stderr.read()
    _, grpc_port, rest_port = ready.split()
    grpc, url = f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{rest_port}"
    yield Served(folder, grpc, url, network, images, files)
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def query():
    """Return a function that runs scripts/query.py as a user does."""

    def run(*arguments) -> subprocess.CompletedProcess:
        process = forked.program(ROOT / "scripts" / "query.py", *arguments)
        output, errors = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    return run


def answers(completed: subprocess.CompletedProcess) -> list[list[str]]:
    """Return file, class and probability of each line that query.py has printed."""
    return [re.split("  +", line) for line in completed.stdout.splitlines()]


def expected_answers(served: Served) -> list[list[str]]:
    """Return what query.py prints of the served images, by the Keras network."""
    pairs = zip(served.files, served.expected(), strict=True)
    return [[str(path), CLASSES[p.argmax()], f"{p.max():.4f}"] for path, p in pairs]
