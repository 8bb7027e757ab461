"""Small real images for the tests of the data family."""

import numpy as np
import pytest
import tensorflow as tf

from tfdistill.data import Examples


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep decoded arrays of a test to itself, on disk."""
    monkeypatch.setenv("TFDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def numbered_images() -> Examples:
    """40 images of 6x6x3 in 4 classes, their ids 0, 2, 4, ... in descending order."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    return Examples(images, np.arange(40, dtype=np.int32) % 4, np.arange(78, -2, -2))


@pytest.fixture
def write_image():
    """A function that writes an image of one grey level."""

    def write(path, level: int):
        encode = tf.io.encode_png if path.suffix == ".png" else tf.io.encode_jpeg
        tf.io.write_file(str(path), encode(np.full((8, 8, 3), level, np.uint8)))

    return write


@pytest.fixture
def image_folder(tmp_path, write_image):
    """A folder of two classes with 10 PNG and JPEG images each; class `a` is darker."""
    for name, level in (("a", 50), ("b", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(10):
            write_image(tmp_path / "images" / name / f"{number}.png", level + number)
        (tmp_path / "images" / name / "9.png").unlink()
        write_image(tmp_path / "images" / name / "9.jpg", level + 9)
    return tmp_path / "images"
