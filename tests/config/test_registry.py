"""Families of members: every one can be imported, and a new one is used through a configuration."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import yaml
from keras import ops

from tfdistill.cli import options
from tfdistill.config import DataConfig, ModelConfig, registry
from tfdistill.config.networks import Family
from tfdistill.config.registry import FEATURE_LOSSES, LOGIT_LOSSES, NETWORKS, SOURCES
from tfdistill.data import load
from tfdistill.data.dataset import Examples, Reader, Source
from tfdistill.distillation.distiller import Distiller
from tfdistill.losses import ActivationLoss, TemperedLoss
from tfdistill.models.blocks import classify, conv, pixels
from tfdistill.training.runner import run_study
from tfdistill.utils.checks import UsageError
from tfdistill.utils.registry import Registry

STUDY = {
    "study": "single",
    "seeds": [0],
    "data": {"validation": 64, "train_examples": 64, "test_examples": 64},
    "teacher": {"name": "cnn2", "width": 0.125},
    "training": {"epochs": 1, "batch_size": 32},
}


class HalfSquare(TemperedLoss):
    """Half the squared difference of the logits, times a weight from the configuration."""

    def __init__(self, temperature=4.0, weight=1.0, name="half_square"):
        super().__init__(temperature, name)
        self.weight = weight

    @classmethod
    def from_settings(cls, settings):
        return cls(settings.temperature, weight=settings.beta)

    def call(self, y_true, y_pred):
        return self.weight * ops.mean(ops.square(y_true - y_pred), axis=-1) / 2


def means(teacher_features, student_features):
    """Return the squared difference of mean activations, per example."""
    teacher, student = (
        ops.mean(each, axis=(1, 2, 3)) for each in (teacher_features, student_features)
    )
    return ops.square(teacher - student)


class Means(ActivationLoss):
    """`means` as a Keras loss."""

    default_weight = 30.0
    formula = staticmethod(means)


def stripes(config, name):
    """Two classes of images, striped one way or the other; `name` is how many there are."""
    labels = np.arange(int(name)) % 2
    lying = np.tile(np.repeat(np.uint8([0, 200]), 4)[:, None, None], (1, 8, 1))
    images = np.where(labels[:, None, None, None] == 1, lying, lying.transpose(1, 0, 2))
    examples = Examples.numbered(images, labels)
    return Source(("standing", "lying"), examples, examples)


def one_convolution(config, input_shape, num_classes, mean=0.0, std=1.0):
    inputs, x = pixels(input_shape, mean, std)
    features = keras.layers.Activation("relu", name="features")(conv(x, round(8 * config.width)))
    return classify(inputs, features, num_classes, "tiny")


def trained(tmp_path, values):
    """Return the records of a study, by name, that a file describes."""
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | values))
    config = options.study_config([str(path)])
    return {record.name: record for record in run_study(config, tmp_path / "results")}


@pytest.fixture
def distillers(monkeypatch):
    """Every Distiller that is compiled."""
    found, compile = [], Distiller.compile

    def noted(self, *arguments, **settings):
        found.append(self)
        return compile(self, *arguments, **settings)

    monkeypatch.setattr(Distiller, "compile", noted)
    return found


@pytest.mark.slow
def test_new_losses_teach_through_a_configuration(tmp_path, monkeypatch, distillers, eagerly):
    monkeypatch.setitem(LOGIT_LOSSES, "half_square", HalfSquare)
    monkeypatch.setitem(FEATURE_LOSSES, "means", Means)
    learned = {"loss": "half_square", "beta": 2.0, "features": [{"loss": "means"}]}
    records = trained(tmp_path, {"distillation": learned, "cache": None})
    [distiller] = distillers
    assert type(distiller.soft_loss) is HalfSquare and distiller.soft_loss.weight == 2.0
    [feature] = distiller.features
    assert type(feature.loss) is Means and feature.weight == 30.0
    history = records["distilled-0"].history
    assert history["soft_loss"][0] > 0 and history["feature_loss"][0] > 0
    total = history["hard_loss"][0] * (1 - 0.9) + history["soft_loss"][0] * 0.9
    assert history["loss"][0] == pytest.approx(total + history["feature_loss"][0], rel=1e-4)
    assert records["distilled-0"].weights != records["alone-0"].weights


@pytest.mark.slow
def test_a_new_source_and_a_new_network_are_used_through_a_configuration(
    tmp_path, monkeypatch, eagerly
):
    monkeypatch.setitem(SOURCES, "stripes", Reader(stripes, argument="COUNT"))
    monkeypatch.setitem(
        NETWORKS, "tiny", Family(f"{__name__}:one_convolution", ("tiny", "tinier"), ("width",))
    )
    data = {"source": "stripes:96", "validation": 32}
    student = {"name": "tinier", "width": 0.5}
    records = trained(tmp_path, {"data": data, "teacher": None, "student": student})
    assert records["alone-0"].config["data"]["source"] == "stripes:96"
    assert records["alone-0"].images
    assert records["alone-0"].parameters == 3 * 3 * 4 + 4 * 2 + 2
    with pytest.raises(
        UsageError, match="data.source must be stripes:COUNT. Received: .*'stripes'"
    ):
        load(DataConfig("stripes"))
    with pytest.raises(UsageError, match="must be one of: cnn2.* tiny, tinier. .*mean 'tiny'"):
        ModelConfig("tinny")


FAMILIES = {name: value for name, value in vars(registry).items() if isinstance(value, Registry)}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_member_is_where_its_place_says(name):
    for member in FAMILIES[name].values():
        assert member is not None
        if isinstance(member, Family):
            assert callable(member.build)
        if name == "LOGIT_LOSSES":
            assert issubclass(member, TemperedLoss)
        if name == "SOURCES":
            assert isinstance(member, Reader)


def test_names_of_all_families_are_checked_without_tensorflow():
    code = (
        "import sys\n"
        "from tfdistill.config import *\n"
        "from tfdistill.utils.checks import UsageError\n"
        "ModelConfig('wrn-28-10'), DataConfig('folder:x'), DistillationConfig(loss='dist')\n"
        "learned = lambda loss: DistillationConfig(loss=loss)\n"
        "for make in (ModelConfig, DataConfig, learned, FeatureConfig):\n"
        "    try: make('nothing')\n"
        "    except UsageError as error: print(error)\n"
        "sys.exit('keras' in sys.modules or 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.partition(" must")[0] for line in done.stdout.splitlines()] == [
        "model.name",
        "data.source",
        "distillation.loss",
        "distillation.features.loss",
    ]
