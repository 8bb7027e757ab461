"""A run that looks at finished networks: where in test images they find the class (Grad-CAM).

All maps are of an image's true class, whatever a network predicts, and of logits. So the view of
the ensemble is the mean of its members' views, and the views of all networks can be compared.

Coverage is sum_i min(p_i, q_i) of two views whose sums are 1, at the resolution of the finest map.
Of the ensemble's view it is measured always without the network itself, which would cover its own
share: a member is compared with the ensemble of the others, and a network that is no member with
the ensembles that lack one member, in the mean over them. Objects stand in the middle and maps are
broad, so some of it is covered by chance: by a network's view of another image of the class.
"""

import base64
import dataclasses
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfdistill import data, records
from tfdistill.config import ModelConfig, RunConfig, settings_of, to_dict
from tfdistill.data import pipeline, splits
from tfdistill.distillation.ensembles import average_logits
from tfdistill.records import Record
from tfdistill.studies.saliency import grad_cam
from tfdistill.training import evaluation
from tfdistill.training.session import Session
from tfdistill.utils import checks, machine
from tfdistill.utils.progress import Silent

ENSEMBLE = "ensemble"
# Tiles of a picture are small, and a record is to be read: larger images and maps are kept smaller.
IMAGE_SIDE, MAP_SIDE = 64, 32
CHANNEL_IMAGES = 8  # shown of each channel
_STREAM = 4  # tells the choice of test images from the choices of `data.splits`


@dataclass(frozen=True)
class HeatMaps:
    """Settings of such a run.

    Args:
        singles: Those of the run's members that make up the ensemble, at least two; the other
            members are compared with it.
        images: Number of images to show, of those that the ensemble has right: from each class in
            turn the one in which the single networks cover each other least.
        image_ids: Ids of the test images to show instead.
        test_images: Number of test images that the figures are means over, a stratified part of
            the test set; null means all.
        layer: The layer whose maps are shown; null means `features`, or the last that has maps.
        channels: Number of channels of the first single network's layer to show: those that speak
            most for `channel_class`, in the mean over its tested images. 0 shows none.
        channel_class: Name of the class; null means the first.
        student: The network of the members that are no singles; null means the run's `model`.
    """

    singles: list[str]
    images: int = 8
    image_ids: list[int] = field(default_factory=list)
    test_images: int | None = None
    layer: str | None = None
    channels: int = 0
    channel_class: str | None = None
    student: ModelConfig | None = None


def run(config: RunConfig, study_folder: Path, session: Session) -> Record:
    """Look at the networks of `config.members` and return the record, which is written too.

    Args:
        config: Its `settings` are those of `HeatMaps`; its `model` is the singles' network.
        study_folder: Folder of the study, where the members are finished.
        session: Where to show progress, and the images.

    Returns:
        A record without accuracies. Its `extra` has

            layer: the layer's name, null for each network's own default
            tested: number of test images that the figures are means over
            networks: for each member its `name` and `row`; `ensemble` and `one`, how much its view
                covers of the ensemble's and, in the mean, of one other single network's; `chance`,
                how much of the ensemble's its view of the next image of the same class covers; each
                as `mean` and `std` over images; and `blank`, the share of images without a map
            images: for each image to show its `id`, its `label`, itself as `png` (base64), and
                `views`: for each member and then the `ensemble` its `name`, the `map` as a grey
                PNG (base64) of which 255 is the largest value, the `predicted` class, its
                `probability`, and whether it is `right`
            channels: null, or the `network` and the `label` that were looked at, and `channels`:
                for each its `number`, its `share` (the mean of alpha_k A^k over places and images,
                as a share of the sum of all channels that speak for the class), and `images`: of
                those of the class in which it is most active `id`, `png`, and its `map`

    Raises:
        UsageError: As `check`, or a network without maps.
    """
    began = time.monotonic()
    machine.clear_session()
    settings, images = settings_of(HeatMaps, config), session.images(config.data)
    finished = records.read_runs(study_folder, config.needs)
    tested = _tested(config, settings, images)
    asked = _asked(settings, images)
    examples = images.test.take(np.concatenate([tested, asked]))
    whole = _look(config, settings, images, examples, study_folder, session.progress)
    seen, shown = whole.take(slice(len(tested))), whole.take(slice(len(tested), None))
    if not settings.image_ids:
        shown = seen.take(_chosen(seen, settings))
    record = Record(
        name=config.name,
        row=config.row,
        seed=config.seed,
        key=records.run_key(to_dict(config), finished),
        config=to_dict(config),
        seconds=time.monotonic() - began,
        versions=machine.versions(),
        device=machine.device(),
        images=images.hashes,
        environment=machine.environment(),
        needed=records.to_repeat(finished),
        extra={
            "layer": settings.layer,
            "tested": len(tested),
            "networks": _figures(seen, settings.singles, [record.row for record in finished]),
            "images": _pictures(shown, images.class_names),
            "channels": _channels(config, settings, images, study_folder, images.test.take(tested)),
        },
    )
    records.write(records.run_folder(study_folder, config.name), record)
    return record


