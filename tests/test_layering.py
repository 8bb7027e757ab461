"""Imports point one way: the package's modules stand in levels and import only from lower ones."""

import ast
from pathlib import Path

import pytest

import tfdistill

PACKAGE = Path(tfdistill.__file__).parent
LEVELS = [
    {"checks", "significance"},
    {"storage"},
    {"config", "records"},
    {"grids", "drawing", "cells"},
    {"pictures", "multi_view_settings"},
    {
        "startup",
        "stopping",
        "progress",
        "machine",
        "losses",
        "models",
        "data",
        "metrics",
        "schedules",
        "studies",
        "spaces",
        "kinds",
    },
    {"catalogue"},
    {"distiller", "ensembles", "resume", "reuse", "tensorboard_logs", "oracles", "placing"},
    {"formats", "runtimes"},
    {"probing"},
    {"saliency", "multi_view_data"},
    {"multi_view_network"},
    {"logit_files", "logit_reading"},
    {"population", "teacher_cache"},
    {"measuring", "figures", "heat_maps", "hypermodels", "seed_results"},
    {"assembly", "caches", "seed_training", "multi_view", "heat_map_run"},
    {"training", "evaluation", "distillation_tuner"},
    {"deployment", "format_checks", "subjects"},
    {"card_facts"},
    {"model_card"},
    {"doctor", "reports", "continuing"},
    {"runner", "tuners", "exporting", "classifiers"},
    {"study_exports", "predictions", "demo"},
    {"prediction_output"},
    {"trials", "rehearsal", "reproduction"},
    {"study_tuner"},
    {"sweeps"},
    {"commands"},
    {"help_pages"},
    {"options"},
    {"export_commands"},
    {"cli"},
    {"__main__"},
]
FOLDERS = {"config", "pictures", "formats"}
FAMILIES = {"losses", "models", "data", "studies"}
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(path):
    """Yield the top-level parts of tfdistill that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tfdistill"):
            parts = node.module.split(".")
            names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            yield from (name for name in names if name in LEVEL_OF)


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_has_a_level():
    assert {part_of(path) for path in FILES} == set(LEVEL_OF)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    here = part_of(path)
    for there in imported(path):
        if there == here and here in FAMILIES | FOLDERS:
            continue
        assert not (here in FAMILIES and there in FAMILIES), f"{here} imports {there}"
        assert LEVEL_OF[there] < LEVEL_OF[here] or (here, there) == ("records", "config")


def test_folders_are_one_deep():
    assert all(len(path.relative_to(PACKAGE).parts) <= 2 for path in FILES)
