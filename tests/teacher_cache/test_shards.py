"""Shards of stored logits: whole, or seen to be damaged; several processes build at once."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import threading
import time
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
from tfdistill.teacher_cache import Teacher, build, layout, open_cache
from tfdistill.teacher_cache.layout import Layout, new_manifest
from tfdistill.teacher_cache.shards import Files, Rows, ShardError
from tfdistill.utils.progress import Silent

pytest_plugins = ["tests.stored_logits"]


def begun(folder, pictures, cache=FULL, members=2):
    """The files of a cache of which nothing is stored yet."""
    manifest = new_manifest({}, Layout.of(members, pictures, settings(), cache))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Files(folder, manifest)


def files_in(folder):
    """All files of a folder by name; of shards, the checksums are in their names."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def read_all(folder, pictures):
    reader = open_cache(folder).logits()
    return np.stack([reader[view, pictures.train.ids] for view in range(reader.shape[0])])


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of two batches: three of a view of 44 images."""
    monkeypatch.setattr(layout, "SHARD_ROWS", 2 * BATCH)


@pytest.mark.parametrize("cache", [FULL, HALF, TOP], ids=["full", "half", "top_k"])
def test_files_take_the_size_that_is_said_and_hold_what_is_written(
    tmp_path, pictures, cache, small_shards
):
    files = begun(tmp_path, pictures, cache)
    fields = files.layout.record.fields
    for place, chunk in enumerate(files.missing()):
        shapes = [(len(chunk.places), *dtype.shape) for dtype, *_ in fields.values()]
        files.write(chunk, [np.full(shape, place) for shape in shapes])
    assert not files.missing()
    sizes = [np.load(path).nbytes for path in tmp_path.glob("v*/*.npy")]
    assert len(sizes) == 2 * 3 * files.layout.members and files.size == sum(sizes)
    found = Rows(files)(1, 0, np.array([40, 3, 17]))  # of the view's third, first and second
    assert all(found[name][:, 0].tolist() == [5, 3, 4] for name in fields)


@pytest.mark.parametrize("name", ["ids.npy", "manifest.json"])
def test_files_of_somebody_else_are_not_written_over(tmp_path, pictures, name):
    (tmp_path / name).write_text('{"version": 3}')
    load = Counting(1)
    with pytest.raises(UsageError, match=rf"not of teacher logits: {name}"):
        build(tmp_path, [load.teacher("one")], pictures, settings())
    assert (tmp_path / name).read_text() == '{"version": 3}' and len(files_in(tmp_path)) == 1


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

    files = begun(tmp_path, pictures)
    chunk = files.missing()[0]
    rows = np.ones((COUNT, CLASSES))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        for failing in (
            lambda: files.write_ids(pictures.train.ids),
            lambda: files.write(chunk, [rows]),
        ):
            with pytest.raises(UsageError, match="no room in .*resumes"):
                failing()
    assert chunk in files.missing() and files_in(tmp_path) == ["manifest.json"]
    files.write(chunk, [rows])
    assert chunk not in files.missing()


def test_logits_of_an_earlier_format_are_refused_in_one_line(finished, tmp_path, teachers):
    """Format 1: one file for all, and a layout without the rows of a shard."""
    manifest = json.loads((finished / "manifest.json").read_text())
    del manifest["layout"]["shard_rows"]
    manifest["fingerprint"]["format"] = 1
    check = layout.digest({key: manifest[key] for key in ("fingerprint", "layout")})
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"check": check}))
    (tmp_path / "logits.npy").write_text("old")
    for attempt in (
        lambda: open_cache(tmp_path),
        lambda: build(tmp_path, teachers, small_teachers.dataset(), settings()),
    ):
        with pytest.raises(UsageError, match="of format 1, .* reads format 2. Remove the folder"):
            attempt()
    assert files_in(tmp_path) == ["logits.npy", "manifest.json"]


# Damage


def _a_shard(folder):
    return sorted(folder.glob("v*/*.npy"))[-1]


def _flip_bit(folder, place=-7):
    path = _a_shard(folder)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def _edit_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"view seed": 3', '"view seed": 4'))


def _lose_the_manifest(folder):
    (folder / "manifest.json").unlink()
    (folder / "ids.npy").unlink()
    _flip_bit(folder)  # which is noticed without a reader


UNOPENED = {
    "a lost shard": lambda folder: _a_shard(folder).unlink(),
    "lost ids": lambda folder: (folder / "ids.npy").unlink(),
    "other ids": lambda folder: np.save(folder / "ids.npy", np.arange(COUNT)),
    "a manifest of nonsense": lambda folder: (folder / "manifest.json").write_text('{"a": '),
    "an edited manifest": _edit_manifest,
    "a lost manifest": _lose_the_manifest,
}
UNREAD = {
    "a flipped bit": _flip_bit,
    "a flipped bit in the header": lambda folder: _flip_bit(folder, 20),
    "a truncated file": lambda folder: os.truncate(_a_shard(folder), 300),
    "an empty file": lambda folder: os.truncate(_a_shard(folder), 0),
}


@pytest.fixture(scope="module")
def single(tmp_path_factory, pictures, teachers):
    """A complete cache of one view of one teacher, quick to mend."""
    folder = tmp_path_factory.mktemp("single")
    build(folder, teachers[:1], pictures, settings(dataclasses.replace(CROPPED, views=1)))
    return folder


def mended(copied, single, pictures, teachers):
    build(copied, teachers[:1], pictures, settings(dataclasses.replace(CROPPED, views=1)))
    assert files_in(copied) == files_in(single)
    np.testing.assert_array_equal(read_all(copied, pictures), read_all(single, pictures))


@pytest.mark.parametrize("damage", UNOPENED.values(), ids=UNOPENED)
def test_what_is_not_whole_is_not_opened_and_mended_by_a_build(
    single, tmp_path, pictures, teachers, damage
):
    copied = shutil.copytree(single, tmp_path / "copied")
    damage(copied)
    with pytest.raises(UsageError, match="damaged|Build them first"):
        open_cache(copied)
    mended(copied, single, pictures, teachers)


@pytest.mark.parametrize("damage", UNREAD.values(), ids=UNREAD)
def test_a_damaged_shard_is_named_when_it_is_first_read_and_mended_by_a_build(
    single, tmp_path, pictures, teachers, damage
):
    copied = shutil.copytree(single, tmp_path / "copied")
    damage(copied)
    name = _a_shard(copied).name
    reader = open_cache(copied).logits()
    with pytest.raises(ShardError, match=rf"{name} is damaged .*again") as told:
        reader[0, pictures.train.ids[:3]]
    assert "\n" not in str(told.value) and reader.failure is told.value
    mended(copied, single, pictures, teachers)


@pytest.mark.slow
def test_only_what_is_damaged_or_lost_is_computed_again(tmp_path, pictures, teachers, small_shards):
    said = []
    build(tmp_path, teachers, pictures, settings())
    whole = files_in(tmp_path)
    _flip_bit(tmp_path)  # the last view's second member, rows 32 to 44
    next(tmp_path.glob("v0000/m01-r0000016-*")).unlink()
    first, second = Counting(1), Counting(2)
    mending = [first.teacher("one"), second.teacher("two")]
    progress = types.SimpleNamespace(say=said.append, warn=said.append)
    build(tmp_path, mending, pictures, settings(), progress=progress)
    with pytest.raises(ShardError):
        open_cache(tmp_path).check()
    open_cache_again = build(tmp_path, mending, pictures, settings(), progress=progress)
    open_cache_again.check()
    assert [text.split(" passes")[0] for text in said if "passes to do" in text] == [
        "teacher logits: 16",
        "teacher logits: 12",
    ]
    assert (first.calls, second.calls) == (0, 2) and files_in(tmp_path) == whole


def test_a_shard_of_another_cache_is_none_of_this(finished, single, tmp_path, pictures):
    """Its checksum is over the manifest, too; without that, the same rows would be taken."""
    copied = shutil.copytree(single, tmp_path / "copied")
    ours, other = _a_shard(copied), next(finished.glob("v0001/m01-*"))
    ours.unlink()
    shutil.copy(other, ours.with_name(other.name.replace("m01", "m00")))
    with pytest.raises(ShardError, match="checksum"):
        open_cache(copied).logits()[0, pictures.train.ids]


@pytest.mark.parametrize("name", ["logits", "classes", "rest"])
def test_damage_in_any_field_of_top_k_is_found(largest, tmp_path, pictures, name):
    copied = shutil.copytree(largest.folder, tmp_path / "copied")
    rows = np.load(_a_shard(copied))
    _flip_bit(copied, rows.dtype.fields[name][1] - rows.nbytes)  # of the first row
    with pytest.raises(ShardError, match="damaged"):
        open_cache(copied).logits(temperature=1.0)[1, pictures.train.ids]


def test_of_two_shards_of_the_same_rows_the_first_in_order_is_read(single, tmp_path, pictures):
    """As other machines may write them, which add in another order."""
    copied = shutil.copytree(single, tmp_path / "copied")
    cache = open_cache(copied)
    files = Files(copied, cache.manifest)
    (chunk,) = files.layout.chunks()
    rows = files.read(_a_shard(copied))["logits"] + np.float32(1e-3)
    files.write(chunk, [rows])
    names = sorted(path.name for path in copied.glob("v0000/*"))
    assert len(names) == 2
    read = [open_cache(copied)._rows(0, 0, np.arange(3))["logits"] for _ in range(2)]
    first = np.load(copied / "v0000" / names[0])["logits"]
    assert (read[0] == first[:3]).all() and (read[1] == first[:3]).all()
    # A reader that has the other one in its list takes this one when that is gone.
    late = open_cache(copied)
    (copied / "v0000" / names[0]).unlink()
    assert (late._rows(0, 0, np.arange(COUNT)) == np.load(copied / "v0000" / names[1])).all()


def test_few_files_are_open_however_many_shards_there_are(
    tmp_path, pictures, monkeypatch, small_shards
):
    from tfdistill.teacher_cache import shards

    monkeypatch.setattr(shards, "OPEN", 2)
    files = begun(tmp_path, pictures)
    for place, chunk in enumerate(files.missing()):
        files.write(chunk, [np.full((len(chunk.places), CLASSES), place)])
    rows, there = Rows(files), len(os.listdir("/proc/self/fd"))
    for view in (0, 1, 0):
        found = [rows(view, member, np.arange(COUNT))["logits"][:, 0] for member in (0, 1)]
        assert [part[[0, 20, 43]].tolist() for part in found] == [
            [3 * view, 3 * view + 1, 3 * view + 2],
            [3 * view + 6, 3 * view + 7, 3 * view + 8],
        ]
    assert len(os.listdir("/proc/self/fd")) == there + 2
    del rows
    assert len(os.listdir("/proc/self/fd")) == there


# Several builders


def builder(folder, ended, victim):
    """Build in a process; the victim is killed while it writes its second shard."""
    layout.SHARD_ROWS = BATCH
    networks = {name: small_teachers.network(seed) for seed, name in ((1, "one"), (2, "two"))}
    fsync, left = os.fsync, [2]

    def killed(file):
        left[0] -= file_is_a_shard(file)
        if not left[0]:
            ended.write_text("now")
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(file)

    def file_is_a_shard(file):
        return "-r0" in os.readlink(f"/proc/self/fd/{file}")

    def loader(name):
        def load():  # the first shards are claimed by now
            while not (victim or ended.exists()):
                time.sleep(0.005)
            return networks[name]

        return load

    if victim:
        os.fsync = killed
    teachers = [
        dataclasses.replace(Teacher.of(network, name), load=loader(name))
        for name, network in networks.items()
    ]
    build(folder, teachers, small_teachers.dataset(), settings())


@pytest.mark.slow
def test_three_processes_of_which_one_is_killed_store_what_one_does(
    tmp_path, pictures, teachers, monkeypatch
):
    shared, ended = tmp_path / "shared", tmp_path / "ended"
    processes = [Forked(builder, shared, ended, victim) for victim in (False, True, False)]
    monkeypatch.setattr(layout, "SHARD_ROWS", BATCH)  # as in the other processes
    build(tmp_path / "whole", teachers, pictures, settings())
    outcomes = [(process.communicate()[1], process.returncode) for process in processes]
    assert [code for _, code in outcomes] == [0, -signal.SIGKILL, 0], outcomes
    assert len(files_in(shared)) == 2 + 2 * 2 * 6
    assert files_in(shared) == files_in(tmp_path / "whole")  # no claim and no half a file
    manifests = [json.loads((at / "manifest.json").read_text()) for at in tmp_path.glob("*/")]
    assert manifests[0] == manifests[1]
    np.testing.assert_array_equal(
        read_all(shared, pictures), read_all(tmp_path / "whole", pictures)
    )


def test_a_second_builder_helps_and_waits_for_the_last_parts(tmp_path, pictures, monkeypatch):
    """The first builder loads its teacher only once the second says that it waits."""
    monkeypatch.setattr(layout, "SHARD_ROWS", BATCH)
    waits, loads = threading.Event(), [Counting(1), Counting(1)]
    said = []

    class Tell(Silent):
        def say(self, text):
            said.append(text)
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
    # The first had begun four of the twelve shards, and found none left after them.
    assert (loads[0].calls, loads[1].calls) == (1, 1)
    assert "the last 4 parts" in said[-2] and said[-1].startswith("teacher logits: done in")
    assert len(files_in(tmp_path)) == 2 + 12
