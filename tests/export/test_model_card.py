"""Model cards: strict JSON, and a page that people can read and copy from."""

import dataclasses
import json
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import keras
import numpy as np
import pytest
from PIL import Image

from tfdistill.config import DataConfig, DistillationConfig, FeatureConfig, to_dict
from tfdistill.data import from_arrays
from tfdistill.export import litert, model_card, onnx, saved_model
from tfdistill.export.model_card import Facts
from tfdistill.export.verify import Check, Figures
from tfdistill.records import Record
from tfdistill.utils.checks import UsageError

WHEN = datetime(2025, 3, 1, 13, 30, 59, 7, timezone(timedelta(hours=1)))


def file(path, size, sha256):
    return {"path": path, "bytes": size, "sha256": sha256}


SAVED = [file("saved_model.pb", 120_000, "ab" * 32), file("variables/v.index", 1_400, "cd" * 32)]
BEST = {
    "epoch": 19.0,
    "validation_accuracy": 0.975,
    "test_accuracy": 0.95859,
    "test_nll": 0.15285,
    "test_brier": 0.07263,
    "test_ece": 0.01448,
    "test_ece_equal_mass": 0.01665,
    "test_agreement": 0.98243,
    "test_teacher_kl": float("nan"),
}


def images(class_names=("zero", "one", "two"), name="digits", input_size=None):
    labels = np.arange(8 * len(class_names)) % len(class_names)
    pixels = np.zeros((len(labels), 8, 8, 1), np.uint8)
    test = 3 * len(class_names)
    config = DataConfig("arrays", validation=0.25, normalize=[0.5, 0.25], input_size=input_size)
    made = from_arrays((pixels, labels), (pixels[:test], labels[:test]), config, class_names)
    return dataclasses.replace(made, name=name)


def run(name, **changes):
    config = {"name": name, "model": {"name": "cnn2", "width": 0.5}, "trained": True}
    config |= {"data": {"source": "folder:/home/me/cats", "data_dir": "/srv/tfds"}, "members": ()}
    config["training"] = {"select": "best", "epochs": 80, "optimizer": "adam", "batch_size": 32}
    config["training"] |= {"learning_rate": 0.005, "schedule": "cosine", "precision": "float32"}
    values = {"best": BEST, "last": {"test_accuracy": 0.9}, "parameters": 6090, "seconds": 8.7}
    values |= {"device": "CPU, 2 cores", "config": config | changes}
    return Record(name, "row of " + name, seed=3, key="k", **values)


def check(format, signature="serving_default", **changes):
    values = {"images": 9, "difference": 2.4e-7, "probability_difference": 1e-8}
    values |= {"largest_logit": 23.42, "agreement": 1.0, "accuracy": 0.95859}
    values |= {"network_accuracy": 0.95859}
    return Check(format=format, signature=signature, **values | changes)


def facts(**changes):
    values = {"name": "digits-student", "version": 2, "key": "k", "kind": "network"}
    values |= {"created": WHEN, "versions": {"keras": "3.15.1"}, "licence": "CC-BY-4.0"}
    values |= {"images": images(), "resize": False, "checks": ()}
    values |= {"files": {"savedmodel": SAVED}, "parameters": 6090}
    return Facts(**values | changes)


def full(**changes):
    taught = DistillationConfig(
        alpha=1.0, temperature=2.0, features=[FeatureConfig("hints", 100.0, "a", "b")]
    )
    student = run("distilled-0", distillation=to_dict(taught))
    files = {"savedmodel": SAVED, "litert-int8": [file("model.int8.tflite", 12_345, "ef" * 32)]}
    checks = [
        check("savedmodel"),
        check("savedmodel", "bytes"),
        check("litert-int8", difference=0.96, agreement=0.98, accuracy=0.9523),
    ]
    values = {"kind": "student", "files": files, "checks": checks, "flops": 168_448}
    values |= {"record": student, "figures": Figures.of(student, 9)}
    values |= {"teachers": [run("single-0"), run("single|1")]}
    return facts(**values | changes)


def page_of(given):
    return model_card.markdown(json.loads(json.dumps(model_card.card(given), allow_nan=False)))


def rows_of(page, heading):
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("given", [facts(), full()], ids=["minimal", "full"])
def test_a_card_is_strict_json(given):
    card = model_card.card(given)
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_what_is_no_number_is_null():
    checks = [check("savedmodel", difference=float("inf"), accuracy=np.float32(0.5))]
    card = model_card.card(full(checks=checks))
    assert card["figures"]["values"]["teacher_kl"] is None
    found = card["formats"]["savedmodel"]["checks"][0]
    assert (found["difference"], found["accuracy"]) == (None, 0.5)


