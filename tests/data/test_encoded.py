"""Images that stay in their files are seen as those that were decoded beforehand, to the bit."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfdistill import records
from tfdistill.cli.main import main
from tfdistill.config import (
    AugmentConfig,
    DataConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
)
from tfdistill.data import BatchSettings, encoded, evaluation_batches, load, training_batches
from tfdistill.data.image_files import read
from tfdistill.data.sources import stores
from tfdistill.training import runner
from tfdistill.training.session import Session
from tfdistill.utils import checks
from tfdistill.utils.checks import UsageError

CROPS = AugmentConfig(resized_crop=0.2, flip=True)


def picture(random, height, width):
    """A smooth picture with noise, whose colours change at every pixel."""
    small = random.normal(128, 70, (height // 6, width // 6, 3))
    smooth = tf.image.resize(small, (height, width), method="bicubic").numpy()
    return np.clip(smooth + random.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


def write(path, pixels, orientation=1):
    """Write a picture so that it is read upright as `pixels` are."""
    turned = {1: pixels, 6: np.rot90(pixels)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {".jpg": {"quality": 80}, ".webp": {"quality": 90}}.get(path.suffix, {})
    Image.fromarray(turned).save(path, exif=exif, **settings)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of 12 pictures of 42 x 60 pixels: JPEG, PNG, WebP, and two turned ones."""
    folder, random = tmp_path_factory.mktemp("encoded"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for number in range(12):
            ending = {3: "png", 4: "webp"}.get(number, "jpg")
            path = folder / name / f"{number:02}.{ending}"
            write(path, picture(random, 42, 60), orientation=6 if number in (4, 5) else 1)
    return folder


def opened(folder, storage, **settings):
    config = DataConfig(f"folder:{folder}", storage=storage, **settings)
    return load(config, tell=lambda note: None)


def batches(data, augment, size=7, epochs=1):
    settings = BatchSettings(size, augment=augment, num_classes=2, input_size=data.input_size)
    found = training_batches(data.train, settings, epochs=epochs)
    return [np.concatenate(part) for part in zip(*found.as_numpy_iterator(), strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes, augment",
    [
        ({"input_size": 24}, CROPS),
        ({"input_size": 24}, AugmentConfig(resized_crop=0.5, antialias=True)),
        ({"input_size": 24}, AugmentConfig(rotation=20, flip=True, erasing=0.5, cutmix=1.0)),
        ({"image_size": 32}, AugmentConfig(pad_crop=3, flip=True, cutout=6)),
        ({"image_size": 32, "input_size": 20}, AugmentConfig(resized_crop=0.3, mixup=0.4)),
    ],
)
def test_views_from_files_equal_those_from_memory(photos, sizes, augment):
    decoded, kept = (opened(photos, storage, **sizes) for storage in ("memory", "files"))
    assert isinstance(kept.train.images, encoded.EncodedImages)
    for first, second in zip(batches(decoded, augment), batches(kept, augment), strict=True):
        assert np.array_equal(first, second)
    first, second = (
        np.concatenate([images for images, _ in evaluation_batches(d.test, 3, d.input_size)])
        for d in (decoded, kept)
    )
    assert np.array_equal(first, second)


def test_what_is_known_of_the_images_is_the_same(photos):
    decoded, kept = (opened(photos, storage) for storage in ("memory", "files"))
    assert (kept.hashes, kept.mean, kept.std) == (decoded.hashes, decoded.mean, decoded.std)
    assert kept.train.images_sha256 == decoded.train.images_sha256
    assert kept.input_shape == decoded.input_shape == (42, 60, 3)
    assert np.array_equal(kept.train.pixels, decoded.train.images)
    assert np.array_equal(kept.test.take(slice(1, 3)).pixels, decoded.test.images[1:3])


def test_a_later_start_looks_at_no_image(photos, own_cache):
    first = opened(photos, "files", normalize="none")
    known = first.hashes
    again = opened(photos, "files", normalize="none")
    assert again.hashes == known
    parts = again.train, again.validation, again.test
    assert not any("_looked" in vars(part.images) for part in parts)


@pytest.mark.slow
def test_neither_batches_nor_workers_matter(photos):
    one = opened(photos, "files", input_size=16, workers=1)
    three = opened(photos, "files", input_size=16, workers=3)
    for first, second in zip(batches(one, CROPS, 4, 2), batches(three, CROPS, 13, 2), strict=True):
        assert np.array_equal(first, second)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Two classes of 10 pictures of three sizes."""
    folder, random = tmp_path_factory.mktemp("mixed"), np.random.default_rng(1)
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for number in range(10):
            height, width = ((36, 48), (60, 30), (42, 42))[number % 3]
            write(folder / name / f"{number}.jpg", picture(random, height, width))
    return folder


@pytest.mark.parametrize(
    "folder, storage", [("mixed", "files"), ("photos", "files"), ("photos", "memory")]
)
def test_images_that_are_no_squares_are_seen_as_predictions_see_them(request, folder, storage):
    folder = request.getfixturevalue(folder)
    data = opened(folder, storage, input_size=24)
    assert data.stored_side is None
    (images, labels), *_ = evaluation_batches(data.test, 4, 24)
    files = sorted(path for path in folder.glob("*/*") if path.name[0].isdigit())
    every = np.stack([read(path, (24, 24, 3)) for path in files])
    for image, label in zip(images.numpy(), labels.numpy(), strict=True):
        places = [at for at, other in enumerate(every) if np.array_equal(image, other)]
        assert [files[at].parent.name for at in places] == [data.class_names[label]]


@pytest.mark.slow
def test_crops_of_several_sizes_lie_in_their_images(mixed):
    """A picture of its own coordinates shows which part of it is seen."""
    for number in range(6):
        height, width = ((36, 48), (60, 30), (42, 42))[number % 3]
        y, x = np.mgrid[:height, :width]
        pixels = np.stack([4 * y, 4 * x, 0 * x], axis=-1).astype(np.uint8)
        write(mixed / ("cat", "dog")[number % 2] / f"coordinates{number}.png", pixels)
    data = opened(mixed, "files", input_size=12, test_examples=2)
    settings = BatchSettings(4, augment=AugmentConfig(resized_crop=0.4), input_size=12)
    (first, _), *_ = training_batches(data.train, settings, epochs=1)
    assert first.shape == (4, 12, 12, 3)
    shown = np.concatenate([i for i, _ in training_batches(data.train, settings, epochs=1)])
    drawn = shown[(shown[..., 2] == 0).all(axis=(1, 2))].astype(float) / 4
    assert len(drawn) >= 3
    for image in drawn:
        for axis in (0, 1):
            line = image[..., axis].mean(axis=1 - axis)
            steps = np.diff(line)
            assert (steps > 0).all() and steps.max() - steps.min() < 0.6  # evenly, and in order


def test_images_of_several_sizes_need_one_that_networks_see(mixed):
    for storage in ("memory", "files"):
        with pytest.raises(UsageError, match=r"one size\. Received: .* Set data.image_size"):
            opened(mixed, storage)


def test_augmentation_in_pixels_needs_one_size(mixed):
    data = opened(mixed, "files", input_size=24)
    settings = BatchSettings(4, augment=AugmentConfig(pad_crop=2), input_size=24)
    with pytest.raises(UsageError, match="Received: images of several sizes and data.input_size"):
        training_batches(data.train, settings, epochs=1)


def test_records_equal_arrays(tmp_path):
    from tests.data.test_tfds_prepared import TinyShades

    TinyShades(data_dir=tmp_path).download_and_prepare()
    found = [
        load(DataConfig("tfds:tiny_shades", data_dir=str(tmp_path), storage=storage))
        for storage in ("memory", "files")
    ]
    assert isinstance(found[1].train.images, encoded.EncodedImages)
    assert found[0].hashes == found[1].hashes and found[0].mean == found[1].mean
    first, second = (batches(data, AugmentConfig(pad_crop=1, flip=True)) for data in found)
    assert all(map(np.array_equal, first, second))


@pytest.mark.slow
def test_images_without_labels_follow_the_others(photos, mixed):
    found = [
        opened(photos, storage, image_size=16, unlabelled=str(mixed / "cat"))
        for storage in ("memory", "files")
    ]
    assert found[0].unlabelled == found[1].unlabelled > 0
    assert found[0].hashes == found[1].hashes
    first, second = (batches(data, AugmentConfig(flip=True)) for data in found)
    assert all(map(np.array_equal, first, second))


def test_files_are_taken_where_memory_is_too_small(photos):
    store = stores.Files(sorted(photos.glob("*/*.jpg")))
    small, told = stores.resolved(DataConfig(), store, 24)
    assert (small.storage, told) == ("memory", [])
    large, told = stores.resolved(DataConfig(), store, 10**9)  # 42 * 60 * 3 * 10^9, three times
    assert large.storage == "files"
    assert told[0].startswith("1000000000 images would take 22680.0 GB of ")
    chosen, told = stores.resolved(DataConfig(storage="files"), store, 1)
    assert (chosen.storage, told) == ("files", [])


def test_sources_without_files_say_so():
    with pytest.raises(UsageError, match="Received: data.source='digits'. Set data.storage=memory"):
        load(DataConfig(storage="files"))


@pytest.fixture
def own_photos(tmp_path):
    """12 pictures that a test may change."""
    random = np.random.default_rng(2)
    for name in ("cat", "dog"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for number in range(6):
            write(tmp_path / "own" / name / f"{number}.jpg", picture(random, 24, 24))
    return tmp_path / "own"


def test_a_damaged_file_is_named_at_the_first_look(own_photos):
    path = own_photos / "cat" / "3.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UsageError, match="Cannot read the image .*cat/3.jpg: The JPEG is damaged"):
        opened(own_photos, "files", validation=2).hashes  # noqa: B018, which looks at all of them


def study(folder, **settings):
    return StudyConfig(
        study="single",
        seeds=[0],
        data=DataConfig(f"folder:{folder}", validation=2, **settings),
        teacher=ModelConfig("cnn2", width=0.125),
        training=TrainingConfig(epochs=1, batch_size=4),
    )


@pytest.mark.slow
def test_a_file_that_changes_while_it_is_read_ends_the_run_in_one_line(
    own_photos, tmp_path, eagerly
):
    config = study(own_photos, storage="files", image_size=16)
    session = Session(reading=config.data)
    runs = runner.plan(config)
    assert session.images(runs[0].data).hashes  # all have been looked at
    for path in own_photos.glob("*/*.jpg"):
        write(path, picture(np.random.default_rng(3), 24, 24))
    with pytest.raises(UsageError, match=r"is no longer what it was: It has changed") as found:
        runner.do_runs(config, runs, tmp_path / "results", session)
    assert "\n" not in str(found.value)


@pytest.mark.slow
def test_a_study_gives_the_same_weights_and_goes_on_either_way(own_photos, tmp_path, eagerly):
    memory = study(own_photos, storage="memory", image_size=16)
    first = runner.run_study(memory, tmp_path / "memory")
    files = study(own_photos, storage="files", workers=1, image_size=16)
    taught = [run for run in runner.plan(files) if run.name != "alone-0"]
    runner.do_runs(files, taught, tmp_path / "files", Session(reading=files.data))
    second = records.read_all(tmp_path / "files")
    assert {run.name for run in second} == {"teacher", "distilled-0"}
    of_first, of_second = (
        {record.name: (record.key, record.weights, record.images) for record in found}
        for found in (first, second)
    )
    assert of_first.items() >= of_second.items()
    again = runner.run_study(files, tmp_path / "memory")
    assert [record.name for record in again] == [record.name for record in first]
    assert [record.seconds for record in again] == [record.seconds for record in first]


def test_wrong_words_are_refused(capsys):
    assert main(["run", "configs/quickstart.yaml", "data.storage=disk"]) == 2
    assert "data.storage" in capsys.readouterr().err
    assert main(["run", "configs/quickstart.yaml", "data.workers=0"]) == 2
    assert "data.workers" in capsys.readouterr().err


def test_only_errors_of_readers_are_taken_for_theirs():
    assert checks.of_reader(ValueError("UsageError: of somebody else")) is None

    def read(_):
        raise UsageError("The file is gone. Put it back.")

    line = tf.data.Dataset.range(1).map(lambda x: tf.numpy_function(read, [x], tf.int64))
    with pytest.raises(tf.errors.OpError) as raised:
        list(line)
    assert str(checks.of_reader(raised.value)) == "The file is gone. Put it back."


def test_free_memory_is_that_of_the_machine():
    assert 2**20 < stores.free_memory() < 2**50
