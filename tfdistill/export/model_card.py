"""Model cards: what an exported model is, how good it is, how it was made and how to ask it.

`card` gathers facts that others have measured into one dictionary of strict JSON, `markdown` makes
of it the page that people read. After Mitchell et al., "Model Cards for Model Reporting"
(arXiv 1810.03993): figures with what they were measured on, intended use, limits.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tfdistill.config import DistillationConfig, to_dict
from tfdistill.data import Dataset
from tfdistill.export.format import export_format
from tfdistill.export.verify import KINDS, Check, Figures
from tfdistill.records import Record
from tfdistill.utils import checks
from tfdistill.utils.text import MISSING, file_size, printable

FORMAT = 1
JSON_FILE, PAGE_FILE = "model_card.json", "model_card.md"
TEMPLATE = "model_card.md.j2"
# More class names than these are only counted on the page.
SHOWN_CLASSES = 20
# Settings of a distillation that are told even where they are the default.
TOLD = ("loss", "alpha", "temperature", "scale_by_t2", "average")
MARKUP = frozenset("\\`*_{}[]<>#|~!&$")


@dataclass(frozen=True)
class Facts:
    """What is known about an export.

    Args:
        name: Name of the model.
        version: Its version, >= 1.
        key: What the export follows from, as a hash.
        kind: `student`, `teacher`, `ensemble` or `network`.
        created: When, with a time zone.
        versions: Versions of the libraries.
        licence: Of the weights.
        images: The images that the figures are of, and where known those it was trained on.
        resize: Whether `serving_default` takes images of any size.
        files: By format, the files that one would ship: `path`, `bytes` and `sha256`.
        checks: How the formats compare with the network.
        parameters: Number of weights.
        flops: Operations of one image's forward pass; None where they were not counted.
        figures: On the test images; None where they were not measured.
        record: Of its run; None for a file of one's own, or an ensemble that has no run.
        teachers: Records of the runs that taught it.
        members: Records of the runs that an ensemble averages.
        average: How it averages them.
    """

    name: str
    version: int
    key: str
    kind: str
    created: datetime
    versions: Mapping[str, str]
    licence: str
    images: Dataset
    resize: bool
    files: Mapping[str, Sequence[dict]]
    checks: Sequence[Check]
    parameters: int
    flops: int | None = None
    figures: Figures | None = None
    record: Record | None = None
    teachers: Sequence[Record] = ()
    members: Sequence[Record] = ()
    average: str = "probabilities"

    def __post_init__(self):
        checks.one_of("kind", self.kind, KINDS)
        checks.count("version", self.version)


def card(facts: Facts) -> dict:
    """Return the model card: JSON-able and strict, with null for what is not known or no number.

    Absolute paths in the configuration are shortened to their last part: they tell about the
    machine, not about the model.

    Args:
        facts: What is known about the export.

    Returns:
        A dictionary with the keys format, key, name, version, created (UTC), description, kind,
        licence, versions, data, preprocessing, signatures, figures, parameters, flops, formats,
        training, distilled_from, ensemble_of, configuration, intended_use, limits.

    Example:
        >>> json.dumps(card(facts), allow_nan=False)
    """
    return _strict(
        {
            "format": FORMAT,
            "key": facts.key,
            "name": facts.name,
            "version": facts.version,
            "created": _utc(facts.created),
            "description": _description(facts),
            "kind": facts.kind,
            "licence": facts.licence,
            "versions": facts.versions,
            "data": _data(facts),
            "preprocessing": _preprocessing(facts),
            "signatures": {name: _signatures(name, facts) for name in facts.files},
            "figures": asdict(facts.figures) if facts.figures else None,
            "parameters": facts.parameters,
            "flops": facts.flops,
            "formats": {name: _format(name, facts) for name in facts.files},
            "training": _training(facts.record),
            "distilled_from": _distilled_from(facts),
            "ensemble_of": _ensemble_of(facts),
            "configuration": without_folders(facts.record.config) if facts.record else None,
            "intended_use": INTENDED_USE_OF_LABELS if facts.images.multi_label else INTENDED_USE,
            "limits": _limits(facts),
        }
    )


def markdown(card: dict) -> str:
    """Return a model card as a page of GitHub Markdown.

    Args:
        card: As `card` returns it, or read again from its JSON.

    Returns:
        Text that ends with a newline; names from the data are escaped.

    Example:
        >>> (folder / "model_card.md").write_text(markdown(card), encoding="utf-8")
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tfdistill.export"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "text": escaped,
        "size": file_size,
        "percent": _percent,
        "digits": _digits,
        "settings": _settings,
    }
    shape = card["preprocessing"]
    names = {"card": card, "shape": shape, "shown_classes": SHOWN_CLASSES}
    names["formats"] = {name: export_format(name) for name in card["formats"]}
    names["sizes"] = "{height}, {width}, {channels}".format(**shape)
    usages = {}  # formats that are asked alike have one
    for name, one in names["formats"].items():
        if one.usage and one.usage not in usages:
            template = environment.from_string(one.usage)
            usages[one.usage] = template.render(names, format=card["formats"][name])
    page = environment.get_template(TEMPLATE).render(names, usages=usages.values())
    # Sections that are left out leave their blank lines behind.
    return re.sub(r"\n{3,}", "\n\n", page).strip() + "\n"


