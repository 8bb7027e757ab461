"""Image files from anywhere: the same pixels as in training, one sentence for what is wrong."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests import forked
from tfdistill.config import DataConfig
from tfdistill.data import image_files, load, pipeline
from tfdistill.data.image_files import ImageError

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
MEASURE = """
import sys
from pathlib import Path
from tfdistill.data import image_files

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024

for path in sys.argv[1:]:
    before = peak()
    try:
        image_files.read(Path(path), (32, 32, 3))
        said = "read"
    except image_files.ImageError as error:
        said = error
    print(f"{peak() - before} {said}")
"""


def write(path, image, **settings):
    """Write an image, given as one of Pillow or as an array, and return the path."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(path, **settings)
    return path


def encoded(image, format, **settings):
    data = io.BytesIO()
    image.save(data, format, **settings)
    return data.getvalue()


def png(width, height):
    """Return a black RGB image of any size as a PNG file of little size."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(1 + 3 * width)) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", packed + packer.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def pixels_or_problem(path, shape=(8, 8, 3), **settings):
    """Return what `read` gives, an array or the sentence."""
    try:
        return image_files.read(path, shape, **settings)
    except ImageError as error:
        return str(error)


@pytest.mark.parametrize("sizes", [(None, None), (None, 6), (12, None), (12, 6), (6, 12)])
def test_pixels_equal_those_of_the_data_pipeline(tmp_path, sizes):
    image_size, input_size = sizes
    random = np.random.default_rng(1)
    files = {"0.png": {}, "1.jpg": {"quality": 90}, "2.bmp": {}, "3.gif": {}, "4.jpeg": {}}
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number, (file, settings) in enumerate(files.items()):
            size = (9, 9) if image_size is None else (9 + 5 * number, 23 - 3 * number)
            pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
            write(tmp_path / "data" / name / file, pixels, **settings)
    images = load(
        DataConfig(
            source=f"folder:{tmp_path / 'data'}",
            image_size=image_size,
            input_size=input_size,
            validation=2,
        )
    )
    stored = images.train.images.shape[1]
    batches = pipeline.evaluation_batches(images.test, 1, images.input_size)
    seen = {batch.tobytes() for batch, _ in batches.as_numpy_iterator()}
    paths = [path for path, _ in image_files.found([tmp_path / "data"])]
    read = [image_files.read(path, images.input_shape, stored) for path in paths]
    assert len(seen) == 2 and len(read) == 10
    assert seen < {pixels.tobytes() for pixels in read}


def test_an_image_of_the_right_size_is_left_as_it_is(tmp_path):
    path = write(tmp_path / "a.png", RGB)
    assert np.array_equal(image_files.read(path, (20, 30, 3)), RGB)
    assert np.array_equal(image_files.read(path, (None, None, 3)), RGB)
    assert image_files.read(path, (10, 40, 3)).shape == (10, 40, 3)


COLOURS = ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", COLOURS)
def test_every_png_is_read_in_grey_and_in_colour(tmp_path, mode, channels):
    deep = Image.fromarray((RGB[..., 0].astype(np.uint16) << 8) + 255)
    image = deep if mode == "I;16" else Image.fromarray(RGB).convert(mode)
    seen = image_files.read(write(tmp_path / "a.png", image), (None, None, channels))
    assert seen.shape == (20, 30, channels) and seen.dtype == np.uint8
    if mode == "I;16":
        assert np.array_equal(seen[..., 0], RGB[..., 0])
    elif channels == 3:
        plain = (
            Image.fromarray(RGB) if mode == "RGBA" else image.convert("L" if mode == "LA" else mode)
        )
        assert np.array_equal(seen, np.asarray(plain.convert("RGB")))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "ending"),
    [("CMYK", "jpg"), ("L", "jpg"), ("RGB", "bmp"), ("L", "bmp"), ("P", "bmp"), ("1", "bmp")]
    + [("P", "gif"), ("L", "gif")],
)
def test_other_colours_are_read_rightly_or_refused(tmp_path, mode, ending, channels):
    smooth = Image.fromarray(np.linspace(0, 255, 600).reshape(20, 30).astype(np.uint8))
    image = smooth.convert("RGB").convert(mode)
    seen = pixels_or_problem(write(tmp_path / f"a.{ending}", image), (None, None, channels))
    if isinstance(seen, str):
        assert "Save it as PNG." in seen and mode in seen
        assert "\n" not in seen
    else:
        right = np.asarray(image.convert("RGB"), float)[..., :channels]
        assert abs(seen - right).mean() < 4
    refused = {("CMYK", 1), ("RGB", 1), ("L", 1), ("P", 1), ("P", 3), ("1", 1), ("1", 3)}
    refused -= {("L", 1)} if ending == "jpg" else set()
    refused -= {("P", 3)} if ending == "gif" else set()
    assert isinstance(seen, str) == ((mode, channels) in refused)


def test_a_jpeg_of_several_pictures_is_read(tmp_path):
    image = Image.fromarray(RGB)
    data = encoded(image, "MPO", save_all=True, append_images=[image])
    (tmp_path / "phone.jpg").write_bytes(data)
    assert image_files.read(tmp_path / "phone.jpg", (8, 8, 3)).shape == (8, 8, 3)


class TestGif:
    def frames(self, count, size=(40, 30)):
        random = np.random.default_rng(3)
        return [
            Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8))
            for _ in range(count)
        ]

    @pytest.mark.parametrize("settings", [{}, {"interlace": 1}, {"comment": b"x" * 700}])
    def test_its_first_frame_is_what_tensorflow_takes_for_it(self, settings):
        first, *others = self.frames(4)
        data = encoded(first, "GIF", save_all=True, append_images=others, duration=9, **settings)
        whole = tf.io.decode_image(data, channels=3, expand_animations=False).numpy()
        assert np.array_equal(image_files.decoded(data, 3), whole)


def many_frames(count, size):
    """Return a GIF of little size whose frames together have many pixels."""
    data = encoded(Image.new("L", size), "GIF")
    start = 13 + (6 << (data[10] & 7))  # a head and its table of colours
    return data[:start] + count * data[start:-1] + data[-1:]


@pytest.mark.slow
def test_large_images_in_small_files_cost_no_memory(tmp_path):
    files = {
        "first.png": (encoded(Image.fromarray(RGB), "PNG"), "read"),
        "large.png": (png(10_000, 10_000), "It has more than 25 megapixels."),
        "larger.png": (png(13_500, 13_500), "It has more than 25 megapixels."),
        "long.png": (png(1, 1_000_000), "Its sides of 1000000 and 1 pixels are too unequal."),
        "frames.gif": (many_frames(60, (3000, 3000)), "read"),
    }
    for name, (data, _) in files.items():
        assert len(data) < 3_000_000
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in files]
    (tmp_path / "measure.py").write_text(MEASURE)
    done = forked.program(tmp_path / "measure.py", *paths)
    output, errors = done.communicate()
    assert done.returncode == 0, errors
    lines = [line.partition(" ") for line in output.splitlines()]
    assert [said for _, _, said in lines] == [said for _, said in files.values()]
    # What the first image costs is TensorFlow's own.
    assert all(int(megabytes) < 100 for megabytes, _, _ in lines[1:])


BROKEN = {
    "nothing.png": (b"", "The file is empty."),
    "text.png": (b"no image at all", "It is no JPEG, PNG, BMP, GIF, WebP or TIFF file"),
    "cut.png": (encoded(Image.fromarray(RGB), "PNG")[:-40], "The PNG is damaged or cut short."),
    "cut.jpg": (encoded(Image.fromarray(RGB), "JPEG")[:-40], "The JPEG is damaged or cut short."),
    "start.jpg": (encoded(Image.fromarray(RGB), "JPEG")[:40], "or a damaged one."),
    "cut.bmp": (encoded(Image.fromarray(RGB), "BMP")[:-40], "The BMP is damaged or cut short."),
    "cut.gif": (encoded(Image.fromarray(RGB), "GIF")[:-40], "The GIF is damaged or cut short."),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_answered_with_one_sentence(tmp_path, name):
    data, sentence = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    said = pixels_or_problem(tmp_path / name)
    assert sentence in said and said.count(".") == 1 and "\n" not in said


def test_what_is_no_file_is_answered_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "round.png").symlink_to(tmp_path / "round.png")
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere.png")
    assert pixels_or_problem(tmp_path / "pipe.png") == "It is no regular file."
    assert pixels_or_problem(tmp_path) == "It is a folder."
    assert pixels_or_problem(Path("/dev/zero")) == "It is no regular file."
    assert "oo many levels of symbolic links" in pixels_or_problem(tmp_path / "round.png")
    assert "No such file" in pixels_or_problem(tmp_path / "lost.png")
    assert "cannot be read" in pixels_or_problem(Path("nul\0.png"))
    assert "File name too long" in pixels_or_problem(tmp_path / ("x" * 300))


def test_a_file_of_too_many_bytes_is_refused(tmp_path):
    with open(tmp_path / "large.png", "wb") as file:
        file.truncate(image_files.MAX_BYTES + 1)
    assert pixels_or_problem(tmp_path / "large.png") == "The file is larger than 64 MB."


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_that_may_not_be_read_are_answered(tmp_path):
    path = write(tmp_path / "closed.png", RGB)
    path.chmod(0)
    assert "Permission denied" in pixels_or_problem(path)
    (tmp_path / "closed").mkdir(mode=0)
    [(_, problem)] = image_files.found([tmp_path / "closed"])
    assert problem == "The folder cannot be read: Permission denied."


class TestFound:
    @pytest.fixture
    def folder(self, tmp_path):
        root = tmp_path / "photos"
        for name in ("b.PNG", "a.jpg", "deep/er/c.gif", "deep/d.bmp", ".hidden.png", ".git/e.png"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"x")
        (root / "notes.txt").write_bytes(b"x")
        (root / "deep" / "picture.webp").write_bytes(b"x")
        (root / "deep" / "again").symlink_to(root)
        (root / "round").symlink_to(root / "round")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "f.jfif").write_bytes(b"x")
        (root / "linked").symlink_to(tmp_path / "elsewhere")
        return root

    def test_folders_are_gone_through_in_order_and_once_and_what_is_left_out_is_told(self, folder):
        skipped = image_files.Skipped()
        found = list(image_files.found([folder], skipped))
        names = [str(path.relative_to(folder)) for path, _ in found]
        assert names == [
            "a.jpg", "b.PNG", "deep/d.bmp", "deep/picture.webp", "deep/er/c.gif", "linked/f.jfif"
        ]  # fmt: skip
        assert all(problem is None for _, problem in found)
        assert len(skipped) == 5
        assert skipped.lines() == [
            f"Skipped 2 (hidden): {folder}/.git, {folder}/.hidden.png",
            "Skipped 1 (without an image's ending (.jpg .jpeg .jfif .png .bmp .gif .webp .tif "
            f".tiff)): {folder}/notes.txt",
            f"Skipped 1 (a link that leads nowhere): {folder}/round",
            f"Skipped 1 (a folder that was read already): {folder}/deep/again",
        ]

    def test_a_file_that_is_named_is_taken_whatever_it_is_called(self, folder):
        named = [folder / "notes.txt", folder / "missing", folder / ".hidden.png"]
        assert list(image_files.found(named)) == [(path, None) for path in named]

    def test_an_empty_folder_is_answered(self, folder):
        (folder / "empty").mkdir()
        [(path, problem), *others] = image_files.found([folder / "empty", folder])
        assert path.name == "empty" and "holds no image" in problem and len(others) == 6

    def test_a_very_deep_folder_is_gone_through(self, tmp_path):
        here, depth = os.getcwd(), 1100
        os.chdir(tmp_path)
        try:
            for _ in range(depth):
                os.mkdir("d")
                os.chdir("d")
            Path("a.png").touch()
            found = list(image_files.found([tmp_path]))
            # Others go through this folder by recursion, and would fail.
            Path("a.png").unlink()
            for _ in range(depth):
                os.chdir("..")
                os.rmdir("d")
        finally:
            os.chdir(here)
        assert [path.name for path, _ in found] == ["a.png"]


def test_names_that_are_no_text_can_be_written():
    assert image_files.name_of(Path(os.fsdecode(b"caf\xe9.png"))) == "caf\\xe9.png"
    assert image_files.name_of(Path("Käfer\n.png")) == "Käfer\n.png"
