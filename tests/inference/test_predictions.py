"""Image files classified by every kind of model, whatever is in the way."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tfdistill import records
from tfdistill.config import DataConfig, ModelConfig, RunConfig, TrainingConfig, to_dict
from tfdistill.export import litert, onnx, saved_model
from tfdistill.inference import classifiers, output, predictions
from tfdistill.utils.checks import UsageError

pytestmark = pytest.mark.slow

SHAPE, NAMES = (8, 8, 3), ("apple", "bean, green", "Kirsche")
FILES = {
    "SavedModel": "",
    "LiteRT": "model.float32.tflite",
    "int8": "model.int8.tflite",
    "ONNX": "model.onnx",
}


def small_network(channels=3, softmax=False):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, channels))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs / 255.0)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(3, "softmax" if softmax else None)(x))


def pixels(count, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def export(tmp_path_factory, network):
    """A model's folder with its version 2, in all formats."""
    model = tmp_path_factory.mktemp("exports") / "tiny"
    folder = model / "2"
    saved_model.write(network, folder, SHAPE, NAMES)
    numeric = tmp_path_factory.mktemp("numeric")
    saved_model.write_numeric(network, numeric, SHAPE)
    litert.convert(numeric, folder / FILES["LiteRT"], "float32", None)
    litert.convert(numeric, folder / FILES["int8"], "int8", pixels(20))
    onnx.convert(numeric, folder / FILES["ONNX"], NAMES)
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in NAMES))
    return model


