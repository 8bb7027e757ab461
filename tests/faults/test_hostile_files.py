"""Hostile files: images, archives and caches that are refused by name or do no harm; no pickle."""

import ast
import os
import resource
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

import tfdistill
from tests.faults import hostile_files
from tests.small_teachers import CROPPED, Counting, settings
from tfdistill import UsageError
from tfdistill.config import DataConfig
from tfdistill.data import decode
from tfdistill.data.sources import folder, imagewoof
from tfdistill.teacher_cache import build, open_cache

pytestmark = pytest.mark.slow

pytest_plugins = ["tests.stored_logits"]
SOURCES = sorted(Path(tfdistill.__file__).parent.rglob("*.py"))
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


@pytest.fixture
def pictures_folder(tmp_path):
    """Two classes of five whole images."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(5):
            path = tmp_path / name / f"{number}.png"
            path.write_bytes(hostile_files.encoded("PNG", 20 + number))
    return tmp_path


def read(root, size=16):
    return folder.read(DataConfig(source=f"folder:{root}", image_size=size), str(root))


class TestImagesOfATrainingFolder:
    @pytest.mark.parametrize("name", hostile_files.HOSTILE_IMAGES)
    def test_a_hostile_one_is_named_in_one_line(self, pictures_folder, name):
        (pictures_folder / "cat" / name).write_bytes(hostile_files.HOSTILE_IMAGES[name])
        with pytest.raises(UsageError, match=f"Cannot read the image .*cat/{name}: ") as caught:
            read(pictures_folder)
        assert "\n" not in str(caught.value)

    def test_frames_that_unpack_to_gigabytes_are_left_alone(self, pictures_folder):
        (pictures_folder / "cat" / "a.gif").write_bytes(hostile_files.gif_of_many_frames())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert read(pictures_folder).train.images.shape == (9, 16, 16, 3)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert after - before < 500_000  # kB, of 4.8 GB that all frames take

    def test_a_pipe_and_a_huge_file_are_not_waited_for(self, pictures_folder):
        os.mkfifo(pictures_folder / "cat" / "pipe.png")
        with pytest.raises(UsageError, match="pipe.png: It is no regular file"):
            read(pictures_folder)
        os.remove(pictures_folder / "cat" / "pipe.png")
        with open(pictures_folder / "dog" / "huge.jpg", "wb") as file:
            file.truncate(10**12)
        with pytest.raises(UsageError, match="huge.jpg: The file is larger than 64 MB"):
            read(pictures_folder)

    @pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
    def test_damage_is_named_or_decoded(self, format):
        random, whole = np.random.default_rng(0), hostile_files.encoded(format)
        for _ in range(10):
            try:
                pixels = decode.decode([hostile_files.damaged(whole, random)], str, 3, 8)
            except UsageError as error:
                assert str(error).startswith("Cannot read the image 0: ")
                assert "\n" not in str(error)
            else:
                assert pixels.shape == (1, 8, 8, 3)


REFUSED = ("no image", "bomb", "link to itself")


class TestArchive:
    @pytest.mark.parametrize("kind", [*REFUSED, "all that is left alone"])
    def test_a_hostile_member_writes_nothing_outside(self, tmp_path, kind):
        whole, hostile = hostile_files.encoded("JPEG"), hostile_files.hostile_members()
        alone = [member for name, member in hostile.items() if name not in REFUSED]
        members = [hostile[kind]] if kind in REFUSED else alone
        for breed in imagewoof.BREEDS:
            for part in ("train", "val"):
                member = tarfile.TarInfo(f"imagewoof2-160/{part}/{breed}/{breed}.JPEG")
                member.size = len(whole)
                members.append((member, whole))
        path, folder = tmp_path / "in" / "woof.tgz", tmp_path / "in" / "data"
        folder.mkdir(parents=True)
        path.write_bytes(hostile_files.archive(members))
        config = DataConfig(source="imagewoof", archive=str(path), data_dir=str(folder))
        if kind in REFUSED:
            with pytest.raises(
                UsageError, match="Cannot prepare ImageWoof from .*woof.tgz"
            ) as caught:
                imagewoof.read(config)
            assert "\n" not in str(caught.value)
        else:
            source = imagewoof.read(config)
            assert len(source.train.images) == len(imagewoof.BREEDS)
        assert os.listdir(tmp_path) == ["in"] and not Path("/tmp/harm").exists()
        assert not [at for at in folder.rglob("*") if at.suffix == ".JPEG" or at.is_symlink()]

    def test_a_huge_member_is_refused_before_it_is_read(self, tmp_path):
        with open(tmp_path / "woof.tar", "wb") as file:
            member = tarfile.TarInfo("imagewoof2-160/train/n02086240/a.JPEG")
            member.size = 10**12
            file.write(member.tobuf(tarfile.GNU_FORMAT))
            file.truncate(10**12)
        config = DataConfig(archive=str(tmp_path / "woof.tar"), data_dir=str(tmp_path))
        with pytest.raises(UsageError, match="larger than 64 MB"):
            imagewoof.read(config)


def test_a_fuzzed_manifest_is_refused_or_the_same(tmp_path, pictures):
    teacher, random = Counting(1).teacher("one"), np.random.default_rng(0)
    whole = tmp_path / "whole"
    build(whole, [teacher], pictures, settings(CROPPED))
    stored = open_cache(whole).logits()[0, pictures.train.ids].tobytes()
    kept = 0
    shard = str(next(whole.glob("v0000/*")).relative_to(whole))
    for place, name in enumerate(("manifest.json", "ids.npy", shard)):
        fuzzed = shutil.copytree(whole, tmp_path / str(place))
        for _ in range(30):
            data = hostile_files.damaged((whole / name).read_bytes(), random)
            (fuzzed / name).write_bytes(data)
            try:
                found = open_cache(fuzzed).logits()[0, pictures.train.ids].tobytes()
            except UsageError as error:
                assert str(fuzzed) in str(error) and "\n" not in str(error)
            else:
                assert found == stored
                kept += 1
    assert kept < 45


def _calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield (
                ast.unparse(node.func),
                {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords},
            )


class TestNothingRunsWhatAFileSays:
    def test_no_pickle(self):
        for path in SOURCES:
            imported = {
                alias.name.partition(".")[0]
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Import | ast.ImportFrom)
                for alias in (*node.names, ast.alias(getattr(node, "module", None) or ""))
            }
            assert not imported & PICKLES, path

    def test_no_eval_or_shell(self):
        forbidden = {"eval", "exec", "os.system", "os.popen", "__import__"}
        forbidden |= {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}
        for path in SOURCES:
            for name, keywords in _calls(path):
                assert name not in forbidden, (path, name)
                assert keywords.get("shell", "False") == "False" or name.endswith(
                    "generate_completion"
                ), path
                assert keywords.get("allow_pickle", "False") == "False", path
                assert not name.endswith(("read_pickle", "to_pickle")), (path, name)

    def test_models_are_loaded_in_safe_mode_unless_a_person_trusts_them(self):
        unsafe = {
            path.stem: keywords["safe_mode"]
            for path in SOURCES
            for name, keywords in _calls(path)
            if keywords.get("safe_mode", "True") != "True"
        }
        # What a person said with --allow-unsafe.
        assert set(unsafe.values()) <= {"not trusted", "not saved_model_safety.trusting()"}, unsafe
