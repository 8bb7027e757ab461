"""The site's reference has every public name, and no other."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("", ".losses", ".data", ".models", ".teacher_cache", ".quantization", ".tuners")


def referred():
    pages = (ROOT / "docs" / "reference").glob("*.md")
    return [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M)]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_reference(package):
    module = importlib.import_module(f"tfdistill{package}")
    shown = {name.rpartition(".")[2] for name in referred()}
    public = {name for name in module.__all__ if callable(getattr(module, name))}
    assert public - shown == set()


def test_names_in_the_reference_are_there():
    for name in referred():
        module, _, value = name.rpartition(".")
        assert getattr(importlib.import_module(module), value).__doc__


def test_every_page_is_in_the_navigation():
    pages = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    shown = set(re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    assert shown == pages
