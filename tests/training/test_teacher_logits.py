"""Teacher caches from the command line: built once, verified, refused where there is none."""

import shutil

import numpy as np
import pytest
import yaml

from tfdistill import UsageError, records
from tfdistill.cli.main import main
from tfdistill.cli.options import study_of
from tfdistill.config import (
    AugmentConfig,
    CacheConfig,
    DataConfig,
    DistillationConfig,
    ModelConfig,
    StudyConfig,
    to_dict,
)
from tfdistill.data import Dataset, Examples
from tfdistill.teacher_cache.logit_reading import Reader, TopRows
from tfdistill.training import runner, study_folder, teacher_logits
from tfdistill.training.session import Session
from tfdistill.utils.progress import Silent

CONFIG = """
study: single
seeds: [0]
data:
  source: digits
  train_examples: 96
  validation: 100
  augment: {pad_crop: 1, views: 2}
teacher: {name: cnn2, width: 0.125}
training: {epochs: 1, batch_size: 32}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A study whose teacher is trained and asked, and whose students are not trained yet."""
    folder = tmp_path_factory.mktemp("caches")
    (folder / "study.yaml").write_text(CONFIG)
    command = ["cache", "build", str(folder / "study.yaml"), "--output", str(folder / "out")]
    assert main(command) == 0
    return folder


def logits_of(folder):
    """The first of two views of 96 images, each one shard."""
    first, _ = sorted(folder.glob("cache/teacher-*/v*/*.npy"))
    return first


@pytest.mark.slow
def test_build_trains_the_teacher_alone_and_stores_its_logits(built, capsys):
    out = built / "out"
    assert [path.name for path in (out / "runs").iterdir()] == ["teacher"]
    assert np.load(logits_of(out))["logits"].shape == (96, 10)
    assert main(["cache", "build", str(built / "study.yaml"), "--output", str(out)]) == 0
    assert "built before" in capsys.readouterr().out


@pytest.mark.slow
def test_verify_runs_the_teacher_again(built, capsys):
    assert main(["cache", "verify", str(built / "out"), "--rows", "40"]) == 0
    assert "good" in capsys.readouterr().out
    config = study_of(built / "out")
    table, good = teacher_logits.verification(runner.plan(config), built / "out", 40, Session())
    assert good and table.rows[0][1] == "40" and table.rows[0][3] == "100.00"


@pytest.mark.slow
def test_a_damaged_cache_is_named_and_mended(built, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(built / "out", out)
    with logits_of(out).open("r+b") as file:
        file.seek(-40, 2)
        file.write(b"\x00\x01\x02\x03")
    assert main(["cache", "verify", str(out)]) == 2
    assert "damaged" in capsys.readouterr().err
    assert main(["cache", "build", str(built / "study.yaml"), "--output", str(out)]) == 0
    assert logits_of(out).read_bytes() == logits_of(built / "out").read_bytes()
    assert main(["cache", "verify", str(out)]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"cache": None}, {"teacher": None}, {"data": {"views": None}}])
def test_a_study_without_use_for_a_cache_says_so(built, tmp_path, change, capsys):
    values = yaml.safe_load(CONFIG)
    if "data" in change:
        values["data"]["augment"]["views"] = None
    else:
        values |= change
    if "teacher" in change:
        values["student"] = {"name": "cnn2"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(values))
    out = tmp_path / "out"
    assert main(["cache", "build", str(tmp_path / "study.yaml"), "--output", str(out)]) == 2
    error = capsys.readouterr().err
    assert "No student of this study can be taught by stored logits" in error
    assert error.count("\n") == 1 and not out.exists()


class Images:
    """What is asked of a data set to know how logits are stored."""

    def __init__(self, num_classes, multi_label=False):
        self.num_classes, self.multi_label = num_classes, multi_label


def taught_run(views=2, cache=None, **distillation):
    data = DataConfig(augment=AugmentConfig(pad_crop=1, views=views))
    config = StudyConfig(
        study="single",
        data=data,
        teacher=ModelConfig("cnn2"),
        cache=cache or CacheConfig(),
        distillation=DistillationConfig(**distillation),
    )
    return next(run for run in runner.plan(config) if run.teachers)


def test_where_a_cache_lies_follows_from_what_it_holds(tmp_path):
    def folder(*given, classes=10, **settings):
        return teacher_logits.folder_of(taught_run(*given, **settings), Images(classes), tmp_path)

    assert folder(2) == folder(2) and folder(2) != folder(3)
    # As before there was `cache.precision`.
    assert folder(2) == tmp_path / "cache" / "teacher-3a575288"
    assert records.run_key(to_dict(taught_run()), []) == "4973ef99f9e9f2a0"
    rounded = CacheConfig(precision="bfloat16")
    assert folder(2, rounded) != folder(2) == folder(2, CacheConfig(top_k="all"))
    assert records.run_key(to_dict(taught_run(2, rounded)), []) != "4973ef99f9e9f2a0"
    # Of many classes, students share one cache at usual temperatures, and one at all others.
    assert folder(2, temperature=2.0) == folder(2, temperature=2.5)
    many = [folder(2, classes=100, temperature=t) for t in (2.0, 8.0, 2.5, 7.3)]
    assert many[0] == many[1] != many[2] == many[3]
    assert many[3] == folder(2, classes=100, cache=CacheConfig(top_k="all")) == folder(2)


