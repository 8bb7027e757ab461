"""What an export format is: how it is written, how its files run, and what holds for them.

To add one, write a file with an `ExportFormat` and a line in `config.registry.EXPORT_FORMATS`. At
its top that file imports, of this package, this one alone, and no TensorFlow: packages are checked
without it, and `isolated` loads the file where the rest of the package cannot be imported.
"""

import contextlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

OUTPUTS = ("class_id", "logits", "probabilities")
# Of several labels, what is there at 0.5 stands in the place of the class.
LABEL_OUTPUTS = ("logits", "present", "probabilities")
IMAGE = "image"
# What a model is asked by: `DEFAULT` of every format, `BYTES` where image files are taken, too.
DEFAULT, BYTES = "serving_default", "bytes"


class MissingPackage(ImportError):
    """What runs a format cannot be imported; its text is one line and complete."""


class Runtime:
    """An exported network that has been opened.

    A format's runtime defines a constructor, from the path and the number of threads (None for as
    many as it likes), which sets `input_shape`, and `run`.

    Attributes:
        title: What runs it, as people read it: `SavedModel`, `LiteRT`, `ONNX`.
        without: Packages that it must do without; a check of an export makes sure of that.
        takes_bytes: Whether `answer_bytes` can be called.
        input_shape: `(height, width, channels)`; sides are None where any size is taken.
    """

    title: str
    without: tuple[str, ...] = ("tensorflow", "keras")
    takes_bytes = False
    input_shape: tuple[int | None, int | None, int]

    def __init__(self, path: Path, threads: int | None = None):
        raise NotImplementedError

    @classmethod
    def opened(cls, path: Path, threads: int | None = None) -> "Runtime":
        """Return a model that is ready to answer, as `open_model` does."""
        try:
            with muted():
                return cls(path, threads)
        except MissingPackage:
            raise
        except Exception as error:  # each runtime has its own classes for what it cannot read
            raise ValueError(f"Cannot read the model {path}: {_reason(error)}") from None

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return what the network says of images.

        Args:
            images: `[n, height, width, channels]` uint8, pixels 0..255, n >= 1.

        Returns:
            `logits` and `probabilities`, `[n, classes]` float32, and `class_id`, `[n]` int32; of a
            SavedModel also `class_name`, `[n]` str. Of several labels, `present`, `[n, labels]`
            int32 of 0 and 1, and `labels`, `[n]` str (`cat|dog`).

        Raises:
            ValueError: Images of another kind or shape, or a model that cannot be computed.
        """
        self.check(images)
        try:
            return self.run(images)
        except ValueError:
            raise
        except Exception as error:  # each runtime has its own classes for what it cannot compute
            raise ValueError(f"{self.title} cannot compute it: {_reason(error)}") from None

    def answer_bytes(self, files: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Return what the network says of whole image files; SavedModel alone.

        Args:
            files: n contents of JPEG or PNG files.

        Returns:
            As of images: `logits` and `probabilities`, `[n, classes]` float32, and others.

        Raises:
            ValueError: No files, one that cannot be read, or a format that takes no files.
        """
        raise ValueError(f"Only a SavedModel takes image files. Received: a model of {self.title}.")

    def check(self, images: np.ndarray) -> None:
        """Raise `ValueError` unless images are uint8 `[n, height, width, channels]` that fit."""
        found, expected = np.shape(images), self.input_shape
        sides = zip(found[1:], expected, strict=False)
        fits = len(found) == 4 and all(want in (None, side) for side, want in sides)
        dtype = getattr(images, "dtype", type(images).__name__)
        if not fits or dtype != np.uint8 or not len(images):
            wanted = ", ".join("any" if side is None else str(side) for side in expected)
            raise ValueError(
                f"The model takes images uint8 [n, {wanted}], n >= 1. "
                f"Received: {dtype} {list(found)}."
            )

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return what `__call__` does, of images `[n, height, width, channels]` uint8 that fit."""
        raise NotImplementedError


@dataclass(frozen=True)
class ExportFormat:
    """A format that networks are exported in.

    Args:
        name: As configurations, model cards and `EXPORT_FORMATS` have it, e.g. `litert-int8`.
        title: As people read it, e.g. `LiteRT int8`.
        file: The file in a version's folder that holds a model, e.g. `model.int8.tflite`; its
            ending tells what opens it.
        write: From an `exporter.Source`, writes the model to the path that it is given.
        runtime: What runs the model.
        tolerance: Largest difference of a logit from the network's, in units of the largest logit
            where that is above 1, and of a probability; None holds the accuracy instead.
        packages: Optional packages that it is written and checked with, and the `extra` of this
            package that installs them.
        parts: Where a model is the version's folder itself and not `file` alone: patterns of the
            files in it that one would ship.
        usage: How to ask it, on the page of the model card: a Jinja template of `card` and of
            `format`, its entry in the card's `formats`.
        limit: A sentence for the card's limits.
        weight_bits: The most bits of weights of the networks of `quantize_aware` that it takes, and
            no others; None where it takes float networks.
        agreement: Smallest share of test images with the same class, of a network that rounds.
    """

    name: str
    title: str
    file: str
    write: Callable
    runtime: type[Runtime]
    tolerance: float | None
    packages: tuple[str, ...] = ()
    extra: str = ""
    parts: tuple[str, ...] = ()
    usage: str = ""
    limit: str = ""
    weight_bits: int | None = None
    agreement: float = 0.98

    @property
    def suffix(self) -> str:
        """Ending of its files' names, e.g. `.tflite`; other formats may have it, too."""
        return Path(self.file).suffix

    def place(self, folder: Path) -> Path:
        """Return the path of the model in a version's folder."""
        return folder if self.parts else folder / self.file

    def opens(self, path: Path) -> bool:
        """Return whether a path may be a model of this format."""
        if self.parts:
            return (path / self.file).is_file()
        return path.suffix == self.suffix and path.is_file()

    def signatures(
        self,
        shape: tuple[int, int, int],
        classes: int,
        any_size: bool,
        multi_label: bool = False,
    ) -> dict:
        """Return by signature what goes in and comes out, as a model card has it.

        Args:
            shape: `(height, width, channels)` of the network's images.
            classes: Number of its classes.
            any_size: Whether images of any size are taken, in a format that can take them.
            multi_label: Whether an image has any number of labels.
        """
        height, width, channels = shape
        sizes = (None, None) if any_size and self.runtime.takes_bytes else (height, width)
        inputs = {DEFAULT: {IMAGE: _tensor("uint8", *sizes, channels)}}
        scores = _tensor("float32", classes)
        chosen = {"class_id": _tensor("int32")}
        if multi_label:
            chosen = {"present": _tensor("int32", classes)}
        outputs = {"logits": scores, "probabilities": scores, **chosen}
        if self.runtime.takes_bytes:
            inputs[BYTES] = {"image_bytes": _tensor("string")}
            outputs["labels" if multi_label else "class_name"] = _tensor("string")
        return {name: {"inputs": given, "outputs": outputs} for name, given in inputs.items()}

    def shipped(self, path: Path) -> list[Path]:
        """Return the files that a model needs to answer, in order of their names."""
        found = {file for pattern in self.parts for file in Path(path).glob(pattern)}
        return sorted(file for file in found if file.is_file()) if self.parts else [Path(path)]


