"""Files of stored logits: whole, or seen to be damaged; a killed build is resumed."""

import dataclasses
import errno
import json
import os
import shutil
import threading
import types

import numpy as np
import pytest

from tests import small_teachers
from tests.forked import Forked
from tests.small_teachers import (
    BATCH,
    CLASSES,
    COUNT,
    CROPPED,
    FULL,
    HALF,
    TOP,
    Counting,
    settings,
)
from tfdistill import UsageError
from tfdistill.teacher_cache import Teacher, build, logit_files, open_cache
from tfdistill.teacher_cache.logit_files import Files, Layout, new_manifest
from tfdistill.utils.progress import Silent

pytest_plugins = ["tests.stored_logits"]


@pytest.mark.parametrize("cache", [FULL, HALF, TOP], ids=["full", "half", "top_k"])
def test_files_take_the_size_that_is_said_and_hold_what_is_written(tmp_path, pictures, cache):
    layout = Layout.of(2, pictures, settings(), cache)
    files = Files(tmp_path, layout)
    files.prepare(new_manifest({}, layout), pictures.train.ids)
    paths = [tmp_path / f"{name}.npy" for name in layout.arrays()]
    assert files.size == sum(path.stat().st_size for path in paths)
    for chunk in files.missing():
        files.write(
            chunk, [np.full(chunk.rows(array).shape, 3 + chunk.view) for array in files.map()]
        )
    assert not Files(tmp_path, layout).missing()
    for path in paths:
        assert (np.load(path)[0] == 3).all() and (np.load(path)[1] == 4).all()


@pytest.mark.parametrize("name", ["logits.npy", "ids.npy", "manifest.json"])
def test_files_of_somebody_else_are_not_written_over(tmp_path, pictures, name):
    (tmp_path / name).write_text('{"version": 3}')
    load = Counting(1)
    with pytest.raises(UsageError, match=rf"not of teacher logits: {name}"):
        build(tmp_path, [load.teacher("one")], pictures, settings())
    assert (tmp_path / name).read_text() == '{"version": 3}'


def test_too_small_a_disk_is_told_before_a_teacher_is_loaded(tmp_path, pictures, monkeypatch):
    load = Counting(1)
    free = types.SimpleNamespace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    with pytest.raises(UsageError, match="needs 0.0 MB in .* 0.0 MB are free"):
        build(tmp_path, [load.teacher("one")], pictures, settings())
    assert load.calls == 0


