"""A look at finished networks: coverage worked by hand, and what is shown of real ones."""

import base64
import dataclasses
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfdistill import Ensemble, data, records
from tfdistill.config import (
    DataConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
    to_dict,
)
from tfdistill.records import Record
from tfdistill.studies.saliency import run as saliency_run
from tfdistill.studies.saliency.grad_cam import channels, grad_cam
from tfdistill.training import evaluation, study_folder
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError

DIGITS = DataConfig(train_examples=200, validation=100)  # as in the study `mysteries`
SHORT = TrainingConfig(epochs=3, batch_size=32, learning_rate=0.01)
NETWORK = ModelConfig("cnn2", width=0.125)


def look(members, singles, **settings):
    return RunConfig(
        name="heat-maps",
        row="heat maps",
        seed=0,
        data=DIGITS,
        model=NETWORK,
        training=SHORT,
        members=tuple(members),
        trained=False,
        kind="saliency",
        settings={"singles": list(singles), **settings},
    )


def looks_at(rows, columns, favourite):
    """A network of 8x8 images that looks at the same rows and columns of each, evenly."""
    crop = ((rows[0], 8 - rows[1]), (columns[0], 8 - columns[1]))
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(1, 1, kernel_initializer="zeros", bias_initializer="ones")(inputs)
    x = layers.ZeroPadding2D(crop, name="features")(layers.Cropping2D(crop)(x))
    network = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))
    network.layers[-1].set_weights([np.ones((1, 10)), np.eye(10)[favourite]])
    return network


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """A study of networks that look at the left half, the top half, all, and the last quadrant."""
    study = tmp_path_factory.mktemp("by_hand")
    places = {
        "left": ((0, 8), (0, 4)),
        "top": ((0, 4), (0, 8)),
        "all": ((0, 8), (0, 8)),
        "last": ((4, 8), (4, 8)),
    }
    for name, place in places.items():
        folder = records.run_folder(study, name)
        row, figures = f"row of {name}", {"validation_accuracy": 0.1, "test_accuracy": 0.1}
        config = to_dict(RunConfig(name, row, 0, DIGITS, NETWORK, SHORT))
        record = Record(name, row, 0, "key", config, best=figures, last=figures)
        records.write(folder, record)
        looks_at(*place, favourite=5 if name == "last" else 3).save(folder / "best.keras")
    return study


def extra_of(study, *arguments, **settings):
    return saliency_run.run(look(*arguments, **settings), study, Session()).extra


@pytest.mark.slow
def test_coverage_by_hand(by_hand):
    singles = ["left", "top", "all"]
    found = extra_of(by_hand, [*singles, "last"], singles, test_images=50)
    networks = {network["name"]: network for network in found["networks"]}
    assert networks["last"]["row"] == "row of last" and found["tested"] == 50
    # left has 1/32 in the left half, top in the top half, all 1/64 everywhere: any two have one
    # half in common. The view of top and all is 3/128 in the top half and 1/128 in the other, of
    # which left covers 16 * 3/128 + 16 * 1/128; that of left and top is 4/128 in the first
    # quadrant, 2/128 in two, of which all covers 16 * (2 + 2 + 2)/128.
    for name, ensemble, one in (
        ("left", 1 / 2, 1 / 2),
        ("top", 1 / 2, 1 / 2),
        ("all", 3 / 4, 1 / 2),
    ):
        assert networks[name]["ensemble"]["mean"] == pytest.approx(ensemble, abs=1e-5)
        assert networks[name]["one"]["mean"] == pytest.approx(one, abs=1e-5)
    # last has 1/16 in the last quadrant: nothing of left or top, 16/64 of all; and of the three
    # ensembles of two 16 * 1/128 where all is in it, else nothing.
    assert networks["last"]["one"]["mean"] == pytest.approx((0 + 0 + 1 / 4) / 3, abs=1e-5)
    assert networks["last"]["ensemble"]["mean"] == pytest.approx((1 / 8 + 1 / 8 + 0) / 3, abs=1e-5)
    for network in found["networks"]:
        # All images are seen alike, so another image's view covers as much as the image's own.
        assert network["chance"]["mean"] == pytest.approx(network["ensemble"]["mean"])
        assert network["ensemble"]["std"] == pytest.approx(0, abs=1e-5)
        assert network["blank"] == 0


