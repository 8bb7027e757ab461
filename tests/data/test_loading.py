import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfdistill.config import DataConfig
from tfdistill.data import from_arrays, load, splits
from tfdistill.utils.checks import UsageError


def digits(**settings):
    return load(DataConfig(source="digits", **settings))


def folder(path, **settings):
    return load(DataConfig(source=f"folder:{path}", **{"validation": 2, **settings}))


def test_digits_are_what_scikit_learn_holds():
    data = digits(validation=100)
    assert (len(data.train), len(data.validation), len(data.test)) == (900, 100, 797)
    assert data.train.images.dtype == np.uint8
    assert data.train.images.max() == 255
    assert data.input_shape == (8, 8, 1)
    assert data.num_classes == 10
    assert np.bincount(data.test.labels).min() >= 77


@pytest.mark.slow
def test_reading_digits_leaves_tensorflow_alone():
    program = (
        "import sys; from tfdistill.config import DataConfig; from tfdistill.data import load; "
        "load(DataConfig()); sys.exit('tensorflow' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root).returncode == 0


def test_validation_is_disjoint_stratified_and_the_same_for_every_training_size():
    whole, small = digits(validation=0.2), digits(validation=0.2, train_examples=50)
    assert np.array_equal(whole.validation.ids, small.validation.ids)
    assert not set(whole.validation.ids) & set(whole.train.ids)
    assert len(whole.validation) == 200
    assert set(small.train.ids) < set(whole.train.ids)
    assert np.bincount(small.train.labels, minlength=10).tolist() == [5] * 10


def test_ids_find_the_same_images_in_every_split():
    whole, small = digits(), digits(train_examples=300, split_seed=7)
    images = dict(zip(whole.train.ids, whole.train.images, strict=True))
    shared = [place for place, number in enumerate(small.train.ids) if number in images]
    assert len(shared) > 200
    for place in shared:
        assert np.array_equal(images[small.train.ids[place]], small.train.images[place])


def test_split_seed_changes_the_split_only_of_the_training_part():
    one, other = digits(split_seed=1), digits(split_seed=2)
    assert not np.array_equal(one.validation.ids, other.validation.ids)
    assert np.array_equal(one.test.images, other.test.images)


def test_stratified_choice_keeps_shares_and_size():
    labels = np.repeat([0, 1, 2], [70, 20, 10])
    chosen = splits.stratified(labels, 33, seed=0, stream=0)
    assert len(set(chosen)) == 33
    assert np.bincount(labels[chosen]).tolist() == [23, 7, 3]


def test_normalization_is_measured_over_the_training_part():
    data = digits(train_examples=100)
    assert data.mean == pytest.approx([data.train.images.mean()])
    assert data.std == pytest.approx([data.train.images.std()])


def test_normalization_can_be_none_or_given_in_units_of_one():
    assert digits(normalize="none").std == (1.0,)
    given = digits(normalize=[0.5, [0.2]])
    assert (given.mean, given.std) == ((127.5,), (51.0,))


@pytest.mark.parametrize("normalize", [[0.5, 0.0], [[0.5, 0.5], 1.0]])
def test_unfit_normalization_is_refused(normalize):
    with pytest.raises(UsageError, match="each one number or 1, the deviation > 0"):
        digits(normalize=normalize)


def test_image_size_and_input_size():
    data = digits(image_size=12, input_size=32)
    assert data.train.images.shape[1:] == (12, 12, 1)
    assert data.input_shape == (32, 32, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 1000}, "share below 1 or a whole number below 1000"),
        ({"validation": 10.5}, "data.validation=10.5"),
        ({"train_examples": 901}, "at most 900"),
        ({"train_examples": 5}, "at least one training example"),
    ],
)
def test_splits_that_cannot_be_made_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        digits(**settings)


def test_arrays_source_is_for_from_arrays_only():
    with pytest.raises(UsageError, match="must be one of: digits, tfds, imagewoof, folder"):
        load(DataConfig(source="arrays"))


