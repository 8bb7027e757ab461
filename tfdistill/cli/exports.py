"""The commands that take a network: `tfdistill evaluate`, `export`, `predict` and `demo`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tfdistill.cli import options
from tfdistill.config import DataConfig, ExportConfig
from tfdistill.config.registry import ANSWER_FORMATS, EXPORT_FORMATS
from tfdistill.models import saved_model_safety
from tfdistill.utils import checks, pixels, tensorflow
from tfdistill.utils.pixels import FULL, PixelRange
from tfdistill.utils.text import printable

AllowUnsafe = Annotated[
    bool,
    Parameter(
        "--allow-unsafe",
        show_default=False,
        help="Also load model files that could run code of their own.",
    ),
]
ImageKeys = Annotated[
    str,
    Parameter(
        allow_leading_hyphen=True,
        help="Images, as `--data.source folder:photos`; `tfdistill keys data` lists all.",
    ),
    options.Images,
]
Network = Annotated[
    Path,
    Parameter(allow_leading_hyphen=True, help="A .keras file or the folder of a SavedModel."),
]
Exported = Annotated[
    Path,
    Parameter(
        allow_leading_hyphen=True,
        help="A study's folder, a run's (STUDY/runs/NAME) or a .keras file.",
    ),
]
Images = Annotated[list[Path], Parameter(help="Image files and folders.", negative=())]
Format = Annotated[str, Parameter(choices=tuple(ANSWER_FORMATS))]


def _names(_, tokens) -> list[str]:
    """Return names that were given as `a,b`, `[a, b]` or in several options."""
    words = [word.strip() for token in tokens for word in token.value.strip("[]").split(",")]
    return [word for word in words if word]


def _pixel_range(_, tokens) -> list[float] | str:
    """Return numbers that were given as `a,b` or `[a, b]`, or the name of a mode."""
    words = _names(_, tokens)
    if len(words) == 1 and words[0] in pixels.MODES:
        return words[0]
    try:
        return [float(word) for word in words]
    except ValueError:
        raise checks.UsageError(
            f"--pixel_range must be two numbers, as 0,1, or {' or '.join(pixels.MODES)}. Received: "
            f"{checks.shown(','.join(words))}."
        ) from None


PIXEL_RANGE = Parameter(
    n_tokens=1,
    converter=_pixel_range,
    metavar="LOW,HIGH",
    negative=(),
    allow_leading_hyphen=True,
)
Names = Annotated[
    Sequence[str], Parameter(n_tokens=1, converter=_names, metavar="NAME,NAME", negative=())
]
Formats = Annotated[
    list[str],
    Parameter(
        n_tokens=1,
        converter=_names,
        metavar="NAME,NAME",
        completer=lambda _: [name for name in EXPORT_FORMATS if name != "savedmodel"],
    ),
]


@dataclass(frozen=True)
class ExportOptions(ExportConfig):
    """Options of `tfdistill export`; the others of `ExportConfig` are its own.

    Args:
        config: A study's YAML file, for its images.
    """

    formats: Formats = field(default_factory=list)
    check_images: options.WholeOrNull = 1000
    pixel_range: Annotated[list[float] | str, PIXEL_RANGE] = field(
        default_factory=lambda: list(pixels.FULL)
    )
    config: Path | None = None

    @property
    def written(self) -> ExportConfig:
        """What a study's file has of it, too."""
        keys = ExportConfig.__dataclass_fields__
        return ExportConfig(**{key: getattr(self, key) for key in keys})


Options = Annotated[ExportOptions, Parameter(name="*")]


def evaluate(
    model: Network,
    /,
    *keys: ImageKeys,
    teacher: Path | None = None,
    pixel_range: Annotated[PixelRange, PIXEL_RANGE] = FULL,
    batch_size: options.Whole = 128,
    config: Path | None = None,
    allow_unsafe: AllowUnsafe = False,
) -> int:
    """Measure a saved network on the test images.

    They are those of the study in whose folder it lies, unless `--config` names a study's YAML file
    or `--data.KEY` others.

    Args:
        teacher: Also compare with this saved network.
        pixel_range: What the network expects for the pixels 0 and 255, as 0,1 or -1,1; or
            caffe or torch, as preprocess_input of keras.applications makes them.
        batch_size: Images at once.
        config: A study's YAML file, for its images.
    """
    given = options.read([model, *keys], options.Images, evaluate)
    checks.count("batch_size", batch_size)
    trust(allow_unsafe)
    model = given.place
    if not model.exists():
        raise checks.UsageError(
            f"There is no model at {model}. Give a .keras file or a SavedModel."
        )
    images = given.images(config or options.study_file(model)) or DataConfig()
    tensorflow.start()
    from tfdistill.cli.evaluate import table

    beside = str(teacher) if teacher else None
    print_tables([table(str(model), images, beside, batch_size, pixel_range)])
    return 0


