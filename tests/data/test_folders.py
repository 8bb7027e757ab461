"""Folders of images: what their sub-folders are, and that nothing is left out without a word."""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfdistill.config import AugmentConfig, DataConfig
from tfdistill.data import BatchSettings, load, training_batches
from tfdistill.utils.checks import UsageError


@pytest.fixture
def photos(tmp_path, write_image):
    """A function that writes images: their grey levels by folder; it returns the root."""

    def write(**levels):
        for name, values in levels.items():
            folder = tmp_path / "photos" / name.replace("__", "/")
            folder.mkdir(parents=True, exist_ok=True)
            for level in values:
                write_image(folder / f"{level:03}.png", level)
        return tmp_path / "photos"

    return write


def read(root, **settings):
    """Return the data set and what is told."""
    told: list[str] = []
    data = load(DataConfig(source=f"folder:{root}", **settings), told.append)
    return data, told


def levels(examples):
    return sorted(examples.images[:, 4, 4, 0].tolist())


CATS, DOGS = range(10, 20), range(110, 120)


class TestParts:
    @pytest.mark.parametrize("train", ["train", "Training", "training_set"])
    @pytest.mark.parametrize("val", ["val", "valid", "VALIDATION", "dev-images", "Eval data"])
    def test_train_and_val_leave_a_fifth_of_train_for_the_test(self, photos, train, val):
        names = {f"{train}__cat": CATS, f"{train}__dog": DOGS, f"{val}__cat": [5]}
        data, told = read(photos(**names, **{f"{val}__dog": [105, 106]}))
        assert data.class_names == ("cat", "dog")
        assert levels(data.validation) == [5, 105, 106]
        assert [len(data.train), len(data.test)] == [16, 4]
        assert np.bincount(data.test.labels).tolist() == [2, 2]
        assert levels(data.train) + levels(data.test) != levels(data.validation)
        assert sorted(levels(data.train) + levels(data.test)) == [*CATS, *DOGS]
        assert told == [
            f"{val}/ holds the validation images; there are no test images, so a fifth of "
            f"{train}/ is held out for them"
        ]

    @pytest.mark.parametrize("test", ["test", "Testing"])
    def test_three_parts_are_used_as_they_are(self, photos, test):
        names = {"train__a": CATS, "train__b": DOGS, "val__a": [1], "val__b": [2]}
        root = photos(**names, **{f"{test}__a": [3], f"{test}__b": [4, 5]})
        data, told = read(root)
        assert levels(data.train) == [*CATS, *DOGS] and not told
        assert levels(data.validation) == [1, 2] and levels(data.test) == [3, 4, 5]
        assert data.train.ids.tolist() == list(range(20))
        assert data.validation.ids.tolist() == [20, 21]
        assert data.test.ids.tolist() == [0, 1, 2]

    @pytest.mark.parametrize("storage", ["memory", "files"])
    def test_test_images_that_are_training_images_are_told(self, photos, storage):
        names = {"train__cat": CATS, "train__dog": DOGS, "test__cat": [9, 10, 11]}
        _, told = read(photos(**names, test__dog=[99, 115]), storage=storage)
        assert told == [
            "3 of 5 test images are exact copies of training images: accuracy on them says little. "
            "Remove the copies"
        ]

    def test_a_set_validation_that_is_not_used_is_told(self, photos):
        names = {"train__a": CATS, "train__b": DOGS, "val__a": [1], "val__b": [2]}
        root = photos(**names, test__a=[3], test__b=[4])
        data, told = read(root, validation=4, train_examples=6, test_examples=2)
        assert told == [f"data.validation=4 is not used: folder:{root} has its own part"]
        assert [len(data.train), len(data.validation), len(data.test)] == [6, 2, 2]

    def test_train_and_test_leave_the_validation_to_the_setting(self, photos):
        root = photos(train__a=CATS, train__b=DOGS, test__a=[1], test__b=[2])
        data, told = read(root, validation=4)
        assert [len(data.train), len(data.validation)] == [16, 4] and not told
        assert sorted([*data.train.ids, *data.validation.ids]) == list(range(20))

    def test_parts_below_classes_are_refused(self, photos):
        names = {f"{name}__{part}": CATS for name in ("cat", "dog") for part in ("train", "test")}
        with pytest.raises(UsageError, match="parts above classes.*cat, dog.*hold test, train"):
            read(photos(**names))

    def test_classes_that_hold_the_same_folders_are_told(self, photos):
        """They may be parts by names that nobody knows, or hold photos of day and night."""
        names = {f"fold{place}__{name}": CATS for place in (1, 2) for name in ("cat", "dog")}
        data, told = read(photos(**names))
        assert data.class_names == ("fold1", "fold2")
        assert any("fold1, fold2 holds the folders cat, dog" in line for line in told)

    def test_a_single_folder_of_training_images_is_divided(self, photos):
        data, told = read(photos(train__a=CATS, train__b=DOGS), validation=4)
        assert [len(data.train), len(data.validation), len(data.test)] == [12, 4, 4]
        assert len(told) == 1 and told[0].endswith("holds only train; all parts are taken from it")

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (
                ["train__a", "train__b", "cat"],
                r"classes or parts .*: train beside cat\. Move",
            ),
            (["cat", "dog", "Test"], "Received: Test beside cat, dog"),
            (["val__a", "val__b"], "needs a folder of training images .*: val alone"),
            (["val__a", "val__b", "test__a", "test__b"], "needs a folder of training images"),
            (["train__a", "train__b", "Train__a"], "one folder for each part.*Train and train"),
            (["train__a", "train__b", "val__a", "valid__a"], "val and valid. Put the images"),
            (["train__a", "train__b", "val__a", "val__c"], "Received: train without c"),
            (["train__a", "train__b", "train__c", "test__a", "test__b"], "test without c"),
            (["train__a", "test__a"], "train needs one sub-folder for each of at least 2 classes"),
        ],
    )
    def test_what_is_unclear_is_refused_in_one_line(self, photos, names, message):
        root = photos(**{name: [number] for number, name in enumerate(names)})
        with pytest.raises(UsageError, match=message) as caught:
            read(root)
        assert "\n" not in str(caught.value)

    def test_teacher_logits_are_those_of_the_training_images(self, photos):
        """Rows are looked up by id: beside a folder of validation images, too."""
        root = photos(train__a=CATS, train__b=DOGS, val__a=[1], val__b=[2])
        data, _ = read(root)
        logits = np.full((1, 16, 2), np.nan, np.float32)
        # The teacher says the image's own grey level.
        logits[0, data.train.ids] = data.train.images[:, 4, 4, :1]
        settings = BatchSettings(4, augment=AugmentConfig())
        batches = training_batches(data.train, settings, epochs=1, teacher_logits=logits)
        for images, y in batches.as_numpy_iterator():
            assert np.array_equal(images[:, 4, 4, 0], y["teacher_logits"][:, 0])


