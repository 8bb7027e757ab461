"""What is exported of a finished study, and in which formats."""

import dataclasses
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated

from tfdistill.config.choices import OneOf
from tfdistill.config.registry import EXPORT_FORMATS
from tfdistill.utils import checks, pixels

_PATTERN = "*?[]"


@dataclass(frozen=True)
class ExportConfig:
    """What `tfdistill export` writes, and a study at its end.

    Args:
        formats: The student's formats beside a SavedModel, which there always is: FORMATS.
        folder: Where exports lie, as FOLDER/NAME/VERSION; without * ? [ ].
        name: Name of the model; null takes the study's and what it is, as `quickstart-student`.
        resize: Let `serving_default` take images of any size and bring them to the network's.
        check_images: How many test images each format is compared on with the network; null means
            all.
        licence: The weights' licence, for the model card.
        pixel_range: What the network expects for the pixels 0 and 255: [0, 255], or as [0, 1] or
            [-1, 1] where images were scaled before they reached it, or `caffe` or `torch` where
            `preprocess_input` of keras.applications prepared them. The export takes 0..255.
    """

    formats: list[Annotated[str, OneOf(EXPORT_FORMATS)]] = field(default_factory=list)
    folder: str = "saved_models"
    name: str | None = None
    resize: bool = False
    check_images: int | None = 1000
    licence: str = "not stated"
    pixel_range: list[float] | str = field(default_factory=lambda: list(pixels.FULL))

    def __post_init__(self) -> None:
        for name in self.formats:
            checks.one_of("export.formats", name, EXPORT_FORMATS)
        if any(sign in self.folder for sign in _PATTERN):
            raise checks.UsageError(
                f"export.folder must be without {' '.join(_PATTERN)}, which TensorFlow takes for a "
                f"pattern of names. Received: export.folder={checks.shown(self.folder)}."
            )
        if self.name is not None and not _is_name(self.name):
            raise checks.UsageError(
                "export.name must be one folder's name, of letters, digits, dots, hyphens and "
                f"underscores. Received: export.name={checks.shown(self.name)}."
            )
        if self.check_images is not None:
            checks.count("export.check_images", self.check_images)
        pixels.check("export.pixel_range", self.pixel_range)

    def of_installed(self) -> "ExportConfig":
        """Return what of it the installed packages can write."""
        formats = [
            name for name in self.formats if not checks.missing(EXPORT_FORMATS[name].packages)
        ]
        return dataclasses.replace(self, formats=formats)

    def check_packages(self) -> None:
        """Raise if a package that a format needs is not installed."""
        for name in self.formats:
            format = EXPORT_FORMATS[name]
            checks.installed(format.packages, format.extra, f"The format {name}")

    def weight_bits(self) -> int | None:
        """Return the most bits of weights that all formats take; None where all take floats."""
        return min(
            filter(None, (EXPORT_FORMATS[name].weight_bits for name in self.formats)), default=None
        )

    def check_for_study(self, rounding: Collection[tuple[int, int]] = ()) -> None:
        """Raise if a study's networks cannot be exported so, or a package is not installed.

        Args:
            rounding: Bits of weights and of activations of the study's networks that round.
        """
        self.check_packages()
        for name in self.formats:
            if (most := EXPORT_FORMATS[name].weight_bits) is None:
                continue
            if not rounding:
                raise checks.UsageError(
                    f"The format {name} takes networks that round in training. Received: {name} "
                    "for a study whose networks are float. Take litert-int8, or the study low_bits."
                )
            if (fewest := min(bits for bits, _ in rounding)) > most:
                raise checks.UsageError(
                    f"The format {name} takes weights of at most {most} bits. Received: {name} for "
                    f"a study of {fewest} bits. Take litert-int8-aware, or train with {most} bits."
                )
            if (fewest := min(bits for _, bits in rounding)) < 8:
                raise checks.UsageError(
                    "LiteRT has no activations of fewer than 8 bits. Received: "
                    f"{fewest} bits and the format {name}. Leave one of them out."
                )


# The page of `tfdistill export --help` is made of it.
ExportConfig.__doc__ = (ExportConfig.__doc__ or "").replace(
    "FORMATS", ", ".join(f"`{name}`" for name in EXPORT_FORMATS if name != "savedmodel")
)


def export_name(text: str) -> str:
    """Return a text as a name of an export: with hyphens for what a name cannot have.

    Example:
        >>> export_name("my study (2)")
        'my-study-2'
    """
    return re.sub(r"[^a-zA-Z0-9._-]+", "-", text).strip("-.") or "model"


def _is_name(text: str) -> bool:
    return re.fullmatch(r"(?!\.)[a-zA-Z0-9._-]*[a-zA-Z0-9][a-zA-Z0-9._-]*", text) is not None
