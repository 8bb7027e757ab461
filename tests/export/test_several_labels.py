"""Exports of networks whose images have any number of labels."""

import keras
import numpy as np
import pytest
from PIL import Image

from tests import forked
from tfdistill import Ensemble
from tfdistill.config import DataConfig
from tfdistill.data import from_arrays
from tfdistill.export.exporter import export_network
from tfdistill.export.format import open_model
from tfdistill.inference import classifiers, demo
from tfdistill.utils.checks import UsageError

NAMES = ("red", "of two|parts")
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (60, 8, 8, 3)).astype("uint8")
PIXELS[:30, ..., 0] //= 4


def images(names=NAMES):
    labels = np.stack([PIXELS[..., 0].mean((1, 2)) > 80, np.arange(60) % 2], axis=1)
    part = (PIXELS, labels[:, : len(names)])
    return from_arrays(part, part, DataConfig("arrays"), names, multi_label=True)


def network(activation=None, outputs=2):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 64, -2)(inputs))
    return keras.Model(inputs, keras.layers.Dense(outputs, activation=activation)(x))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network, whose sigmoid must not be applied twice, and its export."""
    keras.utils.set_random_seed(3)
    folder, own = str(tmp_path_factory.mktemp("models")), network("sigmoid")
    with forked.probes():
        return own, export_network(own, "net", images(), ["litert-int8", "onnx"], folder=folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "format, close", [("savedmodel", 1e-5), ("onnx", 1e-5), ("litert-int8", 0.1)]
)
def test_every_format_gives_a_sigmoid_for_each_label(exported, format, close):
    own, export = exported
    found = open_model(export.file(format))(PIXELS)
    p = own.predict(PIXELS, verbose=0)
    assert 0.1 < (p > 0.5).mean() < 0.9
    np.testing.assert_allclose(found["probabilities"], p, atol=close)
    np.testing.assert_array_equal(found["present"], found["logits"] > 0)
    assert "class_id" not in found
    if format == "savedmodel":
        said = ["|".join(np.array(NAMES)[row > 0.5]) for row in p]
        assert found["labels"].tolist() == said and "class_name" not in found


@pytest.mark.slow
def test_its_card_speaks_of_labels(exported):
    _, export = exported
    page = (export.folder / "model_card.md").read_text()
    assert "| labels | 2 |" in page and "2 labels, any number each" in page
    assert "class_id" not in page and "calibration error" not in page and " classes" not in page
    assert "images of which all labels are right" in page and '["present"]' in page
    outputs = export.card["signatures"]["savedmodel"]["bytes"]["outputs"]
    assert set(outputs) == {"logits", "probabilities", "present", "labels"}
    assert outputs["present"] == {"dtype": "int32", "shape": ["n", 2]}


@pytest.mark.slow
def test_it_is_opened_as_a_network_of_labels(exported):
    own, export = exported
    probabilities = own.predict(PIXELS, verbose=0)
    for format in ("onnx", "savedmodel"):
        model = classifiers.open_export(export.file(format))
        assert model.multi_label and model.class_names == NAMES
        for guesses, p in zip(model.classify(PIXELS, top=1), probabilities, strict=True):
            assert [guess.number for guess in guesses] == np.argsort(-p).tolist()
            assert guesses[0].name == NAMES[p.argmax()]


@pytest.mark.slow
def test_the_demo_shows_every_label_and_names_those_that_are_there(exported, tmp_path):
    pytest.importorskip("gradio")
    own, export = exported
    shown = demo.opened(export.folder)
    blocks = demo.page(shown)
    classify = blocks.fns[0].fn  # of an uploaded image, by the names of what it fills
    p = own.predict(PIXELS, verbose=0)
    both, neither = int(p.min(axis=1).argmax()), int(p.max(axis=1).argmin())
    for number, there in ((both, True), (neither, False)):
        assert (p[number] > 0.5).tolist() == [there, there]
        Image.fromarray(PIXELS[number]).save(tmp_path / "image.png")
        _, problem, _, labels, facts = classify({"path": str(tmp_path / "image.png")})
        assert not problem["visible"]
        assert labels == pytest.approx(dict(zip(NAMES, p[number].tolist(), strict=True)), abs=1e-5)
        said = ", ".join(labels) if there else "none"
        assert f"<th>Labels above 50 %</th><td>{said}</td>" in facts
    [label] = [block for block in blocks.blocks.values() if type(block).__name__ == "Label"]
    assert (label.show_heading, label.num_top_classes) == (False, None)
    assert "% of the labels of 60 images" in facts


def test_networks_that_do_not_fit_the_labels_are_refused(tmp_path):
    settings = {"folder": str(tmp_path)}
    with pytest.raises(UsageError, match="each any number of labels.*ends in softmax"):
        export_network(network("softmax"), "net", images(), **settings)
    pair = Ensemble([network(), network()])
    with pytest.raises(UsageError, match="each any number of labels.*ends in softmax"):
        export_network(pair, "net", images(), **settings)
    with pytest.raises(UsageError, match="one name for each of its 3 classes"):
        export_network(network(outputs=3), "net", images(), **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_ends_in_sigmoid_gives_labels_and_one_output_no_class(tmp_path):
    network("sigmoid").save(tmp_path / "labels.keras")
    assert classifiers.open_export(tmp_path / "labels.keras").multi_label
    network(outputs=1).save(tmp_path / "one.keras")
    with pytest.raises(UsageError, match="one output, which is no class of several"):
        classifiers.open_export(tmp_path / "one.keras")