def escaped(value) -> str:
    """Return text as one line in which GitHub Markdown and HTML see nothing but text."""
    text = printable(" ".join(str(value).split()))
    return "".join(f"\\{letter}" if letter in MARKUP else letter for letter in text)


INTENDED_USE = (
    "To sort images like those it was trained on into its classes, and to study distillation."
)

INTENDED_USE_OF_LABELS = (
    "To say which labels images like those it was trained on have, and to study distillation."
)


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.2f} %"


def _digits(value: float | None, spec: str) -> str:
    return MISSING if value is None else f"{value:{spec}}"


def _settings(values: Mapping[str, Any]) -> str:
    """Return settings as text, e.g. `loss soft_targets, alpha 1, no scale_by_t2`."""
    return ", ".join(_setting(name, value) for name, value in values.items())


def _setting(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if isinstance(value, list):
        return f"{name} " + " and ".join(f"({_settings(inner)})" for inner in value)
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _utc(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _strict(value: Any) -> Any:
    """Return a value as JSON knows it: null for NaN and infinity, numbers of Python."""
    if isinstance(value, Mapping):
        return {str(key): _strict(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(inner) for inner in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _description(facts: Facts) -> str:
    height, width, channels = facts.images.input_shape
    colours = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    what = _network_name(facts.record) if facts.record else _own_name(facts)
    article = "An" if what[0] in "aeiou" else "A"
    text = (
        f"{article} {what} of {facts.parameters:,} parameters for {height}x{width} {colours} "
        f"images of {_outputs(facts.images)}"
    )
    if facts.teachers:
        return f"{text}, distilled from {_count(facts.teachers, 'teacher')}."
    return f"{text}, which taught others." if facts.kind == "teacher" else f"{text}."


def _outputs(images: Dataset) -> str:
    if not images.multi_label:
        return f"{images.num_classes} classes"
    several = "labels, any number each" if images.num_classes > 1 else "label, yes or no"
    return f"{images.num_classes} {several}"


def _own_name(facts: Facts) -> str:
    return f"ensemble of {_count(facts.members, 'network')}" if facts.members else "network"


def _network_name(record: Record) -> str:
    """Return what a run's network is, e.g. `cnn2 (width 0.5)`."""
    model = record.config["model"]
    if model is None:
        return f"ensemble of {_count(record.config['members'], 'network')}"
    name = "saved network" if model["name"] == "saved" else model["name"]
    if model.get("width", 1.0) != 1.0:
        name += f" (width {model['width']:g})"
    averaged = record.config.get("width", 1)
    return f"average of {averaged} {name}, trained as one" if averaged > 1 else name


def _count(things: Sequence, name: str) -> str:
    return f"{len(things)} {name}" if len(things) == 1 else f"{len(things)} {name}s"


def _data(facts: Facts) -> dict:
    images = facts.images
    return {
        "source": _last_part(images.name),
        "train_images": len(images.train),
        "validation_images": len(images.validation),
        "test_images": len(images.test),
        "trained_on_it": facts.record is not None or bool(facts.members),
        "classes": list(images.class_names),
        "multi_label": images.multi_label,
    }


def _preprocessing(facts: Facts) -> dict:
    height, width, channels = facts.images.input_shape
    return {
        "height": height,
        "width": width,
        "channels": channels,
        "dtype": "uint8",
        "pixel_range": [0, 255],
        "image_size": facts.images.stored_side,
        "any_size": facts.resize,
        "resizing": _resizing(facts),
        "normalisation": _normalisation(facts),
    }


def _resizing(facts: Facts) -> str:
    """Return what image files go through, as the `bytes` signature does it."""
    height, width, _ = facts.images.input_shape
    if height != width:
        return f"stretched to {height}x{width} pixels (bilinear, antialiased)"
    stored = facts.images.stored_side
    stored = stored or height
    text = f"shorter side to {stored} pixels (bilinear, antialiased), the centre {stored}x{stored}"
    return text if stored == height else f"{text}, then to {height}x{width}"


def _normalisation(facts: Facts) -> dict:
    """Return the mean and deviation inside the network, null where it has a scaling of its own."""
    runs = [facts.record] if facts.record and facts.record.config["model"] else facts.members
    models = [run.config["model"] for run in runs]
    ours = bool(models) and not any(map(_scales_itself, models))
    known = {"mean": facts.images.mean, "std": facts.images.std} if ours else {}
    return {"inside": True, "mean": None, "std": None} | known


def _scales_itself(model: dict | None) -> bool:
    return model is None or model["name"] == "saved" or model["name"].startswith("keras:")


def _signatures(name: str, facts: Facts) -> dict:
    images = facts.images
    shape, classes = images.input_shape, images.num_classes
    return export_format(name).signatures(shape, classes, facts.resize, images.multi_label)


def _format(name: str, facts: Facts) -> dict:
    files = facts.files[name]
    return {
        "bytes": sum(file["bytes"] for file in files),
        "files": list(files),
        "checks": [
            asdict(check) | {"tolerance": check.tolerance}
            for check in facts.checks
            if check.format == name
        ],
    }


def _training(record: Record | None) -> dict | None:
    if record is None or not record.config.get("trained", True):
        return None
    names = ("row", "seed", "seconds", "device", "versions")
    settings = ("epochs", "batch_size", "optimizer", "learning_rate", "schedule", "precision")
    of_run = {"run": record.name} | {name: getattr(record, name) for name in names}
    return of_run | {name: record.config["training"].get(name) for name in (*settings, "ema")}


def _distilled_from(facts: Facts) -> dict | None:
    if not facts.teachers:
        return None
    taught = (facts.record.config["distillation"] or {}) if facts.record else {}
    teachers = [_run(teacher) for teacher in facts.teachers]
    return {"teachers": teachers, "settings": _told(taught)}


def _told(taught: Mapping[str, Any]) -> dict:
    """Return the settings of a distillation that are always told or are not the default."""
    default = to_dict(DistillationConfig())
    told = TOLD if taught.get("loss") != "decoupled" else (*TOLD, "beta")
    rest = [name for name in taught if name not in told and taught[name] != default.get(name)]
    return {name: taught[name] for name in (*told, *rest) if name in taught}


def _ensemble_of(facts: Facts) -> dict | None:
    if not facts.members:
        return None
    return {"members": [_run(member) for member in facts.members], "average": facts.average}


def _run(record: Record) -> dict:
    return {
        "run": record.name,
        "row": record.row,
        "network": _network_name(record),
        "parameters": record.parameters,
        "weights": record.select,
        "test_accuracy": record.figures.get("test_accuracy"),
    }


def without_folders(value: Any) -> Any:
    """Return plain values, of whose absolute paths only the last part is left."""
    if isinstance(value, Mapping):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_folders(inner) for inner in value]
    return _last_part(value) if isinstance(value, str) else value


def _last_part(text: str) -> str:
    """Return `/data/cats` as `cats`, `folder:/data/cats` as `folder:cats`, others as they are."""
    kind, colon, path = text.partition(":")
    if Path(text).is_absolute():
        return Path(text).name
    return f"{kind}:{Path(path).name}" if colon and Path(path).is_absolute() else text


def _limits_of_answers(images: Dataset) -> tuple[str, str]:
    if images.multi_label:
        return (
            f"Nothing else is said of an image than yes or no to {_outputs(images)}, also of one "
            "that shows something else, and often with a high probability.",
            "A label is said to be there above a probability of 0.5; where one mistake costs more "
            "than the other, choose another limit on images of your own.",
        )
    return (
        f"Every image is given one of the {images.num_classes} classes, also one that shows "
        "something else, and often with a high probability.",
        "A probability is only as reliable as the calibration error on such images says.",
    )


def _limits(facts: Facts) -> list[str]:
    source = _last_part(facts.images.name)
    limits = [
        f"The figures are of {len(facts.images.test)} test images of {source}. Nothing is claimed "
        "about images from elsewhere, on which they can be much worse.",
        *_limits_of_answers(facts.images),
        "It was not examined how errors fall on groups of people or things, nor how images made "
        "to deceive it do. Do not let it decide alone where an error does harm.",
    ]
    of_formats = (export_format(name).limit for name in facts.files)
    return [*limits, *(limit for limit in of_formats if limit)]