def check_own_images(path: Path, images: DataConfig | None) -> None:
    """Raise where options name images for networks of a study, which has its own.

    Args:
        path: A study's folder, or the folder of one of its runs.
        images: What the options of `tfdistill export` name; None for none.
    """
    if images is not None:
        raise checks.UsageError(
            f"{path} belongs to a study, on whose own images its networks are checked. "
            "Received: --config or --data. Remove them."
        )


def export_study(folder: Path, config: ExportConfig) -> bool:
    """Export a study's networks; say so and return False where one fails its check."""
    from tfdistill.export import study_exports
    from tfdistill.utils.progress import display

    try:
        study_exports.export_study(folder, config, display())
    except checks.Refused as error:
        print(f"tfdistill: error: {printable(str(error))}", file=sys.stderr)
        return False
    return True


def export_one(
    path: Path, config: ExportConfig, images: DataConfig | None, allow_unsafe: bool
) -> int:
    """Export one network: a run's, or a file of one's own with its images."""
    from tfdistill.utils.progress import display

    progress = display()
    progress.say("Starting TensorFlow and reading the images")
    tensorflow.start()
    from tfdistill.export import exporter, targets, verify

    trust(allow_unsafe)
    subject = targets.of_path(path, images)
    if subject.kind != verify.NETWORK:
        check_own_images(path, images)
    exported = exporter.export(subject, config.name or subject.default_name, config, progress)
    print_tables([verify.table(exported.checks, str(exported.folder))])
    return 0


def predict(
    model: Path,
    images: Images,
    /,
    *,
    format: Format = "table",
    top: options.Whole = 3,
    batch_size: options.Whole = 32,
    output: Path | None = None,
    pixel_range: Annotated[PixelRange, PIXEL_RANGE] = FULL,
    allow_unsafe: AllowUnsafe = False,
) -> int:
    """Classify image files with an exported network.

    Image files, and folders with all that is in them: JPEG, PNG, BMP, GIF, WebP, TIFF. They are
    read as training images are, upright (Exif). Exit status: 0 all answered, 1 an image failed, 2
    wrong usage.

    Args:
        model: saved_models/NAME[/VERSION], a .tflite, .onnx or .keras file.
        format: How the answers are written.
        top: Classes in each answer; a network of several labels gives all.
        batch_size: Images at once.
        output: The file to write; without it they are printed.
        pixel_range: What a network of your own, in a .keras file, expects for the pixels 0 and
            255, as 0,1 or -1,1; or caffe or torch, how keras.applications prepared them.
    """
    checks.count("top", top)
    checks.count("batch_size", batch_size)
    from tfdistill.inference import output as answers

    return answers.run(
        str(model),
        list(map(str, images)),
        format=format,
        top=top,
        batch_size=batch_size,
        output=str(output) if output else None,
        allow_unsafe=allow_unsafe,
        pixel_range=pixel_range,
    )


def demo(
    model: Path,
    /,
    *,
    teacher: Path | None = None,
    port: options.Whole = 7860,
    allow_unsafe: AllowUnsafe = False,
) -> int:
    """Try an exported network in the browser, beside its teacher.

    It opens a page: drop an image, and see which classes a model and its teacher take it for, how
    long each takes and how large it is. The teacher is the export that the model's card names, if
    it lies beside the model's folder. The page needs no internet and only this machine can open it.

    Args:
        model: saved_models/NAME, a .tflite or .onnx file.
        teacher: Another model to show beside it.
        port: Port on 127.0.0.1; 0 takes any that is free.
    """
    if not 0 <= port <= 65535:
        checks.of_type("port", port, "a whole number from 0 to 65535")
    tensorflow.start()
    from tfdistill.inference import demo as page

    return page.launch(model, teacher, port, allow_unsafe)


def trust(allow_unsafe: bool) -> None:
    """Take every model file until the command ends, where that is asked for."""
    if allow_unsafe:
        saved_model_safety.trust()


def print_tables(tables: list, verdict: str = "") -> None:
    """Print tables to the terminal."""
    from rich.console import Console

    from tfdistill.reporting import reports

    reports.print_tables(tables, Console(highlight=False), verdict)