def export_format(name: str) -> ExportFormat:
    """Return the format of a name.

    Raises:
        UsageError: There is none.
    """
    from tfdistill.config.registry import EXPORT_FORMATS
    from tfdistill.utils import checks

    return EXPORT_FORMATS[checks.one_of("format", name, EXPORT_FORMATS)]


def formats_of(path: str | Path) -> list[ExportFormat]:
    """Return the formats that the model at a path may have, by its name; none where it is none."""
    from tfdistill.config.registry import EXPORT_FORMATS

    return [format for format in EXPORT_FORMATS.values() if format.opens(Path(path))]


def format_of(path: str | Path) -> ExportFormat | None:
    """Return the format of the model at a path; None where its name does not tell it.

    Example:
        >>> format_of("saved_models/digits/1/model.int8.tflite").name
        'litert-int8'
    """
    found = formats_of(path)
    named = [one for one in found if Path(path).name.endswith(one.file.removeprefix("model"))]
    return next(iter(found if len(found) == 1 else named), None)


def suffixes() -> list[str]:
    """Return the endings of the files that hold a model."""
    from tfdistill.config.registry import EXPORT_FORMATS

    alone = (format for format in EXPORT_FORMATS.values() if not format.parts)
    return list(dict.fromkeys(format.suffix for format in alone))


def runtime_of(path: str | Path) -> type[Runtime]:
    """Return what runs the model at a path.

    Raises:
        UsageError: There is no model, or one of no known format.
    """
    found = formats_of(path)
    if not found:
        from tfdistill.utils import checks

        endings = " or ".join(f"*{suffix}" for suffix in suffixes())
        raise checks.UsageError(
            f"There is no model {path}. Give a folder with saved_model.pb, or a file {endings}."
        )
    return found[0].runtime


def open_model(path: str | Path, threads: int | None = None) -> Runtime:
    """Open an exported network.

    Args:
        path: A SavedModel's folder, or a file of another format.
        threads: CPU threads that it may use; None leaves them to the runtime. TensorFlow takes
            a number only before it has computed anything in this process.

    Raises:
        ValueError: No such model, a damaged one, or one that is no exported network.
        MissingPackage: The format's runtime is not installed.

    Example:
        >>> model = open_model("saved_models/digits/1/model.int8.tflite")
        >>> model(images)["class_id"]
    """
    return runtime_of(path).opened(Path(path), threads)


def imported(module: str, package: str, path: Path, extra: str | None = None):
    """Return a runtime's module.

    Args:
        module: Its name.
        package: What `pip` knows it as.
        path: The model that needs it.
        extra: The extra of this package that installs it; None names the package itself.

    Raises:
        MissingPackage: It is not installed, or broken.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if not (isinstance(error, ModuleNotFoundError) and module.startswith(error.name or "?")):
            raise MissingPackage(
                f"Running {path} needs {package}, which cannot be imported: {_reason(error)} "
                "Install it again."
            ) from None
        wanted = f'"tfdistill[{extra}]"' if extra else package
        raise MissingPackage(
            f"Running {path} needs {package}, which is not installed. Run: pip install {wanted}"
        ) from None


def check_names(inputs, outputs) -> None:
    """Raise `ValueError` unless a model takes `image` alone and returns all of its outputs."""
    known = any(set(names) <= set(outputs) for names in (OUTPUTS, LABEL_OUTPUTS))
    if list(inputs) != [IMAGE] or not known:
        raise ValueError(
            f"it must take `{IMAGE}` and return {', '.join(OUTPUTS)}. "
            f"Received: a model from {', '.join(inputs)} to {', '.join(sorted(outputs))}."
        )


def muted() -> contextlib.AbstractContextManager:
    """Keep back what native code writes to stderr; not in a process whose stderr is kept anyway."""
    try:
        from tfdistill.utils import tensorflow
    except ImportError:  # of a `Probe`, where the package cannot be imported
        return contextlib.nullcontext()
    return tensorflow.muted()


def _tensor(dtype: str, *sides: int | None) -> dict:
    return {"dtype": dtype, "shape": ["n", *sides]}


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0][:300] if lines else type(error).__name__
    return text if text.endswith(".") else f"{text}."