def run_together(configs: list[RunConfig], study_folder: Path, session: Session) -> list[Record]:
    """Do several runs, one after the other."""
    return [run(config, study_folder, session) for config in configs]


def cost(config: RunConfig, session: Session) -> float:
    """Return about how many operations a run takes, those of its forward passes."""
    settings, images = settings_of(HeatMaps, config), session.images(config.data)
    operations = evaluation.flops_of(config.network, images.input_shape, images.num_classes)
    return float(2 * len(config.members) * len(_tested(config, settings, images)) * operations)


def check(config: RunConfig, session: Session) -> None:
    """Raise what `run` would raise about settings, images and layer, without writing anything."""
    settings, images = settings_of(HeatMaps, config), session.images(config.data)
    checks.count("settings.images", settings.images)
    checks.count("settings.channels", settings.channels, minimum=0)
    if settings.channel_class is not None:
        checks.one_of("settings.channel_class", settings.channel_class, images.class_names)
    _tested(config, settings, images)
    _asked(settings, images)
    blank = np.zeros((1, *images.input_shape), np.float32)
    for model in (config.network, settings.student or config.network):
        grad_cam.grad_cam(evaluation.build(model, images), blank, 0, settings.layer)


def one_batch(config: RunConfig) -> RunConfig:
    """Return the run as small as it can be: two images, whichever members there are."""
    settings = dataclasses.replace(
        settings_of(HeatMaps, config),
        singles=list(config.members),
        images=2,
        image_ids=[],
        test_images=None,
    )
    return dataclasses.replace(config, settings=to_dict(settings))


@dataclass(frozen=True, eq=False)
class _Views:
    """What the members and their ensemble see in some images, and what they take them for."""

    examples: data.Examples
    maps: dict[str, np.ndarray]  # [n, h, w] of each network
    logits: dict[str, np.ndarray]  # [n, classes]

    def take(self, places: np.ndarray | slice) -> "_Views":
        maps, logits = (
            {name: values[places] for name, values in found.items()}
            for found in (self.maps, self.logits)
        )
        return _Views(self.examples.take(places), maps, logits)

    def right(self, name: str) -> np.ndarray:
        return self.logits[name].argmax(axis=-1) == self.examples.labels


def _look(config, settings, images, examples, study_folder: Path, progress: Silent) -> _Views:
    """Return the views of all members, one network after the other, and of the ensemble."""
    batches = pipeline.BatchSettings(config.training.batch_size, input_size=images.input_size)
    served = pipeline.evaluation_batches(examples, batches.batch_size, batches.input_size)
    pixels = np.concatenate([x.numpy() for x, _ in served])
    maps, logits = {}, {}
    for done, name in enumerate(config.members):
        progress.step(0, 1, done / len(config.members))
        network = evaluation.load_network(study_folder, name, images)
        network.compile(jit_compile=machine.uses_xla(config.training.jit))
        logits[name] = evaluation.predict(network, examples, batches)
        maps[name] = grad_cam.grad_cam(
            network, pixels, examples.labels, settings.layer, batches.batch_size
        )
    maps[ENSEMBLE] = grad_cam.mean_map([maps[name] for name in settings.singles])
    members = np.stack([logits[name] for name in settings.singles])
    logits[ENSEMBLE] = keras.ops.convert_to_numpy(average_logits(members, config.average))
    return _Views(examples, maps, logits)