def test_folder_with_classes_holds_a_fifth_back(image_folder):
    data = folder(image_folder)
    assert data.class_names == ("a", "b")
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    assert sorted([*data.train.ids, *data.validation.ids]) == list(range(16))
    for part in (data.train, data.validation, data.test):
        assert np.array_equal(part.images[:, 4, 4, 0] > 100, part.labels == 1)


def test_folder_with_train_and_test(tmp_path, image_folder, write_image):
    root = tmp_path / "split"
    root.mkdir()
    image_folder.rename(root / "train")
    for name in "ab":
        (root / "test" / name).mkdir(parents=True)
        write_image(root / "test" / name / "0.png", 1)
    data = folder(root)
    assert (len(data.train) + len(data.validation), len(data.test)) == (20, 2)


def test_image_size_crops_the_centre_of_mixed_sizes(image_folder):
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = 90
    tf.io.write_file(str(image_folder / "a" / "wide.png"), tf.io.encode_png(wide))
    with pytest.raises(UsageError, match="8x16 .*wide.png.*Set data.image_size"):
        folder(image_folder)
    data = folder(image_folder, image_size=8)
    every = np.concatenate([data.train.images, data.validation.images, data.test.images])
    assert every.shape == (21, 8, 8, 3)
    assert (every == 90).all(axis=(1, 2, 3)).sum() == 1