class TestLeftOut:
    def test_each_kind_is_told_with_its_number_and_an_example(self, photos, tmp_path):
        root = photos(cat=CATS, dog=DOGS)
        for name in ("cat/a.heic", "cat/b.heic", "cat/.DS_Store", "dog/.thumbs/1.png", "top.jpg"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(b"x")
        (root / "cat" / "lost.png").symlink_to(root / "nowhere.png")
        (root / "cat" / "round.png").symlink_to("round.png")
        (root / "dog" / "all").symlink_to(root)
        (root / "dog" / "cats").symlink_to(root / "cat")
        (root / "dog" / "self").symlink_to(".")
        Path(os.fsdecode(bytes(root) + b"/cat/caf\xe9.png")).write_bytes(b"x")
        data, told = read(root)
        assert len(data.train) + len(data.validation) + len(data.test) == 20
        assert told == [
            f"Skipped 1 (in no class's folder): {root}/top.jpg",
            f"Skipped 2 (hidden): {root}/cat/.DS_Store, {root}/dog/.thumbs",
            "Skipped 2 (without an image's ending (.jpg .jpeg .jfif .png .bmp .gif .webp .tif "
            f".tiff)): {root}/cat/a.heic, {root}/cat/b.heic",
            f"Skipped 1 (a name that is no UTF-8): {root}/cat/caf\\xe9.png",
            f"Skipped 2 (a link that leads nowhere): {root}/cat/lost.png, {root}/cat/round.png",
            f"Skipped 3 (a folder that was read already): {root}/dog/all, "
            f"{root}/dog/cats, {root}/dog/self",
        ]

    def test_links_to_folders_are_followed_once(self, photos, tmp_path, write_image):
        root = photos(cat=CATS, dog=DOGS)
        (tmp_path / "more").mkdir()
        write_image(tmp_path / "more" / "a.png", 1)
        for name in ("first", "second"):
            (root / "cat" / name).symlink_to(tmp_path / "more")
        (tmp_path / "bird").mkdir()
        write_image(tmp_path / "bird" / "b.png", 250)
        (root / "bird").symlink_to(tmp_path / "bird")
        data, told = read(root, validation=2)
        assert data.class_names == ("bird", "cat", "dog")
        every = levels(data.train) + levels(data.validation) + levels(data.test)
        assert sorted(every) == [1, *CATS, *DOGS, 250]
        assert [line.partition(":")[0] for line in told] == [
            "Skipped 1 (a folder that was read already)"
        ]

    def test_one_folder_under_two_names_is_refused(self, photos):
        root = photos(cat=CATS)
        (root / "dog").symlink_to(root / "cat")
        with pytest.raises(UsageError, match="must be different folders.*cat and .*dog"):
            read(root)

    def test_a_test_folder_that_is_the_training_folder_is_refused(self, photos):
        root = photos(train__a=CATS, train__b=DOGS)
        (root / "test").symlink_to(root / "train")
        with pytest.raises(UsageError, match="must be different folders.*train and .*test"):
            read(root)

    def test_a_class_whose_name_is_no_text_is_refused(self, photos):
        root = photos(cat=CATS, dog=DOGS)
        os.mkdir(bytes(root) + b"/caf\xe9")
        with pytest.raises(UsageError, match=r"must be UTF-8.*caf\\xe9\. Rename it"):
            read(root)

    def test_files_of_several_kinds_are_told(self, photos):
        root = photos(cat=CATS, dog=DOGS)
        (root / "dog" / "110.png").rename(root / "dog" / "110.PNG")
        jpeg = tf.io.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
        (root / "dog" / "x.jfif").write_bytes(jpeg.numpy())
        assert read(root)[1] == ["Image files of several kinds are read: 20 .png, 1 .jfif"]