def test_a_card_holds_what_was_measured():
    card = model_card.card(full())
    assert card["created"] == "2025-03-01T12:30:59Z"
    figures = card["figures"]
    assert (figures["weights"], figures["epoch"], figures["images"]) == ("best", 19, 9)
    assert figures["values"]["accuracy"] == 0.95859 and figures["validation_accuracy"] == 0.975
    saved, int8 = card["formats"]["savedmodel"], card["formats"]["litert-int8"]
    assert (saved["bytes"], int8["bytes"]) == (121_400, 12_345)
    assert saved["files"][1]["sha256"] == "cd" * 32
    assert [one["signature"] for one in saved["checks"]] == ["serving_default", "bytes"]
    assert (saved["checks"][0]["tolerance"], int8["checks"][0]["tolerance"]) == (1e-4, None)
    assert card["training"]["run"] == "distilled-0" and card["training"]["epochs"] == 80


def test_figures_are_of_the_weights_that_were_exported():
    figures = Figures.of(run("a"), 9, part="last")
    assert figures == Figures({"accuracy": 0.9}, 9, "last")


def test_the_settings_of_a_distillation_that_matter_are_told():
    taught = model_card.card(full())["distilled_from"]
    assert taught["teachers"][0] == {
        "run": "single-0",
        "row": "row of single-0",
        "network": "cnn2 (width 0.5)",
        "parameters": 6090,
        "weights": "best",
        "test_accuracy": 0.95859,
    }
    assert {key: value for key, value in taught["settings"].items() if key != "features"} == {
        "loss": "soft_targets",
        "alpha": 1.0,
        "temperature": 2.0,
        "scale_by_t2": True,
        "average": "probabilities",
    }
    assert taught["settings"]["features"][0]["loss"] == "hints"


@pytest.mark.parametrize("loss, told", [("decoupled", True), ("dist", False)])
def test_beta_is_told_where_it_counts(loss, told):
    taught = run("a", distillation=to_dict(DistillationConfig(loss=loss)))
    settings = model_card.card(full(record=taught))["distilled_from"]["settings"]
    assert ("beta" in settings) == told


def test_folders_of_the_machine_are_left_out():
    card = model_card.card(full(images=images(name="folder:/home/me/cats")))
    assert card["data"]["source"] == "folder:cats"
    assert card["configuration"]["data"] == {"source": "folder:cats", "data_dir": "tfds"}
    assert "/home" not in json.dumps(card) and "/srv" not in json.dumps(card)


def test_signatures_of_the_formats():
    signatures = model_card.card(full(resize=True))["signatures"]
    assert signatures["savedmodel"]["serving_default"]["inputs"] == {
        "image": {"dtype": "uint8", "shape": ["n", None, None, 1]}
    }
    assert list(signatures["savedmodel"]["bytes"]["inputs"]) == ["image_bytes"]
    lite = signatures["litert-int8"]
    assert list(lite) == ["serving_default"]
    assert lite["serving_default"]["inputs"]["image"]["shape"] == ["n", 8, 8, 1]
    outputs = lite["serving_default"]["outputs"]
    assert list(outputs) == ["logits", "probabilities", "class_id"]
    assert outputs["logits"] == {"dtype": "float32", "shape": ["n", 3]}


@pytest.mark.parametrize(
    "model, mean",
    [({"name": "cnn2"}, [127.5]), ({"name": "saved"}, None), ({"name": "keras:VGG16"}, None)],
)
def test_normalisation_is_told_where_it_is_known(model, mean):
    card = model_card.card(full(record=run("a", model=model, distillation=None)))
    assert card["preprocessing"]["normalisation"]["mean"] == mean


def test_resizing_is_told_in_the_order_it_is_done():
    text = model_card.card(facts(images=images(input_size=16)))["preprocessing"]["resizing"]
    assert "shorter side to 8 pixels" in text and text.endswith("the centre 8x8, then to 16x16")


def test_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match="kind must be one of: student, teacher"):
        facts(kind="pupil")