def test_unreadable_image_is_named(image_folder):
    (image_folder / "a" / "3.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match=r"a/3\.png"):
        folder(image_folder)


def test_empty_class_is_named(image_folder):
    (image_folder / "empty").mkdir()
    with pytest.raises(UsageError, match="none of: empty"):
        folder(image_folder)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        folder(tmp_path / "nowhere")


def test_second_load_does_not_decode_again(image_folder, own_cache):
    first = folder(image_folder)
    (stored,) = own_cache.glob("*/images.npy")
    written = stored.stat().st_mtime_ns
    again = folder(image_folder)
    assert again is not first
    assert np.array_equal(again.train.images, first.train.images)
    assert stored.stat().st_mtime_ns == written and len(list(own_cache.glob("*/images.npy"))) == 1


@pytest.mark.parametrize("how", ["written over", "another file"])
def test_a_file_of_the_same_size_and_time_is_read_again(image_folder, how):
    """As `cp --preserve`, `rsync --times` and `tar -x` leave it."""
    folder(image_folder)
    file, other = image_folder / "a" / "0.png", image_folder / "a" / "1.png"
    stat, data = file.stat(), other.read_bytes()
    assert len(data) == stat.st_size
    if how == "another file":
        (image_folder / "new").write_bytes(data)
        (image_folder / "new").rename(file)
    else:
        file.write_bytes(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found = folder(image_folder)
    every = np.concatenate([found.train.images, found.validation.images, found.test.images])
    assert (every == 50).all(axis=(1, 2, 3)).sum() == 0
    assert (every == 51).all(axis=(1, 2, 3)).sum() == 2


def test_a_file_that_is_added_is_found_in_the_same_process(image_folder, write_image):
    before = folder(image_folder)
    write_image(image_folder / "b" / "new.png", 99)
    after = folder(image_folder)
    sizes = [len(d.train) + len(d.validation) + len(d.test) for d in (before, after)]
    assert sizes == [20, 21]


def test_changed_image_is_read_again(image_folder, write_image):
    before = folder(image_folder)
    for number in range(9):
        write_image(image_folder / "a" / f"{number}.png", 7)
    after = folder(image_folder)
    assert (before.train.images == 7).sum() == 0
    assert (after.train.images == 7).sum() > 0


@pytest.mark.parametrize("keep", [0, 200])
def test_truncated_cache_is_rebuilt(image_folder, own_cache, keep):
    first = folder(image_folder)
    (stored,) = own_cache.glob("*/images.npy")
    size = stored.stat().st_size
    os.truncate(stored, keep)
    assert np.array_equal(folder(image_folder).train.images, first.train.images)
    assert stored.stat().st_size == size


def test_unwritable_cache_costs_only_time(image_folder, monkeypatch):
    monkeypatch.setenv("TFDISTILL_CACHE", str(image_folder / "a" / "0.png"))
    assert len(folder(image_folder).test) == 4


def arrays(count=20, shape=(4, 4), dtype=np.uint8):
    return np.zeros((count, *shape), dtype), np.arange(count) % 2


def test_arrays_gain_a_channel_and_names():
    data = from_arrays(arrays(), arrays(4), DataConfig(source="arrays", validation=4))
    assert data.input_shape == (4, 4, 1)
    assert data.class_names == ("0", "1")
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 4, 4)
    assert data.std == (1.0,)


def of(pixels, **settings):
    """Return the images of `pixels` for every example, with labels."""
    return np.broadcast_to(np.asarray(pixels, **settings), (20, 4, 4)), np.arange(20) % 2


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (of(0.5), r"must be uint8 .*float64 .*from 0.5 to 0.5. Give \(images \* 255\).round\(\)"),
        (of(200.5), r"from 200.5 to 200.5. Give images.round\(\).astype\('uint8'\)"),
        (of(7), r"int64 .*from 7 to 7. Give images.astype\('uint8'\)"),
        (of(-1.5), r"from -1.5 to -1.5. Bring the images to 0..255"),
        (of(np.nan), "float64 .*some of them NaN or infinite. Repair them"),
        (of(np.inf), "some of them NaN or infinite"),
        (arrays(shape=(4,)), r"must be uint8 .*\[20, 4\]"),
        (arrays(shape=(3, 8, 8)), r"channels last.*\[20, 3, 8, 8\].*transpose\(0, 2, 3, 1\)"),
        (arrays(shape=(1, 28, 28)), r"channels last.*\[20, 1, 28, 28\]"),
        (arrays(shape=(4, 0)), r"must have pixels.*\[20, 4, 0\]"),
        (([[[1]], [[1], [2]]], [0, 1]), "train images must be one array"),
        ((arrays()[0], np.arange(19)), r"labels must be integers \[20\].*\[19\]"),
        ((arrays()[0], np.zeros(20)), r"integers.*float64.*Give labels.astype\('int32'\)"),
        ((arrays()[0], np.full(20, 0.5)), "integers.*float64.*not all of them whole numbers"),
        ((arrays()[0], np.full(20, np.nan)), "integers.*float64.*not all of them whole numbers"),
        ((arrays()[0], np.eye(20)[:, :2]), r"integers.*\[20, 2\].*labels.argmax\(axis=1\)"),
        ((arrays()[0], np.arange(20) % 2 + 2**32), "from 4294967296 to 4294967297"),
        ((arrays()[0], np.full(20, 2**64 - 1, np.uint64)), "from 18446744073709551615 to"),
        ((arrays()[0], np.arange(20) % 2 - 1), r"Labels must lie in 0\.\.1"),
        ((arrays()[0], np.arange(20) % 3), r"Labels must lie in 0\.\.1"),
        (arrays(shape=(5, 5)), "same shape"),
    ],
)
def test_unfit_arrays_are_refused(train, message):
    with pytest.raises(UsageError, match=message) as caught:
        from_arrays(train, arrays(4), class_names=("no", "yes"))
    assert "\n" not in str(caught.value)


def test_labels_far_above_the_number_of_images_are_refused():
    with pytest.raises(UsageError, match="the label 2000000001 of 20 training images"):
        from_arrays((arrays()[0], np.arange(20) % 2 + 2 * 10**9), arrays(4))


def test_a_user_who_follows_the_advice_gets_the_images():
    pixels = np.linspace(0, 1, 3 * 8 * 8 * 20).reshape(20, 3, 8, 8)
    fit = (pixels * 255).round().astype("uint8").transpose(0, 2, 3, 1)
    labels = np.arange(20) % 2
    data = from_arrays((fit, labels), (fit, labels.astype("float32").astype("int32")))
    assert data.input_shape == (8, 8, 3)
    assert data.test.images[19, 7, 7, 2] == 255 and data.test.images[0, 0, 0, 0] == 0