@pytest.mark.slow
def test_only_images_that_the_ensemble_has_right_are_shown(by_hand):
    # The ensemble of these takes every image for a 3, and the network outside for a 5.
    shown = extra_of(by_hand, ["left", "top", "last"], ["left", "top"], images=4)["images"]
    assert [image["label"] for image in shown] == ["3"] * 4
    for image in shown:
        views = {view["name"]: view for view in image["views"]}
        assert list(views) == ["left", "top", "last", "ensemble"]
        assert views["ensemble"]["predicted"] == "3" and views["ensemble"]["right"]
        assert views["last"]["predicted"] == "5" and not views["last"]["right"]
        # One logit is higher by 1 than nine others.
        assert views["last"]["probability"] == pytest.approx(np.e / (np.e + 9), abs=1e-4)


def decoded(png):
    return tf.io.decode_png(base64.b64decode(png)).numpy()


@pytest.fixture(scope="module")
def study(mysteries, tmp_path_factory):
    """A study folder with two single networks and a student of both, trained for real."""
    folder = tmp_path_factory.mktemp("study")
    for name, found in {"a": "single-0", "b": "single-1", "student": "distilled-0"}.items():
        source = records.run_folder(mysteries / "out", found)
        shutil.copytree(source, records.run_folder(folder, name))
    return folder


MEMBERS = ["a", "b", "student"]


@pytest.mark.slow
def test_what_is_shown_is_what_the_networks_see_and_say(study):
    images = data.load(DIGITS)
    asked = {"image_ids": [700, 5], "layer": "conv2d_1", "test_images": 50}
    asked |= {"channels": 3, "channel_class": "4"}
    found = extra_of(study, MEMBERS, ["a", "b"], **asked)
    assert [image["id"] for image in found["images"]] == [700, 5]
    networks = {name: evaluation.load_network(study, name, images) for name in MEMBERS}
    networks["ensemble"] = Ensemble([networks["a"], networks["b"]])
    for image in found["images"]:
        place = int(np.flatnonzero(images.test.ids == image["id"])[0])
        one = images.test.take(np.array([place]))
        assert image["label"] == images.class_names[one.labels[0]]
        np.testing.assert_array_equal(decoded(image["png"]), one.images[0])
        for view in image["views"]:
            network = networks[view["name"]]
            probabilities = keras.ops.softmax(network(one.images.astype("float32")))[0].numpy()
            assert view["predicted"] == images.class_names[probabilities.argmax()]
            assert view["probability"] == pytest.approx(probabilities.max(), abs=1e-3)
            assert view["right"] == (probabilities.argmax() == one.labels[0])
            if view["name"] == "ensemble":  # its maps are of the mean logit
                network = Ensemble([networks["a"], networks["b"]], "logits")
            seen = grad_cam(network, one.images, one.labels, "conv2d_1")[0]
            expected = 255 * seen / (seen.max() or 1)
            np.testing.assert_allclose(decoded(view["map"])[..., 0], expected, atol=1)

    found = found["channels"]
    assert (found["network"], found["label"]) == ("a", "4")
    fours = images.test.take(np.flatnonzero(images.test.labels == 4))
    active, _ = channels(networks["a"], fours.images.astype("float32"), 4, "conv2d_1")
    shares = [channel["share"] for channel in found["channels"]]
    assert shares == sorted(shares, reverse=True) and shares[-1] > 0 and sum(shares) <= 1
    for channel in found["channels"]:
        highest = [
            active[fours.ids == image["id"]][0, ..., channel["number"]].max()
            for image in channel["images"]
        ]
        assert highest == sorted(highest, reverse=True)
        first = channel["images"][0]
        map_ = active[fours.ids == first["id"]][0, ..., channel["number"]].clip(0)
        np.testing.assert_allclose(
            decoded(first["map"])[..., 0], 255 * map_ / (map_.max() or 1), atol=1
        )
        np.testing.assert_array_equal(
            decoded(first["png"]), fours.images[fours.ids == first["id"]][0]
        )


