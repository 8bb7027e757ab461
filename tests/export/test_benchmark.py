"""The table of exported forms: what was measured, and how it is told."""

import io
import json

import keras
import numpy as np
import pytest
from rich.console import Console

from tfdistill.export import benchmark, litert, onnx, saved_model
from tfdistill.export.benchmark import Form
from tfdistill.export.isolated import ProbeError
from tfdistill.reporting import reports

SHAPE = (8, 8, 1)


def row(label, model, bytes, medians, accuracy=0.95859, format="savedmodel"):
    latency = {
        size: {"median": median, "p95": 2 * median, "calls": 50}
        for size, median in zip(("1", "32"), medians, strict=True)
    }
    values = {"format": format, "images": 797, "peak_bytes": 601_600_000, "cpu": "CPU X"}
    values |= {"label": label, "model": model, "bytes": bytes, "latency": latency}
    return values | {"accuracy": accuracy}


TEACHER = row("teacher", "teacher", 1_234_567, (0.012, 0.1234), 0.9636)
STUDENT = row("student", "student", 138_000, (0.00051, 0.00205))
SMALL = row("student, LiteRT int8", "student", 24_612, (0.0006, 0.00205), format="litert-int8")


def test_cells_are_rounded_to_three_digits():
    assert benchmark.table([TEACHER, SMALL]).rows == (
        ("teacher", "96.36", "1.23 MB", "12.0 / 24.0", "123 / 247", "602"),
        ("student, LiteRT int8", "95.86", "24.6 kB", "0.600 / 1.20", "2.05 / 4.10", "602"),
    )


def test_the_note_says_how_and_what_was_gained():
    note = benchmark.table([TEACHER, STUDENT, SMALL]).note
    assert "CPU X with one thread" in note and "797 test images" in note
    assert note.endswith(
        "Space and speed (1 image, 32 images) against teacher: student 11.2 %, 23.5x, 60.2x; "
        "student, LiteRT int8 1.99 %, 20.0x, 60.2x. Between formats the runtimes differ, too."
    )


def test_the_smallest_and_fastest_form_is_named_once():
    note = benchmark.table([TEACHER, STUDENT]).note
    assert note.endswith("against teacher: student 11.2 %, 23.5x, 60.2x.")


@pytest.mark.parametrize("rows", [[TEACHER], [STUDENT, SMALL]])
def test_nothing_is_gained_without_a_teacher_or_a_student(rows):
    assert "against teacher" not in benchmark.table(rows).note


def test_nothing_measured_is_an_empty_table():
    table = benchmark.table([])
    assert (table.rows, table.note) == ((), "")


def test_the_table_fits_a_terminal():
    slow = row("student, LiteRT float32", "student", 999_000_000, (0.1234, 12.345))
    console = Console(width=80, file=io.StringIO(), color_system=None)
    reports.print_tables([benchmark.table([TEACHER, slow])], console)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("999 MB" in line and "12345 / 24690" in line for line in lines)


def test_percentiles_by_hand():
    seconds = [float(number) for number in (7, 3, 21, *range(8, 21), 1, 2, 4, 5, 6)]
    assert sorted(seconds) == [float(number) for number in range(1, 22)]
    # The 20th of 21 values has 95 % of the others' places below it.
    assert benchmark._latency(seconds) == {"median": 11.0, "p95": 20.0, "calls": 21}


def test_of_a_folder_only_the_saved_model_is_shipped(tmp_path):
    wanted = ["assets/words.txt", "fingerprint.pb", "saved_model.pb", "variables/variables.index"]
    others = ["assets.extra/tf_serving_warmup_requests", "model.onnx", "model.int8.tflite"]
    for name in (*wanted, *others, "labels.txt", "model_card.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    shipped = saved_model.SAVED_MODEL.shipped(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in shipped] == wanted
    assert onnx.ONNX.shipped(tmp_path / "model.onnx") == [tmp_path / "model.onnx"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a folder with two forms of a network, images, and labels it gets three quarters of."""
    folder = tmp_path_factory.mktemp("export")
    inputs = keras.Input(SHAPE)
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(keras.layers.Rescaling(0.1)(inputs)))
    network = keras.Model(inputs, outputs)
    saved_model.write(network, folder, SHAPE, ("a", "b", "c"))
    saved_model.write_numeric(network, folder / "numeric", SHAPE)
    litert.convert(folder / "numeric", folder / "model.float32.tflite", "float32")
    images = np.random.default_rng(0).integers(0, 256, (20, *SHAPE), np.uint8)
    labels = network.predict(images.astype("float32"), verbose=0).argmax(axis=-1)
    labels[:5] = (labels[:5] + 1) % 3
    return folder, images, labels


@pytest.mark.slow
@pytest.mark.usefixtures("forked_probes")
def test_two_forms_are_measured(exported):
    folder, images, labels = exported
    forms = [
        Form("large", "teacher", "savedmodel", folder),
        Form("small", "student", "litert-float32", folder / "model.float32.tflite"),
    ]
    rows = benchmark.measure(forms, [images] * len(forms), labels)
    assert rows == json.loads(json.dumps(rows, allow_nan=False))
    assert [(row["label"], row["model"], row["format"]) for row in rows] == [
        ("large", "teacher", "savedmodel"),
        ("small", "student", "litert-float32"),
    ]
    for found in rows:
        assert (found["accuracy"], found["images"]) == (0.75, 20)
        for latency in found["latency"].values():
            assert 0 < latency["median"] <= latency["p95"]
            assert benchmark.FEWEST_CALLS <= latency["calls"] <= benchmark.MOST_CALLS
    saved, lite = rows
    assert lite["bytes"] == (folder / "model.float32.tflite").stat().st_size
    parts = (folder / name for name in ("saved_model.pb", "fingerprint.pb", "variables"))
    files = [file for part in parts for file in ([part] if part.is_file() else part.iterdir())]
    assert saved["bytes"] == sum(file.stat().st_size for file in files)
    # A process with TensorFlow in it is far larger than one with LiteRT.
    assert saved["peak_bytes"] > 2 * lite["peak_bytes"] > 10_000_000
    assert len(benchmark.table(rows).rows) == 2


def test_a_broken_form_is_named(tmp_path):
    broken = tmp_path / "model.tflite"
    broken.write_bytes(b"no model")
    form = Form("x", "student", "litert-float32", broken)
    with pytest.raises(ProbeError, match="model.tflite"):
        benchmark.measure([form], [np.zeros((1, *SHAPE), np.uint8)], [0])
