"""Fixtures: small teachers and their stored logits, built once for all tests of teacher caches."""

import shutil

import pytest

from tests.small_teachers import TOP, dataset, network, settings
from tfdistill.teacher_cache import Teacher, build


@pytest.fixture(scope="session")
def pictures():
    return dataset()


@pytest.fixture(scope="session")
def teachers():
    return [Teacher.of(network(1), "one"), Teacher.of(network(2), "two")]


@pytest.fixture(scope="session")
def finished(tmp_path_factory, pictures, teachers):
    """The folder of a complete cache; tests that damage it take `copied`."""
    folder = tmp_path_factory.mktemp("finished")
    build(folder, teachers, pictures, settings())
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copied")


@pytest.fixture(scope="session")
def largest(tmp_path_factory, pictures, teachers):
    """A complete cache of the largest classes alone."""
    return build(tmp_path_factory.mktemp("top"), teachers, pictures, settings(), TOP)
