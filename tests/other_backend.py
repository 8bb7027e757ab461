"""Figures of losses and trainings that every backend of Keras must agree on.

As a program it prints them as JSON, for the backend that KERAS_BACKEND names.
"""

import json
import tempfile

import keras
import numpy as np

import tfdistill
from tfdistill import Distiller, Ensemble, FeatureLoss, LossWeightSchedule

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.normal(size=(24, 6, 6, 1)).astype("float32")
LABELS = np.arange(24) % 3
CLASSES = ("SoftTargets", "Decoupled", "Dist")
FEATURES = ("SimilarityPreserving", "Hints", "AttentionTransfer", "RelationalDistance")
FEATURES += ("RelationalAngle", "Probabilistic")
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}


def network(channels, seed):
    """Return a network whose weights are the same on every backend."""
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.Conv2D(channels, 3, activation="relu", name="features")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(3, kernel_regularizer="l2")(x))
    draws = np.random.default_rng(seed)
    weights = [abs(draws.normal(size=weight.shape)) for weight in model.get_weights()]
    model.set_weights([weight.astype("float32") for weight in weights])
    return model


def trained(teacher, callbacks=(), epochs=1, then=(), **settings):
    """Return the figures of some epochs, then of one with another alpha and temperature."""
    distiller = Distiller(network(4, 1), teacher, **settings)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.05), loss, metrics=["accuracy"])
    fit = {"validation_data": (IMAGES, LABELS), **FIT}
    history = distiller.fit(IMAGES, LABELS, epochs=epochs, callbacks=callbacks, **fit).history
    if then:
        distiller.alpha, distiller.temperature = then
    again = distiller.fit(IMAGES, LABELS, **fit).history
    predicted = distiller.student.predict(IMAGES[:2], verbose=0)
    return [history, again, np.asarray(predicted).tolist()]


def saved():
    """Return the figures of an epoch, and of the next by what was saved and loaded in between.

    Images have several labels, a third of them none, and metrics heed only the others.
    """
    teacher = network(6, 3)
    distiller = Distiller(network(4, 1), teacher, alpha=0.5)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    metrics = [keras.metrics.Precision(thresholds=0.0, name="precision"), "accuracy"]
    distiller.compile(keras.optimizers.SGD(0.05), loss, metrics=metrics)
    rows = np.eye(3, dtype="float32")[LABELS]
    rows[::3] = -1.0
    before = distiller.fit(IMAGES, rows, **FIT).history
    networks = [distiller, distiller.student]
    with tempfile.TemporaryDirectory() as folder:
        for number, one in enumerate(list(networks)):
            one.save(f"{folder}/{number}.keras")
            networks.append(keras.saving.load_model(f"{folder}/{number}.keras"))
    said = [keras.ops.convert_to_numpy(one(IMAGES[:2])).tolist() for one in networks]
    networks[2].set_teacher(teacher)
    return [before, networks[2].fit(IMAGES, rows, **FIT).history, said]


def figures():
    """Return all figures, as lists and dictionaries of numbers."""
    draws = np.random.default_rng(2)
    logits = draws.normal(size=(2, 8, 5)).astype("float32")
    maps = draws.normal(size=(2, 8, 4, 4, 5)).astype("float32")
    found = {}
    for name in CLASSES:
        loss = getattr(tfdistill, name)()
        taught = (logits[0], np.arange(8) % 5) if loss.needs_labels else logits[0]
        found[name] = float(loss(taught, logits[1]))
    for name in FEATURES:
        found[name] = float(getattr(tfdistill, name)()(maps[0], maps[1]))
    ensemble = Ensemble([network(4, 5), network(6, 6)])
    similarity = [FeatureLoss(tfdistill.SimilarityPreserving(), weight=2.0)]
    fading = LossWeightSchedule(alpha=lambda epoch: 0.5 - epoch / 4, temperature=lambda e: 4.0 - e)
    schedule = {"callbacks": [fading], "epochs": 2, "alpha": 0.5, "temperature": 4.0}
    found["features"] = trained(network(6, 3), features=similarity, **schedule)
    decoupled = {"alpha": 1.0, "soft_loss": tfdistill.Decoupled()}
    found["ensemble"] = trained(ensemble, then=(0.9, 2.0), **decoupled)
    found["saved"] = saved()
    return found


def refusals():
    """Return in one line each what needs TensorFlow."""
    from tfdistill import tuners
    from tfdistill.teacher_cache import build
    from tfdistill.training import runner

    def student(hp):
        return network(3, 1)

    hypermodel = tuners.DistillationHyperModel(student, network(3, 2))
    tries = {
        "Population": lambda: tfdistill.Population([student(None)]),
        "tuner": lambda: tuners.GridSearch(hypermodel, "val_loss"),
        "cache": lambda: build("nowhere", [], None, None),
        "export": lambda: tfdistill.export_network(student(None), "name", None),
        "grad_cam": lambda: tfdistill.grad_cam(student(None), IMAGES),
        "study": lambda: runner.start(runner.Silent()),
        "warm-up": lambda: Distiller(student(None), warmup_steps=3),
    }
    found = {}
    for name, attempt in tries.items():
        try:
            attempt()
            found[name] = "nothing was said"
        except tfdistill.UsageError as error:
            found[name] = str(error)
    return found


if __name__ == "__main__":
    print(json.dumps({"figures": figures(), "refusals": refusals()}))
