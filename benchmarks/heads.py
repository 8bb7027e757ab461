"""Measure what a teacher's new head should be: which of its logits teach best, and fine-tuning.

Five breeds of ImageWoof; of 1,200 photos either 200 have labels or all. Every seed draws its own
photos, labels, initial weights and batches, the same in all rows.

* `logits`: a student (`cnn4` at 48 pixels, as `tfdistill distill` trains it) learns from the head's
  logits `as fitted`, from those of labelled photos `out of fold` (heads fitted to four fifths each,
  the whole head for photos without labels), and from a head with a `penalty x 10`;
* `tuning`: test accuracy of the linear head, and of the network fine-tuned from there, its last
  layers or all, and what that costs.

    python benchmarks/heads.py logits --teacher imagenet.keras --output heads.json
    python benchmarks/heads.py tuning --teacher imagenet.keras --output tuning.json

Give `--archive imagewoof2-160.tgz` where ImageWoof is not prepared yet.
"""

import argparse
import itertools
import json
import resource
from pathlib import Path

import keras
import numpy as np
import scipy.special
import scipy.stats

from tfdistill import Distiller, data, models
from tfdistill.config import AugmentConfig, DataConfig, ModelConfig, TrainingConfig
from tfdistill.data import pipeline
from tfdistill.distillation import schedules
from tfdistill.models import saved
from tfdistill.models.logits import features_network
from tfdistill.training import evaluation, heads, learners
from tfdistill.utils import machine

BREEDS = ("beagle", "dingo", "golden_retriever", "old_english_sheepdog", "shih_tzu")
PHOTOS, LABELLED = 1200, 200
TEACHER_SIZE, STUDENT_SIZE, BATCH = 128, 48, 50
ALPHA, TEMPERATURE = 0.9, 4.0
FITTED, OUT_OF_FOLD, STRONGER = "as fitted", "out of fold", "penalty x 10"
LINEAR = "linear head"


def cpu_seconds() -> float:
    """Return the user CPU time of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def all_photos(given: argparse.Namespace) -> tuple[data.Examples, data.Examples]:
    """Return the training and test photos of the five breeds, numbered, with labels 0 to 4."""
    config = DataConfig(
        "imagewoof",
        data_dir=given.data_dir,
        archive=given.archive,
        image_size=TEACHER_SIZE,
        validation=10,
    )
    whole = data.load(config)
    numbers = [whole.class_names.index(breed) for breed in BREEDS]
    found = []
    for part in (whole.train, whole.test):
        mine = np.flatnonzero(np.isin(part.labels, numbers))
        labels = [numbers.index(label) for label in part.labels[mine]]
        found.append(data.Examples.numbered(part.images[mine], np.array(labels)))
    return found[0], found[1].evenly(given.test or len(found[1]))


def of_seed(train: data.Examples, test: data.Examples, labelled: int, seed: int):
    """Return places of a seed's photos, the data set of them, and how they were parted."""
    places = data.splits.stratified(train.labels, PHOTOS, seed, data.splits.SUBSET)
    held = labelled // 10
    config = DataConfig(
        "arrays",
        validation=held,
        labelled_examples=labelled - held,
        split_seed=seed,
        normalize=[0.5, 0.25],
    )
    pair = (train.images[places], train.labels[places])
    return places, data.from_arrays(pair, (test.images, test.labels), config, BREEDS), config


def taught_by(features: np.ndarray, images: data.Dataset) -> tuple[dict[str, np.ndarray], dict]:
    """Return logits of all training photos by row, `[n, 5]` each, and figures of the heads.

    Args:
        features: Of the seed's photos by their id, `[ids, features]`.
        images: Those photos.
    """
    train, held = images.train, images.validation
    known = train.labelled
    x, y = features[train.ids[known]], train.labels[known]
    every, others = features[train.ids], (features[held.ids], held.labels)
    head = heads.linear(x, y, *others)
    found = {FITTED: head.logits(every)}
    found[OUT_OF_FOLD] = found[FITTED].copy()
    for fit, rest in heads.folds(y):
        part = heads.linear(x[fit], y[fit], *others, strengths=[head.strength])
        found[OUT_OF_FOLD][known[rest]] = part.logits(x[rest])
    stronger = heads.linear(x, y, *others, strengths=[head.strength / 10])
    found[STRONGER] = stronger.logits(every)
    figures = {
        name: {
            "accuracy_on_labelled": float((logits[known].argmax(1) == y).mean()),
            "confidence_on_labelled": float(
                scipy.special.softmax(logits[known], axis=1).max(1).mean()
            ),
        }
        for name, logits in found.items()
    }
    return found, {
        "strength": head.strength,
        "heads": {FITTED: head, STRONGER: stronger},
        **figures,
    }


