"""Images with any number of labels: lists, arrays, parts, batches."""

import numpy as np
import pytest

from tfdistill.config import AugmentConfig, DataConfig
from tfdistill.data import from_arrays, load, pipeline, splits, views
from tfdistill.utils.checks import UsageError

# Rows of the list, image by image: a, b, both, none, ...
EACH = ["a", "b", "b|a", ""]
COLUMNS = ["1,0", "0,1", "1,1", "0,0"]
BITS = [[1, 0], [0, 1], [1, 1], [0, 0]]


@pytest.fixture
def listed(tmp_path, write_image):
    """A function that reads a list of the images 0.png .. 11.png, of grey levels 0, 20, ..."""
    for number in range(12):
        write_image(tmp_path / f"{number}.png", 20 * number)

    def read(head, cells, **settings):
        text = head + "".join(f"\n{n}.png,{cells[n % len(cells)]}" for n in range(12))
        (tmp_path / "list.csv").write_text(text)
        return load(DataConfig(source=f"csv:{tmp_path}/list.csv", **{"validation": 2, **settings}))

    return read


def places(examples):
    return examples.images[:, 4, 4, 0] // 20


@pytest.mark.parametrize("head, cells", [("path,label", EACH), ("path,a,b", COLUMNS)])
def test_bars_and_columns_say_the_same(listed, head, cells):
    data = listed(head, cells)
    assert data.multi_label and data.class_names == ("a", "b") and data.num_classes == 2
    assert [len(data.train), len(data.validation), len(data.test)] == [8, 2, 2]
    for part in (data.train, data.validation, data.test):
        assert part.labels.dtype == np.uint8
        assert part.labels.tolist() == [BITS[place % 4] for place in places(part)]
    assert "2 labels; 8 training, 2 validation, 2 test images, each has 1.0 on average. " in (
        data.summary
    )
    assert data.summary.endswith("Labels: a, b")


def test_one_yes_or_no_is_a_column_of_its_own(listed):
    data = listed("Path,Cat", ["1", "0.0", "0"])
    assert data.class_names == ("Cat",) and data.train.labels.shape == (8, 1)
    assert all(part.labels[:, 0].tolist() == [p % 3 == 0 for p in places(part)] for part in
               (data.train, data.test))  # fmt: skip
    assert "1 label; " in data.summary and "each has 0.3 on average. Label: Cat" in data.summary


def test_parts_need_not_have_every_label(listed):
    cells = ["1,0,train", "0,1,train", "0,0,val", "0,1,test"]
    data = listed("path,a,b,split", cells, validation=0.1)
    assert data.validation.labels.sum() == 0 and data.test.labels.tolist() == [[0, 1]] * 3


def test_numbers_are_sorted_as_numbers_and_one_label_alone_is_no_bar(listed):
    assert listed("path,label", ["10", "9|10", ""]).class_names == ("9", "10")
    assert not listed("path,label", ["10", "9"]).multi_label


@pytest.mark.parametrize("cells", [["1,0", "0,0"], ["1,1", "0,1"]])
def test_a_label_that_none_or_all_have_is_refused(listed, cells):
    with pytest.raises(UsageError, match=r"others without it. Received: b, which [08] of 8 have"):
        listed("path,a,b", cells)


def test_a_part_keeps_the_share_of_frequent_combinations():
    labels = np.array([[1, 0]] * 50 + [[0, 1]] * 30 + [[0, 0]] * 18 + [[1, 1]] * 2, np.uint8)
    chosen = splits.stratified(labels, 10, seed=1, stream=0)
    found = labels[chosen].tolist()
    assert [found.count(each) for each in ([1, 0], [0, 1])] == [5, 3]
    assert sorted(set(chosen.tolist())) == chosen.tolist() and len(chosen) == 10
    np.testing.assert_array_equal(chosen, splits.stratified(labels, 10, seed=1, stream=0))
    assert chosen.tolist() != splits.stratified(labels, 10, seed=2, stream=0).tolist()


def test_of_combinations_that_are_all_rare_any_is_chosen():
    """By rank alone the first combinations would all be taken, and with them one label."""
    labels = (np.arange(256)[:, None] >> np.arange(8)[::-1] & 1).astype(np.uint8)
    first = [labels[splits.stratified(labels, 64, seed, 0)][:, 0].mean() for seed in range(20)]
    assert 0.4 < np.mean(first) < 0.6 and len(set(first)) > 3


IMAGES = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3)).astype("uint8")
LABELS = np.random.default_rng(1).integers(0, 2, (40, 3))


def arrays(labels=LABELS, **settings):
    return from_arrays((IMAGES, labels), (IMAGES, labels), multi_label=True, **settings)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "float32"])
def test_arrays_of_0_and_1_are_several_labels_where_it_is_said(dtype):
    data = arrays(LABELS.astype(dtype), class_names=("x", "y", "z"))
    assert data.multi_label and data.class_names == ("x", "y", "z")
    np.testing.assert_array_equal(data.test.labels, LABELS)
    assert arrays(LABELS[:, :1]).class_names == ("0",)
    with pytest.raises(UsageError, match="say multi_label=True"):
        from_arrays((IMAGES, LABELS), (IMAGES, LABELS))


@pytest.mark.parametrize(
    "labels, message",
    [
        (LABELS[:, 0], r"\[40, labels\].*give labels\[:, None\]"),
        (LABELS[:20], r"\[40, labels\]"),
        (LABELS[:, :0], r"\[40, labels\]"),
        (LABELS + 1, "1 where an image has a label, and 0 where not. Received: 2"),
        (LABELS * 0.5, "Received: 0.5"),
        (np.where(LABELS, np.nan, 0), "Received: nan"),
        (LABELS.astype(str), "Received: <U21"),
    ],
)
def test_other_arrays_are_refused(labels, message):
    with pytest.raises(UsageError, match=message):
        arrays(labels)


def test_unlike_numbers_of_labels_and_names_are_refused():
    for test, names in ((LABELS[:, :2], None), (LABELS, ("x", "y"))):
        with pytest.raises(UsageError, match="one column for each label"):
            from_arrays((IMAGES, LABELS), (IMAGES, test), None, names, multi_label=True)


def test_batches_bring_labels_as_they_are_or_mixed():
    examples = arrays().train
    plain = pipeline.BatchSettings(8, num_classes=3)
    _, labels = next(iter(pipeline.training_batches(examples, plain, epochs=1)))
    order = views.order(0, 0, len(examples)).numpy()
    assert labels.dtype == "uint8"
    np.testing.assert_array_equal(labels, examples.labels[order[:8]])
    mixed = pipeline.BatchSettings(8, augment=AugmentConfig(mixup=0.4), num_classes=3)
    _, labels = next(iter(pipeline.training_batches(examples, mixed, epochs=1)))
    other = examples.labels[views.partners(0, 0, len(examples)).numpy()]
    weight = views.weights(0, 0, int(examples.ids.max()) + 1, 0.4).numpy()[examples.ids][:, None]
    expected = (weight * examples.labels + (1 - weight) * other)[order[:8]]
    np.testing.assert_allclose(labels, expected, atol=1e-6)
    assert (expected % 1 > 0).any()
