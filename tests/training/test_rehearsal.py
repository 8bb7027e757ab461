"""A rehearsal does one small run of every kind and keeps nothing."""

import dataclasses

import pytest
from PIL import Image

from tfdistill.config import (
    AugmentConfig,
    DataConfig,
    DistillationConfig,
    ModelConfig,
    StudyConfig,
    TrainingConfig,
)
from tfdistill.training import rehearsal, runner
from tfdistill.training.session import Session
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow

CONFIG = StudyConfig(
    study="mysteries",
    seeds=[0, 1, 2],
    data=DataConfig(source="digits", augment=AugmentConfig(pad_crop=1, views=5)),
    teacher=ModelConfig("cnn2", width=0.25),
    training=TrainingConfig(epochs=50, batch_size=32, schedule="cosine", warmup_epochs=5),
    distillation=DistillationConfig(alpha=0.9, temperature=4.0),
    self_distillation=DistillationConfig(alpha=0.3, temperature=2.0),
)


def test_kinds_differ_in_more_than_seed_alpha_and_temperature():
    names = [run.name for run in rehearsal.kinds_of(runner.plan(CONFIG))]
    # The self-distilled networks are taught as the distilled ones are, at another alpha.
    assert names == ["single-0", "ensemble", "average", "distilled-0", "ensemble-of-distilled"]


def test_every_kind_needs_only_kinds():
    kinds = rehearsal.kinds_of(runner.plan(CONFIG))
    names = {run.name for run in kinds}
    assert all(set(run.needs) <= names for run in kinds)
    assert kinds[1].members == ("single-0",)


def test_validation_images_of_their_own_are_left_as_they_are(tmp_path):
    for part, count in (("train", 40), ("val", 3)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8)).save(tmp_path / part / name / f"{number}.png")
    images = DataConfig(source=f"folder:{tmp_path}")
    config = dataclasses.replace(CONFIG, data=images)
    session = Session()
    run = rehearsal.one_batch(runner.plan(config)[0], session)
    assert (run.data.train_examples, run.data.validation) == (32, images.validation)
    assert len(session.images(run.data).validation) == 6


def test_one_batch_has_few_images_and_one_epoch():
    run = rehearsal.one_batch(runner.plan(CONFIG)[0], Session())
    assert run.training.epochs == 1 and run.training.warmup_epochs == 0
    assert (run.data.train_examples, run.data.validation, run.data.test_examples) == (32, 32, 32)
    assert run.data.augment.views == 2 and run.model == CONFIG.teacher


def test_all_kinds_run_and_nothing_is_kept(tmp_path, monkeypatch, eagerly):
    monkeypatch.chdir(tmp_path)
    table, good = rehearsal.rehearse(CONFIG)
    assert good and len(table.rows) == 5
    assert "5 kinds among the study's 13 runs" in table.note
    assert not any(tmp_path.iterdir())


def test_a_kind_that_cannot_run_is_refused_beforehand():
    wrong = dataclasses.replace(CONFIG, teacher=ModelConfig("resnet8", dropout=0.5))
    with pytest.raises(UsageError, match="model.dropout=0.5 needs"):
        rehearsal.rehearse(wrong)