class Student:
    """A student that is trained again and again in one compiled step."""

    def __init__(self, steps: int):
        self.steps = steps
        self._distiller = self._kept = None

    def accuracy(self, images: data.Dataset, logits: np.ndarray, seed: int) -> float:
        """Return test accuracy after training on `logits`."""
        keras.utils.set_random_seed(seed)
        shape = (STUDENT_SIZE, STUDENT_SIZE, 3)
        fresh = models.build(
            ModelConfig("cnn4", dropout=0.0), shape, len(BREEDS), images.mean, images.std
        )
        if self._kept is None:
            self._kept = learners.Learners([self._compiled(fresh)])
        else:
            self._kept.restart([fresh])
        distiller, train = self._kept.each[0], images.train
        stored = np.zeros((1, int(train.ids.max()) + 1, len(BREEDS)), "float32")
        stored[0, train.ids] = logits
        settings = pipeline.BatchSettings(
            BATCH,
            seed,
            AugmentConfig(resized_crop=0.5, flip=True),
            input_size=STUDENT_SIZE,
        )
        batches = pipeline.training_batches(
            train,
            settings,
            epochs=1,
            steps=self.steps,
            teacher_logits=stored,
            teacher_view="fixed",
        )
        distiller.fit(batches, steps_per_epoch=self.steps, shuffle=False, verbose=0)
        answers = evaluation.predict(distiller, images.test, settings)
        return float((answers.argmax(1) == images.test.labels).mean())

    def _compiled(self, network: keras.Model) -> Distiller:
        distiller = Distiller(network, alpha=ALPHA, temperature=TEMPERATURE)
        training = TrainingConfig(
            epochs=1, steps=self.steps, learning_rate=0.002, schedule="cosine"
        )
        distiller.compile(
            keras.optimizers.Adam(schedules.learning_rate(training, self.steps)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=machine.uses_xla("auto"),
        )
        return distiller


def logits_part(given: argparse.Namespace) -> dict:
    """Return students' accuracies by number of labels and row."""
    began = cpu_seconds()
    train, test = all_photos(given)
    network = features_network(saved.whole(given.teacher))
    every = [
        network.predict(part.images, BATCH, verbose=0).astype("float64") for part in (train, test)
    ]
    print(f"{len(train)} + {len(test)} photos, features in {cpu_seconds() - began:.0f} CPU seconds")
    student, lines = Student(given.steps), []
    for labelled, seed in itertools.product(given.labelled, range(given.seeds)):
        places, images, _ = of_seed(train, test, labelled, seed)
        logits, about = taught_by(every[0][places], images)
        for name, head in about.pop("heads").items():
            right = head.logits(every[1]).argmax(1) == test.labels
            about[name]["test_accuracy"] = float(right.mean())
        line = {"seed": seed, "labelled": labelled, **about, "student": {}}
        for name, taught in logits.items():
            line["student"][name] = student.accuracy(images, taught, seed)
        print(seed, labelled, line["student"], f"{cpu_seconds() - began:.0f} CPU s", flush=True)
        lines.append(line)
    return {"steps": given.steps, "runs": lines, "cpu_seconds": cpu_seconds() - began}


SEEN = 3000  # images that a network is fine-tuned with, again and again
# Rows of `tuning`: the last so many layers (None: all), learning rate.
TUNED = {
    "last 3 layers, 5e-4": (3, 5e-4),
    "all layers, 1e-4": (None, 1e-4),
    "all layers, 5e-4": (None, 5e-4),
}


def tuning_part(given: argparse.Namespace) -> dict:
    """Return test and validation accuracy and CPU seconds of the linear head and what goes on."""
    train, test = all_photos(given)
    lines = []
    for labelled, seed in itertools.product(given.labelled, range(given.seeds)):
        places, _, config = of_seed(train, test, labelled, seed)
        pair = (train.images[places], train.labels[places])
        images = data.from_arrays(pair, (test.images, test.labels), config.labelled_only, BREEDS)
        line = {"seed": seed, "labelled": labelled}
        for name, (layers, rate) in TUNED.items():
            keras.utils.set_random_seed(seed)
            machine.clear_session()
            how = ModelConfig(
                "saved", path=str(given.teacher), fine_tune=True, trained_layers=layers
            )
            began = cpu_seconds()
            network = evaluation.build(how, images)
            heads.fit_head(network, images)
            taken = cpu_seconds() - began
            if LINEAR not in line:
                line[LINEAR] = {"cpu_seconds": taken, **accuracies(network, images)}
            began = cpu_seconds()
            tuned(network, images, rate, seed)
            taken = cpu_seconds() - began
            line[name] = {"cpu_seconds": taken, **accuracies(network, images)}
            print(seed, labelled, name, line[LINEAR], line[name], flush=True)
        lines.append(line)
    return {"images_seen": SEEN, "runs": lines}


def tuned(network: keras.Model, images: data.Dataset, rate: float, seed: int) -> None:
    """Fine-tune a network as `tfdistill train` does with a configuration of `teachers/`."""
    epochs = round(SEEN / len(images.train))
    settings = pipeline.BatchSettings(BATCH, seed, AugmentConfig(flip=True))
    steps = pipeline.steps_per_epoch(len(images.train), BATCH)
    training = TrainingConfig(
        epochs=epochs, learning_rate=rate, warmup_epochs=0.5, schedule="cosine"
    )
    network.compile(
        keras.optimizers.Adam(schedules.learning_rate(training, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=machine.uses_xla("auto"),
    )
    batches = pipeline.training_batches(images.train, settings, epochs=epochs)
    network.fit(batches, epochs=epochs, steps_per_epoch=steps, shuffle=False, verbose=0)


def accuracies(network: keras.Model, images: data.Dataset) -> dict[str, float]:
    """Return a network's accuracy on validation and test images."""
    settings = pipeline.BatchSettings(BATCH)
    parts = {"validation": images.validation, "test": images.test}
    answers = {name: evaluation.predict(network, part, settings) for name, part in parts.items()}
    return {
        name: float((answers[name].argmax(1) == part.labels).mean()) for name, part in parts.items()
    }


def gains(lines: list[dict], rows: list[str], baseline: str, value) -> list[dict]:
    """Return rows' means, and their differences from a baseline with 95 % t intervals, in points.

    Args:
        lines: One for each seed.
        rows: Names of the rows.
        baseline: One of them.
        value: Returns a row's accuracy from a line and the row's name.
    """
    found = []
    for row in rows:
        values, base = (
            100 * np.array([value(line, name) for line in lines]) for name in (row, baseline)
        )
        about = {"row": row, "mean": values.mean(), "std": values.std(ddof=1)}
        if row != baseline:
            test = scipy.stats.ttest_rel(values, base)
            low, high = test.confidence_interval()
            about |= {"gain": (values - base).mean(), "low": low, "high": high}
        found.append(about)
    return found


def report(given: argparse.Namespace, result: dict) -> None:
    """Print a part's tables, and keep them in its result."""
    result["tables"] = {}
    for labelled in given.labelled:
        lines = [line for line in result["runs"] if line["labelled"] == labelled]
        if given.part == "logits":
            rows, value = (
                [FITTED, OUT_OF_FOLD, STRONGER],
                lambda line, row: line["student"][row],
            )
            found = gains(lines, rows, FITTED, value)
        else:
            found = gains(lines, [LINEAR, *TUNED], LINEAR, lambda line, row: line[row]["test"])
            for about in found:
                seconds = [line[about["row"]]["cpu_seconds"] for line in lines]
                about["cpu_seconds"] = float(np.mean(seconds))
        result["tables"][labelled] = found
        for about in found:
            print(
                labelled,
                *(
                    f"{value:.2f}" if isinstance(value, float) else value
                    for value in about.values()
                ),
            )


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("logits", "tuning"))
    parser.add_argument("--teacher", type=Path, required=True, help=".keras file")
    parser.add_argument("--data_dir", help="of TensorFlow Datasets")
    parser.add_argument("--archive", help="imagewoof2-160.tgz")
    parser.add_argument("--labelled", type=int, nargs="+", default=[LABELLED, PHOTOS])
    parser.add_argument("--test", type=int, help="test photos to judge by; all of them by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300, help="of each student (300)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    given = parser.parse_args()
    result = {"logits": logits_part, "tuning": tuning_part}[given.part](given)
    report(given, result)
    if given.output:
        given.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
