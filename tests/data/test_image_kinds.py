"""One picture in every kind of file: the same pixels in training, in `predict` and in `bytes`."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tfdistill.data import decode, headers, image_files, structure
from tfdistill.data.headers import ImageError
from tfdistill.export import image_graph
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow

SIDE = 12
# Smooth, so that lossy kinds stay near it; no two of its turned copies are alike.
Y, X = np.mgrid[0:20, 0:30]
PICTURE = np.stack([8 * X, 12 * Y, 255 - 4 * (X + Y)], axis=-1).astype(np.uint8)
UPRIGHT = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, 1),
}


def file(format, mode="RGB", orientation=None, order="<", **settings):
    """Return the picture as a file."""
    image = Image.fromarray(PICTURE)
    image = image.quantize(256) if mode == "P" else image.convert(mode)
    if orientation is not None:
        exif = Image.Exif()
        exif.endian = order
        exif[0x0112] = orientation
        settings["exif"] = exif.tobytes() if format != "TIFF" else exif
    data = io.BytesIO()
    image.save(data, format, **settings)
    return data.getvalue()


def deep(format):
    """Return the picture's red in 16 bits a pixel."""
    data = io.BytesIO()
    Image.fromarray((PICTURE[..., 0].astype(np.uint16) << 8) + 255).save(data, format)
    return data.getvalue()


@pytest.fixture(scope="module")
def served():
    """What the signature `bytes` does to files, for networks of three channels and of one."""

    def of(channels):
        frame = image_graph.Frame((SIDE, SIDE, channels), None)
        signature = [tf.TensorSpec((None,), tf.string)]
        return tf.function(lambda files: image_graph.decoded(files, frame), signature)

    return {channels: of(channels) for channels in (1, 3)}


def in_training(files, channels=3):
    """Return the pixels of several files that training sees."""
    return decode.decode(list(files), str, channels, SIDE)


def in_predict(data, channels=3):
    """Return the pixels of a file that `predict` sees."""
    return image_files.fitted(image_files.decoded(data, channels, SIDE), (SIDE, SIDE, channels))