def test_the_page_of_a_student():
    page = page_of(full())
    assert page.startswith(
        "# digits-student, version 2\n\nA cnn2 (width 0.5) of 6,090 parameters for 8x8 grey images "
        "of 3 classes, distilled from 2 teachers.\n\n"
    )
    assert rows_of(page, "Figures") == [
        "| figure | value |",
        "| --- | ---: |",
        "| accuracy | 95.86 % |",
        "| negative log-likelihood, nats | 0.1529 |",
        "| Brier score | 0.0726 |",
        "| calibration error, 15 bins of equal width | 1.45 % |",
        "| calibration error, 15 bins of equal mass | 1.67 % |",
        "| same class as the teacher | 98.24 % |",
        "| KL from the teacher, nats | – |",
        "| accuracy on the 6 validation images | 97.50 % |",
    ]
    assert rows_of(page, "Formats")[2:] == [
        "| SavedModel | this folder | 121 kB | 9 | 2.4e-07 | 100.00 % | 95.86 % |",
        "| SavedModel, `bytes` |  |  | 9 | 2.4e-07 | 100.00 % | 95.86 % |",
        "| LiteRT int8 | model.int8.tflite | 12.3 kB | 9 | 0.96 | 98.00 % | 95.23 % |",
    ]
    assert "| single\\|1 | cnn2 (width 0.5) | 6,090 | 95.86 % |" in page
    assert "features (loss hints, weight 100, teacher\\_layer a, student\\_layer b), from:" in page
    assert "best validation epoch (19)" in page and "by mean 127.5 and deviation 63.75" in page


def test_the_page_says_where_the_weights_are_an_average():
    facts = full()
    training = facts.record.config["training"] | {"ema": 0.99}
    record = dataclasses.replace(facts.record, config=facts.record.config | {"training": training})
    averaged = dataclasses.replace(facts, record=record)
    said = "moving average over the steps, of decay 0.99."
    assert said in page_of(averaged) and "moving average" not in page_of(facts)


def test_the_page_of_an_ensemble_without_a_run():
    page = page_of(facts(kind="ensemble", members=[run("single-0"), run("single-1")]))
    assert "An ensemble of 2 networks of 6,090 parameters" in page
    assert "The average of the probabilities of:" in page and "not recorded" not in page
    assert "by mean 127.5" in page


def test_the_page_of_a_file_of_ones_own():
    page = page_of(facts())
    assert "Not measured." in page and "Its training is not recorded here." in page
    assert "Whether the network was trained on them is not recorded." in page
    assert "| SavedModel | this folder | 121 kB | not checked |" in page
    assert "LiteRT" not in page and "by mean" not in page and "None" not in page


@pytest.mark.parametrize("given", [facts(), full()], ids=["minimal", "full"])
def test_pages_have_no_gaps_and_whole_tables(given):
    page = page_of(given)
    assert "\n\n\n" not in page and page.endswith("CC-BY-4.0\n") and " \n" not in page
    blocks = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    assert all(re.match(r"\| -", block.splitlines()[1]) for block in blocks)
    bars = [
        {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()} for block in blocks
    ]
    assert all(len(counts) == 1 for counts in bars)


def test_many_classes_are_counted():
    page = page_of(facts(images=images([f"kind{i}" for i in range(100)])))
    assert "kind19 and 80 more, see `labels.txt`." in page and "kind20" not in page
    assert len(model_card.card(facts(images=images(["a", "b"])))["data"]["classes"]) == 2


def test_names_are_escaped():
    names = ("\x1b[31mred", "<b>a|b</b>", "*x* `y`\n# z", "[l](http://h)")
    page = page_of(facts(images=images(names), licence="a\n| b"))
    shown = r"Classes: \\x1b\[31mred, \<b\>a\|b\</b\>, \*x\* \`y\` \# z, \[l\](http://h)."
    assert shown in page
    assert r"| licence | a \| b |" in page


def test_rest_snippet_sends_json(tmp_path):
    (tmp_path / "image.png").write_bytes(b"\x89PNG" * 100)
    snippet = re.search(r"```sh\n(.*?)```", page_of(full()), re.DOTALL)[1]
    ask = f'curl() {{ echo "$3" >&2; cat; }}\n{snippet}'
    done = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, check=True)
    assert done.stderr == b"http://localhost:8501/v1/models/digits-student:predict\n"
    asked = json.loads(done.stdout)
    assert asked["signature_name"] == "bytes"
    assert len(asked["instances"][0]["image_bytes"]["b64"]) == 536


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return a folder with a network of 3 classes that says `two` of a black image."""
    folder = tmp_path_factory.mktemp("export")
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(inputs))
    network = keras.Model(inputs, outputs)
    network.layers[-1].bias.assign([0.0, 0.0, 1.0])
    saved_model.write_numeric(network, folder / "numeric", (8, 8, 1))
    litert.convert(folder / "numeric", folder / "model.float32.tflite", "float32")
    onnx.convert(folder / "numeric", folder / "model.onnx", ("zero", "one", "two"))
    (folder / "labels.txt").write_text("zero\none\ntwo\n")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "image.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("format", ["litert-float32", "onnx"])
def test_snippets_run_in_the_folder(exported, format):
    name = {"litert-float32": "model.float32.tflite", "onnx": "model.onnx"}[format]
    page = page_of(facts(files={format: [file(name, 1, "ab")]}))
    [snippet] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=exported, capture_output=True, text=True, check=True
    )
    assert done.stdout == "two\n"
