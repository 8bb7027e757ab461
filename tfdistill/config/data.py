"""Which images a study works on, and what is done to them."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any

from tfdistill.config.choices import OneOf, check_words
from tfdistill.config.registry import SOURCES
from tfdistill.utils import checks

NORMALIZATIONS = ("measured", "none")
ARRAYS = "arrays"  # no source to be read, but what `data.from_arrays` makes


FILLS = ("reflect", "constant")
AUTO, MEMORY, IN_FILES = STORAGES = ("auto", "memory", "files")


@dataclass(frozen=True)
class AugmentConfig:
    """Random augmentation of a training image; all zero means none.

    Args:
        pad_crop: Zero padding in pixels on each side before a random crop of the original size.
        flip: Flip left to right with probability one half.
        resized_crop: Smallest share of the image's area that a random resized crop keeps, in
            0..1; 0 turns it off.
        crop_ratio: Largest aspect ratio of such a crop, >= 1; it is drawn from 1 / this to this.
        antialias: Average over pixels where a random resized crop shrinks; twice the time. Images
            that are shrunk as a whole always are.
        rotation: Largest rotation in degrees, drawn uniformly to both sides.
        rotation_fill: What lies outside a rotated image: `reflect` (the image, mirrored) or
            `constant` (mid-grey).
        cutout: Side of a square set to mid-grey, in pixels.
        erasing: Probability with which a box is set to mid-grey (random erasing): 2 to 40 % of the
            image, at an aspect ratio of 0.3 to 1 / 0.3.
        mixup: Parameter a of the Beta(a, a) from which the mixing weight is drawn.
        cutmix: Parameter a of the Beta(a, a) from which the share is drawn that an image keeps; the
            rest, a box, is its partner's. A box that is cut off by the border leaves it more, and
            the label has the shares of the pixels. Not beside `mixup`.
        views: Number of views (differently augmented copies) of each image: epoch e shows view e
            modulo this, the same to every run, so that teachers' logits can be stored. null: every
            run has views of its own, a new one in every epoch.
        view_seed: Seed of the views, where their number is set.
    """

    pad_crop: int = 0
    flip: bool = False
    resized_crop: float = 0.0
    crop_ratio: float = 4 / 3
    antialias: bool = False
    rotation: float = 0.0
    rotation_fill: Annotated[str, OneOf(FILLS)] = "reflect"
    cutout: int = 0
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    views: int | None = None
    view_seed: int = 0

    def __post_init__(self) -> None:
        checks.count("augment.pad_crop", self.pad_crop, minimum=0)
        checks.fraction("augment.resized_crop", self.resized_crop)
        checks.positive("augment.crop_ratio", self.crop_ratio)
        if self.crop_ratio < 1:
            raise checks.UsageError(
                f"augment.crop_ratio must be at least 1. Received: {self.crop_ratio!r}."
            )
        checks.non_negative("augment.rotation", self.rotation)
        checks.one_of("augment.rotation_fill", self.rotation_fill, FILLS)
        if self.antialias and self.rotation:
            raise checks.UsageError(
                "augment.antialias is for crops that are not rotated. Received: "
                f"augment.rotation={self.rotation!r}. Set one of them alone."
            )
        checks.count("augment.cutout", self.cutout, minimum=0)
        checks.fraction("augment.erasing", self.erasing)
        checks.non_negative("augment.mixup", self.mixup)
        checks.non_negative("augment.cutmix", self.cutmix)
        if self.mixup and self.cutmix:
            raise checks.UsageError(
                "augment.mixup and augment.cutmix are two ways of mixing images. Received: "
                f"augment.mixup={self.mixup!r}, augment.cutmix={self.cutmix!r}. Set one of them "
                "to 0."
            )
        if self.views is not None:
            checks.count("augment.views", self.views)
        checks.count("augment.view_seed", self.view_seed, minimum=0)

    @property
    def active(self) -> bool:
        """Whether any augmentation is asked for."""
        plain = AugmentConfig()
        how = {name: getattr(plain, name) for name in _HOW}
        return dataclasses.replace(self, **how) != plain

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others, and their labels as well."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def num_views(self) -> int | None:
        """Number of different views of each image; None means without end."""
        return self.views if self.active else 1


# Settings that do nothing by themselves.
_HOW = ("crop_ratio", "antialias", "rotation_fill", "views", "view_seed")


@dataclass(frozen=True)
class DataConfig:
    """Which images, how they are split and what is done to them.

    Args:
        source: `digits`, `tfds:NAME`, `imagewoof`, `folder:PATH`, `csv:FILE` or `npz:FILE`;
            `arrays` for `from_arrays`.
        data_dir: Where prepared TensorFlow Datasets lie; default TFDS_DATA_DIR, else
            ~/tensorflow_datasets.
        unlabelled: Images without labels, which a teacher teaches beside the labelled ones: a
            folder, at any depth, a text file of paths, one a line, a .npz file with an array x, or
            `tfds:NAME SPLIT`, as `tfds:stl10 unlabelled`.
        archive: An already downloaded archive of the source (imagewoof2-160.tgz).
        image_size: Side in pixels to which images are brought once, when they are read; null keeps
            their own size, which then must be the same for all, unless they stay in files.
        input_size: Side in pixels that the networks see; null means the image's own.
        validation: Part of the training set held back: a share below 1, or a number of images; not
            used where the source has validation images of its own.
        split_seed: Seed of the split and of `train_examples`.
        train_examples: Train on a stratified subset of this many images; null means all.
        labelled_examples: Keep the labels of a stratified subset of this many training images, the
            same that `train_examples` would take, and hide the others'; null keeps all.
        test_examples: Test on a stratified subset of this many images; null means all.
        normalize: `measured` (mean and deviation of the training images), `none` (0..255 kept), or
            [mean, deviation], each one number or one for each channel, in units of the 0..1 range.
        augment: Random augmentation of the training images.
        storage: `memory` (decoded once), `files` (images of folders, CSV files and prepared sets
            are decoded for each batch) or `auto`: files where memory is too small. It changes no
            result.
        workers: Images that are decoded and augmented at once, which changes no result; null: as
            many as there are cores, at most 16.
    """

    source: Annotated[str, OneOf((*SOURCES, ARRAYS), f"(?:{'|'.join(SOURCES)}):.+")] = "digits"
    data_dir: str | None = None
    archive: str | None = None
    unlabelled: str | None = None
    image_size: int | None = None
    input_size: int | None = None
    validation: float = 0.1
    split_seed: int = 42
    train_examples: int | None = None
    labelled_examples: int | None = None
    test_examples: int | None = None
    normalize: Annotated[str | list, OneOf(NORMALIZATIONS)] = "measured"  # type: ignore[type-arg]
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    storage: Annotated[str, OneOf(STORAGES)] = "auto"
    workers: int | None = None

    @property
    def labelled_only(self) -> "DataConfig":
        """The same without the images that have no label."""
        train = self.labelled_examples or self.train_examples
        return dataclasses.replace(
            self, unlabelled=None, train_examples=train, labelled_examples=None
        )

    def __post_init__(self) -> None:
        if self.source != ARRAYS:
            checks.one_of("data.source", self.source.partition(":")[0], SOURCES)
        for name in _COUNTS:
            if getattr(self, name) is not None:
                checks.count(f"data.{name}", getattr(self, name))
        if self.train_examples is not None and self.labelled_examples is not None:
            raise checks.UsageError(
                "data.labelled_examples are those of all training images that keep their label. "
                f"Received: {self.labelled_examples} beside data.train_examples="
                f"{self.train_examples}. Set one of them to null."
            )
        checks.count("data.split_seed", self.split_seed, minimum=0)
        checks.positive("data.validation", self.validation)
        if self.validation >= 1 and self.validation % 1:
            checks.of_type(
                "data.validation", self.validation, "a share below 1, or a whole number of images"
            )
        check_words(self, "data")
        if not isinstance(self.normalize, str) and not _is_normalization(self.normalize):
            checks.of_type(
                "data.normalize",
                self.normalize,
                "'measured', 'none' or [mean, deviation], each one number or one for each channel",
            )


_COUNTS = (
    "image_size",
    "input_size",
    "train_examples",
    "labelled_examples",
    "test_examples",
    "workers",
)


def _is_normalization(pair: list[Any]) -> bool:
    """Return whether it is a mean and a deviation, each a number or a list of numbers."""
    if len(pair) != 2:
        return False
    parts = [part if isinstance(part, list) else [part] for part in pair]
    try:
        for number in (number for part in parts for number in part):
            checks.non_negative("data.normalize", abs(number))
    except (checks.UsageError, TypeError):
        return False
    return all(parts)