def _tested(config: RunConfig, settings: HeatMaps, images: data.Dataset) -> np.ndarray:
    """Return the places of the test images that the figures are means over."""
    total, wanted = len(images.test), settings.test_images
    if wanted is None:
        return np.arange(total)
    if checks.count("settings.test_images", wanted) > total:
        raise checks.UsageError(
            f"settings.test_images must be at most {total}, the size of the test set. "
            f"Received: settings.test_images={wanted}."
        )
    return splits.stratified(images.test.labels, wanted, config.data.split_seed, _STREAM)


def _asked(settings: HeatMaps, images: data.Dataset) -> np.ndarray:
    """Return the places of the test images that are asked for by id."""
    places = {int(number): place for place, number in enumerate(images.test.ids)}
    unknown = [number for number in settings.image_ids if number not in places]
    if unknown:
        raise checks.UsageError(
            f"settings.image_ids must be ids of the {len(places)} test images, such as "
            f"{max(places)}. Received: {unknown[0]}."
        )
    return np.array([places[number] for number in settings.image_ids], int)


def _figures(seen: _Views, singles: list[str], rows: list[str]) -> list[dict]:
    """Return what each member covers of other views, and how much of the same by chance."""
    views = _at_one_size({name: maps for name, maps in seen.maps.items() if name != ENSEMBLE})
    others = _ensembles_of_others(views, singles)
    following = _next_of_class(seen.examples.labels)
    networks = []
    for row, (name, view) in zip(rows, views.items(), strict=True):
        ensembles = [others[name]] if name in singles else list(others.values())
        ones = [views[single] for single in singles if single != name]
        networks.append(
            {
                "name": name,
                "row": row,
                "ensemble": _over_images(view, ensembles),
                "one": _over_images(view, ones),
                "chance": _over_images(view[following], ensembles),
                "blank": float((view.sum(axis=(1, 2)) == 0).mean()),
            }
        )
    return networks


def _next_of_class(labels: np.ndarray) -> np.ndarray:
    """Return for each image the place of the next one of its class, the first after the last."""
    following = np.empty(len(labels), int)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        following[places] = np.roll(places, -1)
    return following