@pytest.mark.slow
def test_images_are_of_different_classes_and_the_same_again(study):
    found, again = (
        extra_of(study, MEMBERS, ["a", "b"], images=5, test_images=100) for _ in range(2)
    )
    labels = [image["label"] for image in found["images"]]
    assert len(labels) == 5 and labels == sorted(set(labels))
    assert found == again
    assert all(image["views"][-1]["right"] for image in found["images"])


@pytest.mark.slow
def test_a_network_is_covered_by_its_copy_and_not_by_another_image(study, tmp_path):
    for name in ("a", "b", "copy"):
        source = records.run_folder(study, "a" if name == "copy" else name)
        target = records.run_folder(tmp_path, name)
        target.mkdir(parents=True)
        for file in ("record.json", "best.keras"):
            (target / file).write_bytes((source / file).read_bytes())
    found = extra_of(tmp_path, ["a", "copy", "b"], ["a", "copy"], test_images=200)
    first, copy, other = found["networks"]
    assert first["ensemble"]["mean"] == copy["one"]["mean"] == pytest.approx(1 - first["blank"])
    assert other["one"]["mean"] < 0.9 and first["chance"]["mean"] < 0.9


@pytest.mark.slow
def test_the_record_is_that_of_the_run_and_makes_it_finished(study):
    run = look(MEMBERS, ["a", "b"], test_images=50)
    record = saliency_run.run(run, study, Session())
    assert study_folder.finished(run, study) == record
    assert not study_folder.finished(look(MEMBERS, ["a", "b"], test_images=60), study)
    assert record.best == record.last == {} and record.row == "heat maps"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"layer": "stage7"}, "layer must be one of: .*features.*'stage7'"),
        ({"image_ids": [3, 797]}, "ids of the 797 test images, such as 796. Received: 797"),
        ({"test_images": 798}, "at most 797, .*test_images=798"),
        ({"images": 0}, "settings.images must be a whole number"),
        ({"channels": -1}, "settings.channels must be a whole number, at least 0"),
        ({"channel_class": "cat"}, "settings.channel_class must be one of: .*0.*'cat'"),
        ({"imges": 2}, "unknown key 'imges'"),
        ({"layer": "stage1", "student": {"name": "cnn2"}}, "layer must be one of"),
    ],
)
def test_errors_are_told_before_any_network_is_trained(tmp_path, settings, message):
    run = look(MEMBERS, ["a", "b"], **settings)
    if "student" in settings:
        run = dataclasses.replace(run, model=ModelConfig("resnet8"))
    with pytest.raises(UsageError, match=message):
        saliency_run.check(run, Session())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_it_costs_more_to_look_at_more(study):
    few, many = (look(MEMBERS, ["a", "b"], test_images=count) for count in (50, 100))
    session = Session()
    assert saliency_run.cost(many, session) == 2 * saliency_run.cost(few, session) > 0


@pytest.mark.slow
def test_one_batch_is_a_run_of_any_members(study):
    run = look(["a", "student"], ["a", "b"], image_ids=[700], test_images=700)
    found = saliency_run.run(saliency_run.one_batch(run), study, Session()).extra
    assert len(found["images"]) == 2 and len(found["networks"]) == 2


def test_large_images_are_kept_smaller():
    pixels = np.full((3, 100, 50, 3), 7, np.uint8)
    smaller = saliency_run._at_most(pixels, 64)
    assert smaller.shape == (3, 64, 32, 3) and (smaller == 7).all()