def test_of_many_classes_the_largest_are_stored_unless_all_are_asked_for():
    def kept(classes, cache=None, multi_label=False, **distillation):
        run = taught_run(cache=cache, **distillation)
        found = teacher_logits.stored(run, Images(classes, multi_label))
        return found.top_k, found.dtype

    assert kept(99) == (None, "float32") and kept(100) == (50, "float16")
    assert kept(1000, multi_label=True) == kept(1000, standardize=True) == (None, "float32")
    assert kept(1000, CacheConfig(top_k="all")) == (None, "float32")
    own = CacheConfig(top_k=7, temperatures=[3.0])
    assert kept(1000, own) == kept(10, own) == (7, "float32")
    assert kept(100, temperature=2.5) == (None, "float32")
    usual = teacher_logits.stored(taught_run(temperature=20.0), Images(100)).temperatures
    assert usual == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0]


def test_standardised_logits_need_all_classes():
    top = CacheConfig(top_k=7, temperatures=[4.0])
    with pytest.raises(UsageError, match="standardize together with cache.top_k=7"):
        taught_run(cache=top, standardize=True)


def test_how_sure_a_teacher_is_follows_from_its_own_probability():
    """Of p = 0.55, 0.25, 0.15, 0.05 the two largest are stored, for T 4.

    The others' logits are even at T 4, 4 (log(0.15^(1/4) + 0.05^(1/4)) - log 2) = log 0.0899 each;
    a softmax over all four would give the first 0.561.
    """
    stored = np.zeros(2, [("logits", "f8", 2), ("classes", "u2", 2), ("rest", "f8", 1)])
    stored["logits"], stored["classes"] = np.log([[0.55, 0.25], [0.9, 0.05]]), [0, 1]
    stored["rest"] = np.log([[0.15**0.25 + 0.05**0.25], [2 * 0.025**0.25]])
    lookup = TopRows(lambda view, member, rows: stored[rows], 0, 4.0, 4)
    unlabelled = Examples(np.zeros((2, 8, 8, 3), np.uint8), np.full(2, -1), np.array([3, 7]))
    images = Dataset("few", tuple("abcd"), unlabelled, unlabelled, unlabelled, (0.0,), (1.0,))
    reader = Reader(lookup, unlabelled.ids, views=1, classes=4)

    def kept(least):
        cache = CacheConfig(top_k=2, temperatures=[4.0])
        run = taught_run(cache=cache, min_confidence=least)
        return teacher_logits.confident(run, images, reader, Silent()).train.ids.tolist()

    assert kept(0.545) == [3, 7] and kept(0.555) == [7]


@pytest.mark.slow
def test_many_classes_and_bfloat16_are_built_told_and_verified(built, tmp_path, capsys):
    """Digits stand for many classes; the teacher is the one that is trained already."""
    shutil.copytree(built / "out/runs", tmp_path / "out/runs")
    command = [str(built / "study.yaml"), "--output", str(tmp_path / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher_logits, "MANY_CLASSES", 10)
        patch.setattr(teacher_logits, "LARGEST", 4)
        assert main(["cache", "build", *command, "--cache.precision", "bfloat16"]) == 0
        said = " ".join(capsys.readouterr().out.split())
        for part in (
            "computed in bfloat16",
            "teacher in bfloat16 differs from float32 by at most",
            "of 10 classes the 4 largest are stored, in float16; they hold",
            "% at 4,",
            "cache.precision: bfloat16 is",
        ):
            assert part in said
        assert np.load(logits_of(tmp_path / "out")).dtype["classes"].shape == (4,)
        assert main(["cache", "verify", str(tmp_path / "out")]) == 0
        assert "good" in capsys.readouterr().out


@pytest.mark.slow
def test_a_process_helps_beside_one_that_holds_the_study(built, tmp_path, capsys):
    """Teachers are trained; another process, which holds the lock, stores their logits, too."""
    out = shutil.copytree(built / "out", tmp_path / "out")
    logits_of(out).unlink()
    with study_folder.alone(out):
        assert main(["cache", "build", str(built / "study.yaml"), "--output", str(out)]) == 0
    assert "96 passes to do" in " ".join(capsys.readouterr().out.split())
    assert logits_of(out).name == logits_of(built / "out").name