def _at_one_size(maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    size = max((found.shape[1:] for found in maps.values()), key=np.prod)
    return {name: grad_cam.normalize(grad_cam.enlarge(found, size)) for name, found in maps.items()}


def _ensembles_of_others(views: dict, singles: list[str]) -> dict[str, np.ndarray]:
    """Return for each single network the view of the ensemble that lacks it."""
    return {
        name: grad_cam.mean_map([views[single] for single in singles if single != name])
        for name in singles
    }


def _over_images(view: np.ndarray, of: list[np.ndarray]) -> dict[str, float]:
    """Return mean and deviation over images of a view's coverage of others, in the mean of them."""
    values = np.mean([grad_cam.coverage(view, other) for other in of], axis=0)
    return {"mean": float(values.mean()), "std": float(values.std())}


def _chosen(seen: _Views, settings: HeatMaps) -> np.ndarray:
    """Return the places of images that the ensemble has right and its members see differently.

    From each class in turn the one that is best so; an image in which a single network has no map
    at all comes last.
    """
    views = _at_one_size({name: seen.maps[name] for name in settings.singles})
    others = _ensembles_of_others(views, settings.singles)
    covered = np.mean([grad_cam.coverage(views[name], others[name]) for name in views], axis=0)
    blank = np.any([view.sum(axis=(1, 2)) == 0 for view in views.values()], axis=0)
    labels, right = seen.examples.labels, seen.right(ENSEMBLE)
    taken: Counter = Counter()
    ranked: list = []
    for place in np.lexsort((covered, blank)):
        if right[place]:
            ranked.append((taken[labels[place]], len(ranked), place))
            taken[labels[place]] += 1
    picked = [place for *_, place in sorted(ranked)[: settings.images]]
    return np.array(sorted(picked, key=lambda place: (labels[place], place)), int)


def _pictures(shown: _Views, class_names: tuple[str, ...]) -> list[dict]:
    images = _small(shown.examples)
    maps = {name: _at_most(_grey(found), MAP_SIDE) for name, found in shown.maps.items()}
    return [
        {
            "id": int(shown.examples.ids[place]),
            "label": class_names[label],
            "png": _png(images[place]),
            "views": [
                {"name": name, "map": _png(maps[name][place])}
                | _prediction(shown.logits[name][place], label, class_names)
                for name in shown.maps
            ],
        }
        for place, label in enumerate(shown.examples.labels)
    ]


def _channels(config, settings, images, study_folder: Path, tested: data.Examples) -> dict | None:
    """Return what single channels of the first single network respond to."""
    label = images.class_names.index(settings.channel_class) if settings.channel_class else 0
    examples = tested.take(np.flatnonzero(tested.labels == label))
    if not settings.channels or not len(examples):
        return None
    batch_size, name = config.training.batch_size, settings.singles[0]
    network = evaluation.load_network(study_folder, name, images)
    served = pipeline.evaluation_batches(examples, batch_size, images.input_size)
    pixels = np.concatenate([x.numpy() for x, _ in served])
    active, spoken = grad_cam.channels(network, pixels, label, settings.layer, batch_size)
    active, shares = np.maximum(active, 0), spoken.mean(axis=0)
    total = np.maximum(shares, 0).sum()
    speaking = [k for k in np.argsort(-shares, kind="stable") if shares[k] > 0]
    shown = []
    for channel in speaking[: settings.channels]:
        maps = active[..., channel]
        most = np.argsort(-maps.max(axis=(1, 2)), kind="stable")[:CHANNEL_IMAGES]
        found = examples.take(most)
        views = zip(found.ids, _small(found), _at_most(_grey(maps[most]), MAP_SIDE), strict=True)
        shown.append(
            {
                "number": int(channel),
                "share": round(float(shares[channel] / total), 4),
                "images": [
                    {"id": int(number), "png": _png(image), "map": _png(heat)}
                    for number, image, heat in views
                ],
            }
        )
    if not shown:  # none speaks for the class
        return None
    return {"network": name, "label": images.class_names[label], "channels": shown}


def _prediction(logits: np.ndarray, label: int, class_names: tuple[str, ...]) -> dict:
    best = int(logits.argmax())
    probability = float(keras.ops.softmax(logits.astype(np.float32))[best])
    return {
        "predicted": class_names[best],
        "probability": round(probability, 4),
        "right": best == int(label),
    }


def _grey(maps: np.ndarray) -> np.ndarray:
    """Return maps as grey images `[n, h, w, 1]` uint8, 255 at the maximum of each."""
    highest = maps.max(axis=(1, 2), keepdims=True)
    return np.round(255 * maps / np.where(highest > 0, highest, 1)).astype(np.uint8)[..., None]


def _small(examples: data.Examples) -> list[np.ndarray]:
    return [_at_most(image[None], IMAGE_SIDE)[0] for image in examples.images]


def _at_most(images: np.ndarray, side: int) -> np.ndarray:
    """Return `[n, h, w, c]` uint8 with no side above `side`."""
    height, width = images.shape[1:3]
    if max(height, width) <= side or not len(images):
        return images
    size = [max(1, round(length * side / max(height, width))) for length in (height, width)]
    return np.round(tf.image.resize(images, size, method="area")).astype(np.uint8)


def _png(image: np.ndarray) -> str:
    return base64.b64encode(tf.io.encode_png(image).numpy()).decode()
