import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfdistill.config import DataConfig
from tfdistill.data import decode, load
from tfdistill.data.sources import tfds_prepared
from tfdistill.utils.checks import UsageError

SIZES = {"train": 30, "validation": 6}


class TinyShades(tfds.core.GeneratorBasedBuilder):
    """30 + 6 grey PNG images whose level is their number; numbers stand in `id`."""

    VERSION = tfds.core.Version("1.0.0")
    PARTS = tuple(SIZES)

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(5, 5, 3)),
            "label": tfds.features.ClassLabel(names=["even", "odd"]),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {part: self._generate_examples(part) for part in self.PARTS}

    def _generate_examples(self, part):
        for number in range(SIZES[part]):
            name = f"{part}_{number:05}"
            image = np.full((5, 5, 3), number, np.uint8)
            yield name, {"id": name, "image": image, "label": number % 2}


class TinyTrainOnly(TinyShades):
    """The same without held-out images."""

    PARTS = ("train",)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for builder in (TinyShades, TinyTrainOnly):
        builder(data_dir=folder).download_and_prepare()
    return str(folder)


def tiny(data_dir, **settings):
    source = settings.pop("source", "tfds:tiny_shades")
    return load(DataConfig(source=source, data_dir=data_dir, **{"validation": 4, **settings}))


def test_prepared_set_keeps_its_own_ids(data_dir):
    data = tiny(data_dir)
    for part in (data.train, data.validation):
        assert np.array_equal(part.images[:, 0, 0, 0], part.ids)
        assert np.array_equal(part.ids % 2, part.labels)
    assert sorted([*data.train.ids, *data.validation.ids]) == list(range(30))
    assert data.class_names == ("even", "odd")


def test_validation_split_stands_in_for_a_missing_test_split(data_dir):
    data = tiny(data_dir)
    assert sorted(data.test.images[:, 0, 0, 0]) == list(range(6))
    assert data.test.ids.tolist() == list(range(6))


def test_a_split_gives_images_without_labels_beside_others(data_dir):
    data = tiny(data_dir, unlabelled="tfds:tiny_train_only")
    without = data.train.labels == -1
    assert data.unlabelled == without.sum() > 0
    known = {int(image[0, 0, 0]) for part in (data.test, data.validation) for image in part.images}
    # Those that are validation or test images are left out, as exact copies are.
    assert set(data.train.images[without][:, 0, 0, 0].tolist()) == set(range(30)) - known
    validation = tiny(data_dir, unlabelled="tfds:tiny_shades validation")
    assert validation.unlabelled == 0
    with pytest.raises(UsageError, match="has the splits train. Received: 'other'"):
        tiny(data_dir, unlabelled="tfds:tiny_train_only other")


def test_prepared_set_without_test_images_is_refused(data_dir):
    with pytest.raises(UsageError, match="needs a train split and a test or validation split"):
        tiny(data_dir, source="tfds:tiny_train_only")


def test_data_dir_can_come_from_the_environment(data_dir, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", data_dir)
    assert len(tiny(None).test) == 6


def test_prepared_set_is_cached(data_dir, own_cache, monkeypatch):
    first = tiny(data_dir)

    def fail(*_):
        raise RuntimeError("read again")

    monkeypatch.setattr(decode, "decode", fail)
    assert np.array_equal(tiny(data_dir).train.images, first.train.images)
    with pytest.raises(RuntimeError, match="read again"):
        tiny(data_dir, image_size=4)


def test_missing_set_is_answered_with_folder_and_command(tmp_path):
    with pytest.raises(UsageError) as caught:
        tiny(str(tmp_path), source="tfds:cifar10")
    message = str(caught.value)
    assert f"data_dir {tmp_path}" in message
    assert f"tfds.load('cifar10', data_dir='{tmp_path}')" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        ([b"train_2", b"train_0", b"train_1"], [2, 0, 1]),
        ([b"train_1", b"train_1", b"train_0"], [0, 1, 2]),
        ([b"train_1", b"train_900", b"train_0"], [0, 1, 2]),
        ([b"cat", b"dog", b"cow"], [0, 1, 2]),
        ([], [0, 1, 2]),
    ],
)
def test_ids_are_used_where_they_can_number_rows(names, ids):
    assert tfds_prepared.numbers(names, 3).tolist() == ids


@pytest.fixture
def archive(tmp_path):
    """A tiny imagewoof2-160.tgz: two breeds, 6 training and 2 validation images each."""
    path = tmp_path / "imagewoof2-160.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for part, count in (("train", 6), ("val", 2)):
            for level, breed in ((60, "n02086240"), (180, "n02088364")):
                for number in range(count):
                    pixels = np.full((20, 30, 3), level, np.uint8)
                    data = tf.io.encode_jpeg(pixels).numpy()
                    name = f"imagewoof2-160/{part}/{breed}/{breed}_{number}.JPEG"
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    return path


def woof(tmp_path, archive, **settings):
    config = {"data_dir": str(tmp_path / "prepared"), "validation": 1, "normalize": "none"}
    return DataConfig(source="imagewoof", archive=archive and str(archive), **config | settings)


@pytest.mark.slow
def test_imagewoof_is_prepared_from_its_archive(tmp_path, archive, capfd):
    from tfdistill.data.sources import imagewoof

    source = imagewoof.read(woof(tmp_path, archive))
    assert source.train.images.shape == (12, 160, 160, 3)
    assert len(source.test) == 4
    assert source.class_names[0] == "shih_tzu"
    assert set(source.train.labels) == {0, 2}
    assert np.array_equal(source.train.images[:, 80, 80, 0] > 120, source.train.labels == 2)
    archive.unlink()
    again = imagewoof.read(woof(tmp_path, None, image_size=16))
    assert again.train.images.shape == (12, 16, 16, 3)
    assert np.array_equal(again.train.labels, source.train.labels)


def test_imagewoof_without_archive_is_answered_with_folder_command_and_option(tmp_path):
    with pytest.raises(UsageError) as caught:
        load(woof(tmp_path, None))
    for part in (str(tmp_path / "prepared"), "data.archive", "download_and_prepare()"):
        assert part in str(caught.value)


def test_imagewoof_archive_must_be_one(tmp_path):
    with pytest.raises(UsageError, match="missing.tgz.*no file"):
        load(woof(tmp_path, tmp_path / "missing.tgz"))
    (tmp_path / "broken.tgz").write_bytes(b"no archive")
    with pytest.raises(UsageError, match="Cannot prepare ImageWoof from .*broken.tgz"):
        load(woof(tmp_path, tmp_path / "broken.tgz"))


@pytest.mark.skipif(
    not Path(os.environ.get("TFDS_DATA_DIR", ""), "cifar10").exists(), reason="needs CIFAR-10"
)
def test_cifar10_is_numbered_by_its_id_feature():
    data = load(DataConfig(source="tfds:cifar10", validation=5000))
    assert (len(data.train), len(data.validation), len(data.test)) == (45000, 5000, 10000)
    assert sorted([*data.train.ids, *data.validation.ids]) == list(range(50000))
    assert data.class_names[3] == "cat"
    assert np.bincount(data.validation.labels).tolist() == [500] * 10
