"""Answers about image files, from any export or from the network of a study's run.

Images are read and classified batch by batch, so thousands need no more memory than a few. What is
wrong with one is said in its place, and the rest is answered.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np

from tfdistill.data import image_files
from tfdistill.inference.classifiers import Guess, Model, open_export, place_of
from tfdistill.utils import checks
from tfdistill.utils.pixels import FULL, PixelRange

NO_NUMBER = "The model's answer is no number."


@dataclass(frozen=True)
class Answer:
    """What was found out about one image: its most probable classes, or why there are none.

    Args:
        image: Its name.
        top: The most probable classes; of several labels all, the most probable first.
        error: Why there are none.
        multi_label: Whether `top` are labels, of which those above 0.5 are there.
    """

    image: str
    top: tuple[Guess, ...] = ()
    error: str | None = None
    multi_label: bool = False

    @property
    def labels(self) -> tuple[Guess, ...]:
        """The labels that are there, above 0.5."""
        return tuple(guess for guess in self.top if guess.probability > 0.5)


@dataclass
class Predictions:
    """The answers about image files, made while they are asked for; to be gone through once.

    Args:
        model: The model.
        paths: Files and folders.
        top: How many classes each answer holds; of several labels it holds all.
        batch_size: Images at once.

    The other attributes are right at the end: how many `images` there were and how many of them
    `failed`; what in folders was `skipped`; and the `seconds` of reading and classifying.
    """

    model: Model
    paths: Sequence[Path]
    top: int = 3
    batch_size: int = 32
    images: int = 0
    failed: int = 0
    skipped: image_files.Skipped = field(default_factory=image_files.Skipped)
    seconds: float = 0.0

    def __iter__(self) -> Iterator[Answer]:
        found = image_files.found(self.paths, self.skipped)
        while True:
            started = perf_counter()
            answers = self._answers(list(islice(found, self.batch_size)))
            self.seconds += perf_counter() - started
            if not answers:
                return
            self.images += len(answers)
            self.failed += sum(answer.error is not None for answer in answers)
            yield from answers

    def _answers(self, found: list[tuple[Path, str | None]]) -> list[Answer]:
        answers: list[Answer] = []
        pixels: dict[int, np.ndarray] = {}
        for place, (path, problem) in enumerate(found):
            if problem is None:
                try:
                    pixels[place] = self.model.read(path)
                except image_files.ImageError as error:
                    problem = str(error)
            answers.append(Answer(image_files.name_of(path), error=problem))
        for places in _by_shape(pixels):
            images = np.stack([pixels[place] for place in places])
            try:
                guesses, problem = self.model.classify(images, self.top), NO_NUMBER
            except checks.UsageError as error:
                guesses, problem = [()] * len(places), str(error)
            for place, top in zip(places, guesses, strict=True):
                why, several = None if top else problem, self.model.multi_label
                answers[place] = Answer(answers[place].image, top, why, several)
        return answers


def classify(
    model: str | Path,
    paths: Iterable[str | Path],
    *,
    top: int = 3,
    batch_size: int = 32,
    allow_unsafe: bool = False,
    pixel_range: PixelRange = FULL,
) -> Predictions:
    """Open a model and return its answers about image files, which are made when asked for.

    Args:
        model: `saved_models/NAME/VERSION`, `saved_models/NAME` (its highest version), or a
            .tflite, .onnx or .keras file.
        paths: Image files, and folders that are gone through with all below them.
        top: How many classes each answer holds, >= 1; of several labels it holds all.
        batch_size: Images at once, >= 1.
        allow_unsafe: Also load a model that could run code or reach files.
        pixel_range: What a network of one's own, in a .keras file, expects for the pixels 0 and
            255, such as `[0, 1]`; or `caffe` or `torch`, how `keras.applications` prepared them.

    Returns:
        The answers, in the order of the paths.

    Raises:
        UsageError: No model, an unfit one, a missing package, no image at all, or a pixel range
            for a model that tfdistill made.

    Example:
        >>> for answer in classify("saved_models/quickstart-student", ["photos"]):
        ...     print(answer.image, answer.error or answer.top[0].name)
    """
    checks.count("top", top)
    checks.count("batch_size", batch_size)
    given = tuple(map(Path, paths))
    place = place_of(Path(model))
    _check_paths(given)
    return Predictions(open_export(place, allow_unsafe, pixel_range), given, top, batch_size)


def _check_paths(paths: Sequence[Path]) -> None:
    if any(problem is None for _, problem in image_files.found(paths)):
        return
    given = ", ".join(map(image_files.name_of, paths)) or "none"
    raise checks.UsageError(
        f"There is no image to classify. Received: {given}. Give image files, or folders that hold "
        f"some ({' '.join(image_files.ENDINGS)})."
    )


def _by_shape(pixels: dict[int, np.ndarray]) -> Iterable[list[int]]:
    """Return the places of images that can be classified together."""
    groups: dict[tuple, list[int]] = {}
    for place, image in pixels.items():
        groups.setdefault(image.shape, []).append(place)
    return groups.values()