@pytest.fixture
def photos(tmp_path):
    """Seven PNG files of the network's size, and two files that are none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for number, image in enumerate(pixels(7)):
        Image.fromarray(image).save(folder / ("more" if number > 4 else "") / f"{number}.png")
    (folder / "notes.txt").write_text("notes")
    (folder / "broken.png").write_text("no image")
    return folder


def expected(network, images):
    logits = network(images.astype("float32"), training=False)
    return keras.ops.convert_to_numpy(keras.ops.softmax(logits))


@pytest.mark.parametrize("kind", FILES)
def test_every_format_answers_as_the_network_does(export, network, photos, kind):
    found = predictions.classify(export / "2" / FILES[kind], [photos], batch_size=3)
    answers = [answer for answer in found if answer.error is None]
    assert [Path(answer.image).stem for answer in answers] == list("0123456")
    right = expected(network, pixels(7))
    for answer, row in zip(answers, right, strict=True):
        numbers = [guess.number for guess in answer.top]
        assert [guess.name for guess in answer.top] == [NAMES[number] for number in numbers]
        close = 0.1 if kind == "int8" else 1e-5
        assert [guess.probability for guess in answer.top] == pytest.approx(row[numbers], abs=close)
        if kind != "int8":
            assert numbers == np.argsort(-row).tolist()


def test_what_fails_is_answered_in_its_place_and_what_is_no_image_is_counted(export, photos):
    found = predictions.classify(
        export, [photos / "0.png", photos / "notes.txt", photos, photos / "lost.png"], batch_size=2
    )
    answers = list(found)
    assert [Path(answer.image).name for answer in answers if answer.error] == [
        "notes.txt",
        "broken.png",
        "lost.png",
    ]
    assert [bool(answer.top) for answer in answers] == [answer.error is None for answer in answers]
    assert (found.images, found.failed, len(found.skipped)) == (11, 3, 1)
    assert found.skipped.lines()[0].endswith(f"): {photos / 'notes.txt'}") and found.seconds > 0


def test_answers_come_batch_by_batch(export, photos):
    found = iter(predictions.classify(export, [photos], batch_size=2))
    first = next(found)
    (photos / "more" / "6.png").write_bytes(b"")
    rest = list(found)
    assert first.error is None and rest[-1].error == "The file is empty."


def test_the_batch_size_changes_no_answer(export, photos):
    once, many = (list(predictions.classify(export, [photos], batch_size=n)) for n in (1, 100))
    assert [answer.image for answer in once] == [answer.image for answer in many]
    for one, other in zip(once, many, strict=True):
        assert one.error == other.error
        assert [g.number for g in one.top] == [g.number for g in other.top]


class TestModels:
    def test_the_highest_version_of_a_model_is_taken(self, export, photos, tmp_path):
        shutil.copytree(export, tmp_path / "tiny")
        shutil.copytree(export / "2", tmp_path / "tiny" / "10")
        model = classifiers.open_export(tmp_path / "tiny")
        assert model.path == tmp_path / "tiny" / "10" and model.name == "tiny/10"

    def test_names_come_from_the_labels_the_card_or_the_model(self, export, photos, tmp_path):
        shutil.copytree(export / "2", tmp_path / "1")
        (tmp_path / "1" / "labels.txt").unlink()
        first = self.names(tmp_path / "1", photos)
        assert first[0] in NAMES and set(first[1:]) < {"0", "1", "2"}
        onnx_first = self.names(tmp_path / "1" / FILES["ONNX"], photos)
        assert set(onnx_first) == {"0", "1", "2"}
        card = {"preprocessing": {"image_size": 12}, "data": {"classes": ["x", "y", "z"]}}
        (tmp_path / "1" / "model_card.json").write_text(json.dumps(card))
        assert set(self.names(tmp_path / "1" / FILES["ONNX"], photos)) == {"x", "y", "z"}
        assert classifiers.open_export(tmp_path / "1").image_size == 12

    @staticmethod
    def names(model, photos):
        [answer] = predictions.classify(model, [photos / "0.png"])
        return [guess.name for guess in answer.top]

    @pytest.mark.parametrize(
        ("file", "text", "says"),
        [
            ("labels.txt", "one\ntwo\n", "3 classes apart and has 2 names"),
            ("labels.txt", b"\xff\xfe\n", "labels.txt cannot be read"),
            ("model_card.json", "{", "model_card.json is damaged"),
            ("model_card.json", "[1]", "model_card.json is damaged"),
            ("model_card.json", '{"preprocessing": {"image_size": -3}}', "at least 1"),
            ("model.onnx", "junk", "Cannot read the model"),
            ("model.float32.tflite", "junk", "Cannot read the model"),
            ("saved_model.pb", "junk", "no whole SavedModel"),
        ],
    )
    def test_damage_is_told_in_one_line(self, export, photos, tmp_path, file, text, says):
        shutil.copytree(export / "2", tmp_path / "1")
        path = tmp_path / "1" / file
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        model = path if path.suffix in (".onnx", ".tflite") else tmp_path / "1"
        with pytest.raises(UsageError, match=says) as caught:
            predictions.classify(model, [photos])
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("model", ["missing", "photos", "photos/notes.txt", "photos/0.png"])
    def test_what_is_no_model_is_told_in_one_line(self, photos, tmp_path, model):
        with pytest.raises(UsageError, match="A model must be a folder"):
            predictions.classify(tmp_path / model, [photos])

    def test_a_foreign_saved_model_is_told_in_one_line(self, photos, tmp_path):
        small_network().export(tmp_path / "foreign", verbose=False)
        with pytest.raises(UsageError, match="it must take `image`"):
            predictions.classify(tmp_path / "foreign", [photos])

    def test_a_saved_model_that_reads_files_needs_trust(self, photos, tmp_path):
        class Reader(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE), tf.uint8, "image")])
            def serve(self, image):
                size = tf.strings.length(tf.io.read_file(str(photos / "notes.txt")))
                logits = tf.cast(tf.stack([tf.reduce_sum(image, (1, 2, 3))] * 2, 1), tf.float32)
                logits += tf.cast(size, tf.float32)
                names = {"logits": logits, "probabilities": tf.nn.softmax(logits)}
                return {**names, "class_id": tf.argmax(logits, 1, tf.int32)}

        module = Reader()
        tf.saved_model.save(module, str(tmp_path / "reads"), {"serving_default": module.serve})
        with pytest.raises(UsageError, match="--allow-unsafe"):
            predictions.classify(tmp_path / "reads", [photos])
        found = predictions.classify(tmp_path / "reads", [photos / "0.png"], allow_unsafe=True)
        assert [answer.top[0].probability for answer in found] == [0.5]

    def test_a_model_of_any_size_is_given_the_size_in_its_card_or_the_images_own(
        self, photos, network, tmp_path
    ):
        saved_model.write(network, tmp_path / "any", SHAPE, NAMES, resize=True)
        Image.fromarray(pixels(1, (30, 20, 3))[0]).save(photos / "large.png")
        Image.fromarray(pixels(1, (1, 4000, 3))[0]).resize((400_000, 1)).save(photos / "long.png")
        paths = [photos / name for name in ("0.png", "large.png", "long.png", "1.png")]
        answers = []
        for card in ({}, {"preprocessing": {"height": 8, "width": 8}}):
            (tmp_path / "any" / "model_card.json").write_text(json.dumps(card))
            answers.append(list(predictions.classify(tmp_path / "any", paths)))
        for one, other in zip(*answers, strict=True):
            assert [g.number for g in one.top] == [g.number for g in other.top]
        assert [bool(answer.error) for answer in answers[0]] == [False, False, True, False]
        assert "400000" in answers[0][2].error
        assert "too unequal" in answers[1][2].error

    def test_a_model_of_grey_images_is_given_grey_ones(self, photos, tmp_path):
        network = small_network(channels=1)
        network.save(tmp_path / "grey.keras")
        [answer] = predictions.classify(tmp_path / "grey.keras", [photos / "0.png"])
        grey = tf.io.decode_png((photos / "0.png").read_bytes(), channels=1).numpy()
        assert answer.top[0].probability == pytest.approx(expected(network, grey[None]).max())


class TestKeras:
    def test_the_network_of_a_run_knows_its_classes_and_its_size_of_images(self, photos, tmp_path):
        run = tmp_path / "out" / "runs" / "one"
        run.mkdir(parents=True)
        inputs = keras.Input((16, 16, 1))
        outputs = keras.layers.Dense(10)(keras.layers.Flatten()(inputs / 255.0))
        network = keras.Model(inputs, outputs)
        network.save(run / "best.keras")
        data = DataConfig("digits", input_size=16)
        config = to_dict(RunConfig("one", "row", 0, data, ModelConfig(), TrainingConfig()))
        figures = {"validation_accuracy": 0.1, "test_accuracy": 0.1}
        record = records.Record("one", "row", 0, "key", config, best=figures, last=figures)
        records.write(run, record)
        model = classifiers.open_export(run / "best.keras")
        assert model.class_names == tuple("0123456789")
        assert (model.shape, model.image_size) == ((16, 16, 1), 8)
        config["data"]["source"] = "folder:/gone"
        records.write(run, record)
        assert classifiers.open_export(run / "best.keras").class_names == tuple("0123456789")
        (run / "record.json").write_text("{")
        with pytest.raises(UsageError, match="record.json is damaged"):
            classifiers.open_export(run / "best.keras")

    def test_a_softmax_in_the_network_is_not_taken_twice(self, photos, tmp_path):
        network = small_network(softmax=True)
        network.save(tmp_path / "own.keras")
        [answer] = predictions.classify(tmp_path / "own.keras", [photos / "0.png"])
        right = network(pixels(7)[:1].astype("float32"))
        assert answer.top[0].probability == pytest.approx(float(np.max(right)), abs=1e-6)

    def test_pixels_of_another_range_are_asked_for(self, photos, network, tmp_path):
        """What was trained on 0..1 is another network than the same weights on 0..255."""
        inputs = keras.Input(SHAPE)
        outputs = network.layers[-1](network.layers[-2](network.layers[-3](inputs)))
        keras.Model(inputs, outputs).save(tmp_path / "unit.keras")
        network.save(tmp_path / "full.keras")

        def top(name, **range):
            found = predictions.classify(tmp_path / name, [photos / "0.png"], **range)
            ((answer,), said) = list(found), output.summary(found)
            return answer.top[0], any("which pixels it expects" in line for line in said)

        right, told = top("full.keras")
        assert told
        assert top("unit.keras", pixel_range=[0, 1]) == (right, False)
        assert top("unit.keras")[0] != right

    @pytest.mark.parametrize("name", ["SavedModel", "LiteRT"])
    def test_an_export_has_its_own_pixels(self, export, photos, name):
        path = export / "2" / FILES[name]
        with pytest.raises(UsageError, match="takes pixels 0..255. Received: pixel_range=.0, 1."):
            predictions.classify(path, [photos / "0.png"], pixel_range=[0, 1])
        assert not classifiers.open_export(path).assumed

    def test_code_in_a_file_needs_trust(self, photos, tmp_path):
        inputs = keras.Input(SHAPE)
        x = keras.layers.Flatten()(keras.layers.Lambda(lambda x: x * 2)(inputs))
        keras.Model(inputs, keras.layers.Dense(3)(x)).save(tmp_path / "code.keras")
        with pytest.raises(UsageError, match="--allow-unsafe"):
            predictions.classify(tmp_path / "code.keras", [photos])
        [answer] = predictions.classify(
            tmp_path / "code.keras", [photos / "0.png"], allow_unsafe=True
        )
        assert len(answer.top) == 3

    def test_damage_and_other_inputs_are_told_in_one_line(self, photos, tmp_path):
        (tmp_path / "junk.keras").write_text("junk")
        flat = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
        flat.save(tmp_path / "flat.keras")
        for name, says in (("junk", "Cannot use the model"), ("flat", "takes inputs of")):
            with pytest.raises(UsageError, match=says):
                predictions.classify(tmp_path / f"{name}.keras", [photos])


def test_an_answer_that_is_no_number_is_an_error_of_its_image(photos, tmp_path):
    network = small_network()
    network.layers[-1].bias.assign([np.nan] * 3)
    network.save(tmp_path / "nan.keras")
    found = predictions.classify(tmp_path / "nan.keras", [photos / "0.png"])
    assert [answer.error for answer in found] == ["The model's answer is no number."]
    assert found.failed == 1


@pytest.mark.parametrize("what", ["empty", "notes", "none"])
def test_without_any_image_there_is_one_line(export, tmp_path, what):
    folder = tmp_path / "folder"
    folder.mkdir()
    if what == "notes":
        (folder / "a.txt").touch()
    with pytest.raises(UsageError, match="There is no image to classify"):
        predictions.classify(export, [] if what == "none" else [folder])


@pytest.mark.parametrize("settings", [{"top": 0}, {"batch_size": 0}])
def test_settings_are_checked(export, photos, settings):
    with pytest.raises(UsageError, match="at least 1"):
        predictions.classify(export, [photos], **settings)


class TestOutput:
    @pytest.fixture
    def odd(self, photos):
        """Files whose names could mislead a terminal or a table."""
        names = [
            "[red]a[bold].png",
            "two\nlines.png",
            "\x1b[31mred.png",
            'quo"te,.png',
            "Käfer.png",
        ]
        names.append(os.fsdecode(b"caf\xe9.png"))
        for name in names:
            shutil.copy(photos / "0.png", photos / name)
        return photos

    def written(self, export, paths, format, **settings):
        file = io.StringIO()
        answers = predictions.classify(export, paths, **settings)
        output.write(answers, format, file)
        return file.getvalue()

    def test_json(self, export, odd):
        rows = json.loads(self.written(export, [odd], "json", batch_size=2, top=2))
        by_name = {Path(row["image"]).name: row for row in rows}
        assert {"two\nlines.png", "\x1b[31mred.png", "caf\\xe9.png", "Käfer.png"} < set(by_name)
        assert set(by_name["broken.png"]) == {"image", "error"}
        row = by_name["0.png"]
        assert set(row) == {"image", "class", "class_id", "probability", "top"}
        assert row["top"][0] == {key: row[key] for key in ("class", "class_id", "probability")}
        assert len(row["top"]) == 2 and row["class"] == NAMES[row["class_id"]]

    def test_csv(self, export, odd):
        text = self.written(export, [odd], "csv", top=5)
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert list(rows[0])[:4] == ["image", "class", "class_id", "probability"]
        assert "class_3" in rows[0] and "class_4" not in rows[0]
        by_name = {Path(row["image"]).name: row for row in rows}
        assert {"two\\nlines.png", 'quo"te,.png', "caf\\xe9.png"} < set(by_name)
        assert "\x1b" not in text and r"\x1b[31mred.png" in by_name
        assert by_name["broken.png"]["class"] == "" and "no JPEG" in by_name["broken.png"]["error"]
        shares = [float(by_name["0.png"][f"probability{rank}"]) for rank in ("", "_2", "_3")]
        assert sum(shares) == pytest.approx(1, abs=1e-4) and shares == sorted(shares)[::-1]

    def test_no_name_of_a_csv_file_is_a_formula(self, export, photos, tmp_path, monkeypatch):
        model = shutil.copy(export / "2" / FILES["ONNX"], tmp_path)
        (tmp_path / "labels.txt").write_text("=1+1\n-3\n@SUM(1)\n")
        monkeypatch.chdir(photos)
        shutil.copy("0.png", "+cmd.png")
        [row] = csv.DictReader(io.StringIO(self.written(model, ["+cmd.png"], "csv"), newline=""))
        assert row["image"] == "'+cmd.png" and float(row["probability"]) > 0
        names = {row[f"class{rank}"] for rank in ("", "_2", "_3")}
        assert names == {"'=1+1", "'-3", "'@SUM(1)"}

    @pytest.mark.parametrize("top", [1, 3])
    def test_a_table_is_80_columns_wide_and_obeys_no_name(self, export, odd, top):
        long = odd / ("very" * 20) / "long.png"
        long.parent.mkdir()
        shutil.copy(odd / "0.png", long)
        text = self.written(export, [odd], "table", top=top)
        table = text.partition("Failed:")[0].splitlines()
        assert max(map(len, table)) <= 80
        assert any(line.startswith("…") and "long.png " in line for line in table)
        assert "[red]a[bold].png" in text and "\x1b" not in text and "\\x1b[31mred.png" in text
        assert "two\\nlines.png" in text and "caf\\xe9.png" in text
        failed = text.partition("Failed:")[2].splitlines()
        assert "broken.png: It is no JPEG" in failed[1]
        assert "15 images, 1 failed." in text and "tiny/2 (SavedModel)" in text
        assert "Skipped 1 (without an image's ending" in text

    def test_a_file_appears_whole_or_not_at_all(self, export, photos, tmp_path, capsys):
        path = tmp_path / "new" / "answers.csv"
        assert output.run(export, [photos], format="csv", output=str(path)) == 1
        with open(path, newline="") as file:
            assert len(list(csv.reader(file))) == 9
        assert os.listdir(path.parent) == ["answers.csv"]
        assert "8 images, 1 failed." in capsys.readouterr().out
        with pytest.raises(UsageError, match="a folder"):
            output.run(export, [photos], output=str(tmp_path))
        with pytest.raises(UsageError, match="Cannot write"):
            output.run(export, [photos], output=str(photos / "0.png" / "x.csv"))

    def test_the_status_tells_whether_all_was_answered(self, export, photos, capsys):
        assert output.run(export, [photos / "0.png"], format="json") == 0
        printed = capsys.readouterr()
        assert len(json.loads(printed.out)) == 1 and "1 image, 0 failed." in printed.err
        assert output.run(export, [photos / "notes.txt"]) == 1
        with pytest.raises(UsageError, match="format must be one of"):
            output.run(export, [photos], format="xml")


def test_a_reader_that_leaves_early_is_no_error(export, photos):
    arguments = [
        str(export / "2" / FILES["ONNX"]),
        *[str(photos / "0.png")] * 500,
        "--format",
        "csv",
    ]
    command = [sys.executable, "-m", "tfdistill", "predict", *arguments]
    # The answers are several times what the pipe and the reader's buffer hold.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, pipesize=4096
    )
    assert process.stdout.readline().startswith("image,class")
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141 and "Traceback" not in said and "Exception" not in said