SAME = {
    "jpeg": file("JPEG", quality=95),
    "progressive": file("JPEG", quality=95, progressive=True),
    "grey jpeg": file("JPEG", "L"),
    "cmyk jpeg": file("JPEG", "CMYK"),
    "several in a jpeg": file("MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
    "png": file("PNG"),
    "png with alpha": file("PNG", "RGBA"),
    "palette": file("PNG", "P"),
    "grey png": file("PNG", "L"),
    "two colours": file("PNG", "1"),
    "deep png": deep("PNG"),
}
NOT_SERVED = {
    "bmp": file("BMP"),
    "gif": file("GIF"),
    "webp": file("WEBP", lossless=True),
    "lossy webp": file("WEBP", quality=95),
    "webp with alpha": file("WEBP", "RGBA", lossless=True),
    "tiff": file("TIFF"),
    "tiff with alpha": file("TIFF", "RGBA"),
    "packed tiff": file("TIFF", compression="tiff_lzw"),
    "palette tiff": file("TIFF", "P"),
    "grey tiff": file("TIFF", "L"),
    "deep tiff": deep("TIFF"),
    "bits tiff": file("TIFF", "1"),
}


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_and_png_are_the_same_everywhere(served, channels):
    files = {kind: data for kind, data in SAME.items() if channels == 3 or kind != "cmyk jpeg"}
    training = in_training(files.values(), channels)
    graph = served[channels](tf.constant(list(files.values()))).numpy()
    for kind, first, second in zip(files, training, graph, strict=True):
        np.testing.assert_array_equal(first, in_predict(files[kind], channels), kind)
        np.testing.assert_array_equal(first, second, kind)


def test_cmyk_is_refused_everywhere_by_a_grey_network(served):
    data = SAME["cmyk jpeg"]
    with pytest.raises(UsageError, match="kind CMYK cannot be read into 1 channel"):
        in_training([data], 1)
    with pytest.raises(ImageError, match="kind CMYK cannot be read into 1 channel"):
        in_predict(data, 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[0\] is a JPEG in CMYK"):
        served[1](tf.constant([data]))


def test_other_kinds_are_the_same_in_python_and_refused_by_the_signature(served):
    for first, (kind, data) in zip(
        in_training(NOT_SERVED.values()), NOT_SERVED.items(), strict=True
    ):
        np.testing.assert_array_equal(first, in_predict(data), kind)
        with pytest.raises(tf.errors.InvalidArgumentError, match="is neither JPEG nor PNG"):
            served[3](tf.constant([data]))


@pytest.mark.parametrize("kind", [*SAME, *NOT_SERVED])
def test_colours_are_those_of_the_picture(kind):
    data = (SAME | NOT_SERVED)[kind]
    seen = image_files.decoded(data, 3).astype(int)
    expected = PICTURE
    if "deep" in kind:
        expected = PICTURE[..., :1]
    elif "grey" in kind:
        expected = np.asarray(Image.fromarray(PICTURE).convert("L"))[..., None]
    elif kind in ("two colours", "bits tiff"):
        expected = 255 * np.asarray(Image.fromarray(PICTURE).convert("1"))[..., None]
    lossless = {"png", "png with alpha", "bmp", "webp", "tiff", "packed tiff", "grey png"}
    lossless |= {"tiff with alpha", "webp with alpha", "deep png", "deep tiff", "two colours"}
    lossless |= {"grey tiff", "bits tiff"}
    most = 0 if kind in lossless else 4 if kind in SAME and "palette" not in kind else 12
    assert abs(seen - expected).mean() <= most


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_a_picture_is_turned_as_its_camera_noted(served, format):
    settings = {"lossless": True} if format == "WEBP" else {}
    files = [file(format, orientation=number, **settings) for number in UPRIGHT]
    for data, upright in zip(files, UPRIGHT.values(), strict=True):
        seen, right = image_files.decoded(data, 3), upright(PICTURE)
        assert seen.shape == right.shape
        assert abs(seen.astype(int) - right).mean() <= (3 if format == "JPEG" else 0)
    training = in_training(files)
    np.testing.assert_array_equal(training, [in_predict(data) for data in files])
    if format in ("PNG", "JPEG"):
        np.testing.assert_array_equal(training, served[3](tf.constant(files)))


def strange_notes():
    """Yield files whose notes are of other forms, or none that can be read, and what they say."""
    for format in ("JPEG", "PNG"):
        for order in "<>":
            for number in (0, 3, 6, 9):
                yield file(format, orientation=number, order=order), number if number < 9 else 1
        exif = file(format, orientation=6)
        place = exif.index(b"II*\0")
        (start,) = struct.unpack_from("<I", exif, place + 4)
        entry = place + start + 2
        for at, form, value, said in [
            (entry, "H", 0x0113, 1),  # another tag
            (entry + 2, "H", 4, 6),  # a long number
            (entry + 8, "H", 70, 1),
            (place, "2s", b"XX", 1),
            (place + 4, "I", 2**31, 1),  # a directory beyond the end
            (place + start, "H", 65535, 6),  # more entries than there are
        ]:
            changed = bytearray(exif)
            struct.pack_into(f"<{form}", changed, at, value)
            yield bytes(changed), said
    yield file("JPEG"), 1
    yield file("PNG"), 1


def test_the_graph_and_python_read_the_same_notes():
    signature = [tf.TensorSpec((), tf.string)]
    jpeg = tf.function(lambda data: tuple(structure.jpeg_in_graph(data)), signature)
    png = tf.function(structure.png_orientation_in_graph, signature)
    for data, said in strange_notes():
        if data.startswith(b"\xff\xd8"):
            found = structure.jpeg(data)
            assert tuple(value.numpy() for value in jpeg(data)) == found
            assert (found.height, found.width, found.components) == (20, 30, 3)
            assert found.one_pass and found.orientation == max(said, 1)
        else:
            assert png(data) == structure.png_orientation(data) == max(said, 1)


def test_the_graph_and_python_refuse_the_same_jpegs():
    jpeg = tf.function(
        lambda data: structure.jpeg_in_graph(data).height, [tf.TensorSpec((), tf.string)]
    )
    whole = SAME["jpeg"]
    marker = whole.index(b"\xff\xdb")
    padded = whole[:marker] + 5 * b"\xff" + whole[marker:]
    assert structure.jpeg(padded) == structure.jpeg(whole) and jpeg(padded) == 20
    assert not structure.jpeg(SAME["progressive"]).one_pass
    many = whole[:2] + structure.MOST_PARTS * b"\xff\xe0\0\2" + whole[2:]
    for data in (whole[:100], whole[:2] + b"x" + whole[2:], b"\xff\xd8\xff", many):
        with pytest.raises(ValueError, match="damaged"):
            structure.jpeg(data)
        assert jpeg(data) == 0


@pytest.fixture(scope="module")
def photo():
    """A JPEG of 27 megapixels, lying as telephones write it, and its pixels as they are shown."""
    small = Image.fromarray(np.kron(PICTURE, np.ones((10, 10, 1), np.uint8)))
    large = small.resize((6000, 4500), Image.Resampling.BILINEAR)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    large.save(data, "JPEG", quality=80, exif=exif)
    return data.getvalue(), ImageOps.exif_transpose(Image.open(io.BytesIO(data.getvalue())))


def test_a_large_photo_is_reduced_while_it_is_decoded(photo, served):
    data, shown = photo
    found = headers.checked(data, 3, SIDE)
    assert (found.ratio, found.orientation) == (2, 6)
    assert decode.one(found, 3).shape == (3000, 2250, 3)
    (training,) = in_training([data])
    np.testing.assert_array_equal(training, in_predict(data))
    np.testing.assert_array_equal(training, served[3](tf.constant([data]))[0])
    # Scaled by another decoder and another program, without being reduced on the way.
    right = shown.resize((12, 16), Image.Resampling.BILINEAR).crop((0, 2, 12, 14))
    assert abs(training.astype(int) - np.asarray(right)).max() <= 2


def of_size(height, width, progressive=False):
    """Return a JPEG that claims a size."""
    data = SAME["progressive" if progressive else "jpeg"]
    place = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    return data[: place + 5] + struct.pack(">HH", height, width) + data[place + 9 :]


@pytest.mark.parametrize(
    ("height", "width", "size", "ratio"),
    [
        (5000, 5000, None, 1),
        (5000, 5001, 64, 2),
        (6000, 8000, 3000, 2),
        (10000, 10000, 64, 2),
        (10000, 10001, 64, 4),
        (12240, 16320, 224, 4),  # 200 megapixels
        (15811, 15811, 224, 4),
    ],
)
def test_a_jpeg_is_reduced_no_more_than_need_be(height, width, size, ratio):
    assert headers.checked(of_size(height, width), 3, size).ratio == ratio


@pytest.mark.parametrize(
    ("height", "width", "size", "message"),
    [
        (5000, 5001, None, "25 megapixels. Only a JPEG that is to be made smaller may have more"),
        (6000, 8000, 3001, "25 megapixels. Only a JPEG that is to be made smaller may have more"),
        (15812, 15811, 224, "250 megapixels"),
        (65500, 65500, 224, "250 megapixels"),
    ],
)
def test_larger_jpegs_are_refused_before_they_are_decoded(served, height, width, size, message):
    with pytest.raises(ImageError, match=message):
        headers.checked(of_size(height, width), 3, size)
    with pytest.raises(ImageError, match="64 megapixels"):
        headers.checked(of_size(8000, 8001, progressive=True), 3, 64)
    for data in (of_size(15812, 15811), of_size(8000, 8001, progressive=True)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="give images of 1 to 25000000"):
            served[3](tf.constant([data]))


def test_a_tiff_of_a_huge_tile_is_refused():
    data = bytearray(NOT_SERVED["tiff"])
    (start,) = struct.unpack_from("<I", data, 4)
    # Its rows in a strip (278) and its planes (284) become width and height of a tile.
    tile = {278: 322, 284: 323}
    for place in range(start + 2, start + 2 + 12 * data[start], 12):
        (tag,) = struct.unpack_from("<H", data, place)
        if tag in tile:
            struct.pack_into("<HHII", data, place, tile.pop(tag), 4, 1, 30000)
    assert not tile
    with pytest.raises(ImageError, match="25 megapixels"):
        headers.checked(bytes(data), 3, 8)
