"""Claims of parts of a work: one process has each, until it is done with it, or dead."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tfdistill.teacher_cache import claims
from tfdistill.teacher_cache.claims import Claims
from tfdistill.utils import storage


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "claims"


def claim_of(folder, host, process):
    """A claim that another process has left."""
    own = storage.temporary_name(folder / "claim").split(".")
    folder.mkdir(exist_ok=True)
    (folder / "part").write_text(".".join([*own[:2], host or own[2], str(process), own[-1]]))


def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_one_of_many_has_it_until_it_is_released_or_ends(folder):
    with Claims(folder) as one, Claims(folder) as other:
        assert one.take("part") and not other.take("part") and other.take("other")
        one.release("part")
        assert other.take("part") and not one.take("part")
    assert not list(folder.iterdir())


def test_of_threads_that_reach_for_it_at_once_one_gets_it(folder):
    with Claims(folder) as shared, ThreadPoolExecutor(8) as threads:
        for name in map(str, range(50)):
            assert sum(threads.map(lambda _, name=name: shared.take(name), range(8))) == 1


def test_that_of_an_ended_process_of_this_host_is_taken_at_once(folder):
    claim_of(folder, None, ended_process())
    with Claims(folder) as mine, Claims(folder) as other:
        assert mine.take("part") and not other.take("part")
        assert [path.name for path in folder.iterdir()] == ["part"]


@pytest.mark.parametrize("content", ["", "half", ".tfdistill.another-host.1.claim"])
def test_that_of_another_host_is_taken_when_it_was_not_touched_for_long(
    folder, content, monkeypatch
):
    clock = [1000.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: clock[0])
    folder.mkdir()
    (folder / "part").write_text(content)
    mine = Claims(folder)
    assert not mine.take("part")
    clock[0] += claims.LEASE - 1
    assert not mine.take("part")
    os.utime(folder / "part", (5, 5))  # alive; its disk's clock is another
    clock[0] += 2
    assert not mine.take("part")
    clock[0] += claims.LEASE + 1
    assert mine.take("part")
    assert storage.temporary_name(folder / "claim") == (folder / "part").read_text()


def test_a_living_process_of_this_host_keeps_it(folder):
    claim_of(folder, None, os.getppid())
    assert not Claims(folder).take("part")


def test_one_that_came_to_life_between_is_put_back(folder):
    """Another process has taken it over after this one saw that it was abandoned."""
    claim_of(folder, None, ended_process())
    mine = Claims(folder)
    touched = mine._abandoned(folder / "part")
    os.utime(folder / "part", (7, 7))
    assert not mine._removed(folder / "part", touched)
    assert [path.name for path in folder.iterdir()] == ["part"]


def test_claims_are_touched_while_they_are_held(folder, monkeypatch):
    monkeypatch.setattr(claims, "LEASE", 0.05)
    with Claims(folder) as mine:
        mine.take("part")
        os.utime(folder / "part", (7, 7))
        while (folder / "part").stat().st_mtime == 7:
            pass


def test_what_others_left_is_cleared_in_the_end_and_nothing_else(folder):
    claim_of(folder, "another-host", 1)
    with Claims(folder) as mine:
        (folder / "notes.txt").write_text("of the user")
        mine.clear()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_folder_that_goes_away_with_the_last_claim_comes_again(folder):
    with Claims(folder) as mine:
        assert mine.take("part")
        mine.clear()
        assert not folder.exists() and mine.take("part")