def test_disk_that_fills_up_says_how_to_go_on(tmp_path, pictures, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    layout = Layout.of(1, pictures, settings(), FULL)
    files, manifest = Files(tmp_path, layout), new_manifest({}, layout)
    files.prepare(manifest, pictures.train.ids)
    chunk = files.missing()[0]
    rows = np.ones((COUNT, CLASSES))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        for failing in (
            lambda: files.prepare(manifest, pictures.train.ids),
            lambda: files.write(chunk, [rows]),
        ):
            with pytest.raises(UsageError, match="no room in .*resumes"):
                failing()
    assert chunk in files.missing()
    files.write(chunk, [rows])
    assert chunk not in files.missing()


def killed_build(folder, finished):
    """Print what a process reads of a finished cache, and end in the fifth chunk of a new one."""
    images = small_teachers.dataset()
    print(float(open_cache(finished).logits()[1, images.train.ids].sum()), flush=True)
    logit_files.CHUNK_ROWS = 2 * BATCH
    write, left = logit_files._File.write, [4]

    def die_at_the_fifth(*args):
        if not left[0]:
            os._exit(9)
        left[0] -= 1
        write(*args)

    logit_files._File.write = die_at_the_fifth
    networks = {"one": small_teachers.network(1), "two": small_teachers.network(2)}
    build(folder, [Teacher.of(networks[name], name) for name in networks], images, settings())


@pytest.mark.slow
def test_another_process_reads_and_a_build_goes_on_after_a_kill_with_the_same_bytes(
    tmp_path, finished, pictures, teachers, monkeypatch
):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    died = Forked(killed_build, killed, finished)
    printed, errors = died.communicate()
    assert died.returncode == 9, errors
    assert float(printed) == float(open_cache(finished).logits()[1, pictures.train.ids].sum())
    monkeypatch.setattr(logit_files, "CHUNK_ROWS", 2 * BATCH)  # as in the other process
    assert len(json.loads((killed / "chunks.json").read_text())) == 4
    with pytest.raises(UsageError, match="unfinished or damaged"):
        open_cache(killed)
    said = []
    build(killed, teachers, pictures, settings(), progress=types.SimpleNamespace(say=said.append))
    assert f"{2 * 2 * COUNT - (2 * 16 + 12 + 16)} passes to do" in said[0]
    build(whole, teachers, pictures, settings())
    for name in ("logits.npy", "ids.npy", "manifest.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


def _flip_bit(folder):
    with open(folder / "logits.npy", "r+b") as file:
        file.seek(-7, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-7, os.SEEK_END)
        file.write(bytes([byte ^ 1]))


def _edit_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"view seed": 3', '"view seed": 4'))


DAMAGES = {
    "a flipped bit": _flip_bit,
    "a truncated file": lambda folder: os.truncate(folder / "logits.npy", 300),
    "a lost file": lambda folder: (folder / "logits.npy").unlink(),
    "a lost list": lambda folder: (folder / "chunks.json").unlink(),
    "a list of nonsense": lambda folder: (folder / "chunks.json").write_text("[1]"),
    "lost ids": lambda folder: (folder / "ids.npy").unlink(),
    "other ids": lambda folder: np.save(folder / "ids.npy", np.arange(COUNT)),
    "a manifest of nonsense": lambda folder: (folder / "manifest.json").write_text('{"a": '),
    "an edited manifest": _edit_manifest,
    "a lost manifest": lambda folder: (folder / "manifest.json").unlink(),
}


@pytest.fixture(scope="module")
def single(tmp_path_factory, pictures, teachers):
    """A complete cache of one view of one teacher, quick to mend."""
    folder = tmp_path_factory.mktemp("single")
    build(folder, teachers[:1], pictures, settings(dataclasses.replace(CROPPED, views=1)))
    return folder


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_refused_by_readers_and_mended_by_a_build(
    single, tmp_path, pictures, teachers, damage
):
    copied = shutil.copytree(single, tmp_path / "copied")
    damage(copied)
    with pytest.raises(UsageError, match="damaged|Build them first"):
        open_cache(copied)
    build(copied, teachers[:1], pictures, settings(dataclasses.replace(CROPPED, views=1)))
    assert (copied / "logits.npy").read_bytes() == (single / "logits.npy").read_bytes()
    open_cache(copied)


def test_only_damaged_chunks_are_computed_again(copied, pictures):
    _flip_bit(copied)  # in the last member
    first, second = Counting(1), Counting(2)
    build(copied, [first.teacher("one"), second.teacher("two")], pictures, settings())
    assert (first.calls, second.calls) == (0, 1)


@pytest.mark.parametrize("name", ["logits", "classes", "rest"])
def test_damage_in_any_file_of_top_k_is_found(largest, tmp_path, name):
    copied = shutil.copytree(largest.folder, tmp_path / "copied")
    with open(copied / f"{name}.npy", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    with pytest.raises(UsageError, match="damaged"):
        open_cache(copied)


def test_second_builder_waits_and_finds_it_complete(tmp_path, pictures):
    """The first builder loads its teacher only once the second says that it waits."""
    waits, loads = threading.Event(), [Counting(1), Counting(1)]

    class Tell(Silent):
        def say(self, text):
            if text.startswith("waiting"):
                waits.set()

    def slow_load():
        second.start()
        assert waits.wait(600)
        return loads[0]()

    def build_second():
        build(tmp_path, [loads[1].teacher("one")], pictures, settings(), progress=Tell())

    second = threading.Thread(target=build_second)
    slow = dataclasses.replace(loads[0].teacher("one"), load=slow_load)
    build(tmp_path, [slow], pictures, settings())
    second.join()
    assert (loads[0].calls, loads[1].calls) == (1, 0)
