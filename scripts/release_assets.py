"""Makes what a release offers of a study's networks: NAME.keras, NAME.md and NAME.tflite.

    python scripts/release_assets.py results/quickstart no-labels-0 --licence CC-BY-4.0 --int8

writes into `assets/`, for each run that is named, the network's file as the run left it, with
`--int8` a LiteRT file that was checked against it, and a card: what it is, of which data and
teachers, how good, how to load it and to make it again, checksums. A file of a megabyte is refused.
"""

import argparse
import dataclasses
import hashlib
import shutil
import statistics
import sys
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

from scipy.stats import binomtest

from tfdistill import records
from tfdistill.config import (
    ExportConfig,
    StudyConfig,
    build,
    formats,
    registry,
    to_dict,
    yaml_files,
)
from tfdistill.training import study_folder
from tfdistill.utils import checks, storage, tensorflow

LARGEST = 1_000_000  # bytes
# What is known of the licences of images that come with a name.
DATA_LICENCES = {
    "digits": "CC BY 4.0 (Optical Recognition of Handwritten Digits, UCI)",
    "imagewoof": "photos of ImageNet, whose terms allow research that is not commercial",
    "tfds:cifar10": "its authors state none",
    "tfds:cifar100": "its authors state none",
}
PAGE = """# {name}

{description}

| | |
| --- | --- |
| test accuracy | {accuracy} |
{gains}| input | pixels 0..255, `[n, {shape}]`, which it scales itself |
| output | logits `[n, {outputs}]`: {classes} |
| data | {data} |
| licence of the data | {data_licence} |
| teachers | {teachers} |
| training | {training} |
| licence of the weights | {licence} |
| made with | {versions}, Python {python} |

| file | bytes | SHA-256 |
| --- | ---: | --- |
{files}
{checked}
## Load it

With Keras {keras}{alone}:

```python
import keras{layers}

network = keras.saving.load_model("{name}.keras")
logits = network.predict(images)
```

With tfdistill, which reads image files: `tfdistill predict {name}.keras photo.png`

## Make it again

It is the run `{run}` of this study, with the weights of its {epoch} epoch. `tfdistill run
study.yaml{threads}` makes it again, to the bit with the versions above on a CPU of the same kind
(it was: {device}):

```yaml
{study}```

## Limits

{limits}
"""


def percent(share: float) -> str:
    """Return e.g. `93.10 %`."""
    return f"{100 * share:.2f} %"


def accuracy(study, record, images) -> str:
    """Return a network's accuracy, with Wilson's interval over the images, and that of its row."""
    value, count = record.figures["test_accuracy"], len(images.test)
    text = f"{percent(value)} of {count:,} images"
    if not images.multi_label:  # the labels of one image are not drawn one by one
        ends = binomtest(round(value * count), count).proportion_ci(method="wilson")
        text += f", 95 % interval over images {percent(ends.low)} to {percent(ends.high)}"
    row = records.spread(records.by_row(study)[record.row], "test_accuracy")
    if row.count > 1:
        text += f"; {row.count} such networks of other seeds, this one among them: {row.text()} %"
    return text


def gains(comparisons, row: str) -> str:
    """Return what a study's comparisons say of a row, a line of the card each."""
    return "".join(
        f"| gain over {family.baseline} | {100 * found.difference:+.2f} points, 95 % interval "
        f"{100 * found.low:+.2f} to {100 * found.high:+.2f}, {found.seeds} seeds |\n"
        for family in comparisons
        for name, found in family.rows.items()
        if name == row and found.seeds > 1
    )


def teachers(taught: dict | None) -> str:
    """Return who taught a network, and how."""
    if not taught:
        return "none"
    kinds: dict[str, list[float]] = {}
    for one in taught["teachers"]:
        kind = f"{one['network']}, {one['parameters']:,} weights"
        kinds.setdefault(kind, []).append(one["test_accuracy"])
    each = (
        f"{len(found)} of {kind}, test accuracy {percent(statistics.fmean(found))}"
        for kind, found in kinds.items()
    )
    how = taught["settings"]
    way = f"{how['loss']}, alpha {how['alpha']:g}, temperature {how['temperature']:g}"
    return f"{'; '.join(each)}; {way}"


def changed(config) -> dict:
    """Return what of a configuration is not the default; a file with that says the same."""
    default, found = type(config)(), {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != getattr(default, field.name):
            nested = dataclasses.is_dataclass(value)
            found[field.name] = changed(value) if nested else to_dict(config)[field.name]
    return found


def training(how: dict | None) -> str:
    """Return how a network was trained."""
    if not how:
        return "none of its own"
    return (
        f"{how['epochs']} epochs in batches of {how['batch_size']}, {how['optimizer']}, learning "
        f"rate {how['learning_rate']:g} ({how['schedule']}), seed {how['seed']}"
    )


def study_config(study: Path) -> StudyConfig:
    """Return the configuration of a study, but for what does not make its networks."""
    path = study / study_folder.CONFIG_FILE
    values = yaml_files.parse_yaml(storage.unmarked(path), str(path))
    values = formats.current(values, formats.number(path, values))
    others = ("output", "sweep", "export", "tensorboard")
    return build(StudyConfig, {key: value for key, value in values.items() if key not in others})


def file_row(file: Path) -> str:
    """Return a file's line of the card."""
    data = file.read_bytes()
    return f"| `{file.name}` | {len(data):,} | `{hashlib.sha256(data).hexdigest()}` |"


def page(study: Path, subject, files: list[Path], checked: str, given) -> str:
    """Return the card of a run's network.

    Args:
        study: Folder of the study.
        subject: The network, as `export.targets` names it.
        files: What is released of it, the .keras file first.
        checked: What was found of the LiteRT file; empty without one.
        given: The options.
    """
    from tfdistill.export.model_card import Facts, card, escaped, without_folders

    record, images = subject.record, subject.images
    facts = card(
        Facts(
            name=subject.default_name,
            version=1,
            key=subject.key,
            kind=subject.kind,
            created=datetime.now(UTC),
            versions=record.versions,
            licence=given.licence,
            images=images,
            resize=False,
            files={},
            checks=(),
            parameters=record.parameters,
            record=record,
            teachers=subject.teachers,
        )
    )
    config = study_config(study)
    found = records.read_all(study)
    compare = getattr(registry.STUDIES[config.study], "comparisons", lambda _: [])
    source, threads = facts["data"]["source"], record.environment.get("threads")
    with zipfile.ZipFile(files[0]) as archive:
        own = b"tfdistill" in archive.read("config.json")
    register = f'\nfrom tfdistill import models\n\nmodels.register_layers("{files[0].name}")'
    return PAGE.format(
        name=subject.default_name,
        description=escaped(facts["description"]),
        accuracy=accuracy(found, record, images),
        gains=gains(compare(found), record.row),
        shape=", ".join(map(str, images.input_shape)),
        outputs=images.num_classes,
        classes=", ".join(map(escaped, images.class_names)),
        data=f"{escaped(source)}: {len(images.train):,} training, {len(images.validation):,} "
        f"validation, {len(images.test):,} test images",
        data_licence=escaped(given.data_licence or DATA_LICENCES.get(source, "not known here")),
        teachers=escaped(teachers(facts["distilled_from"])),
        training=training(facts["training"]),
        licence=escaped(given.licence),
        versions=", ".join(f"{name} {number}" for name, number in record.versions.items()),
        python=record.environment.get("python", "not recorded"),
        threads=f" --threads {threads}" if threads else "",
        device=record.device,
        keras=record.versions["keras"],
        alone=" and tfdistill, whose layers it has" if own else " alone",
        layers=register if own else "",
        run=record.name,
        epoch={"best": "best validation", "last": "last"}[record.select],
        study=yaml_files.yaml_text(without_folders({"study": config.study, **changed(config)})),
        files="\n".join(map(file_row, files)),
        checked=checked,
        limits="\n".join(f"- {escaped(limit)}" for limit in facts["limits"]),
    )


def write(study: Path, run: str, folder: Path, given) -> None:
    """Write what is released of a run into a folder."""
    from tfdistill.export import exporter, targets
    from tfdistill.training import evaluation

    subject = targets.of_path(records.run_folder(study, run))
    record, name = subject.record, subject.default_name
    left = records.run_folder(study, run) / f"{record.select}.keras"
    if not left.is_file():
        raise checks.UsageError(f"The run {run} left no file of a network. Name another run.")
    if left.stat().st_size >= LARGEST:
        raise checks.UsageError(
            f"A file of a release must be smaller than {LARGEST:,} bytes. Received: {left}, "
            f"{left.stat().st_size:,}. Name the run of a smaller network."
        )
    evaluation.load_network(study, run, subject.images)  # raises unless it is what was measured
    files, checked = [Path(shutil.copyfile(left, folder / f"{name}.keras"))], ""
    if given.int8:
        format = "litert-int8-aware" if record.config.get("quantize") else "litert-int8"
        with tempfile.TemporaryDirectory() as scratch:
            done = exporter.export(subject, name, ExportConfig([format], folder=scratch))
            files.append(Path(shutil.copyfile(done.file(format), folder / f"{name}.tflite")))
        (check,) = (check for check in done.checks if check.format == format)
        checked = (
            f"\n`{name}.tflite` takes uint8. It was asked {check.images} test images in a process "
            f"of its own: right on {percent(check.accuracy)} (the network on "
            f"{percent(check.network_accuracy)}), the same answer on {percent(check.agreement)}.\n"
        )
    text = page(study, subject, files, checked, given)
    (folder / f"{name}.md").write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Make the files of all runs that are named, or none."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="the folder of a finished study")
    parser.add_argument("runs", nargs="+", help="names in its folder runs/")
    parser.add_argument("--output", type=Path, default=Path("assets"))
    parser.add_argument("--licence", required=True, help="of the weights")
    parser.add_argument("--data_licence", help="of the images, where it is not known here")
    parser.add_argument("--int8", action="store_true", help="also NAME.tflite")
    given = parser.parse_args(arguments)
    try:
        tensorflow.start()
        with tempfile.TemporaryDirectory() as made:
            for run in given.runs:
                write(given.study, run, Path(made), given)
            given.output.mkdir(parents=True, exist_ok=True)
            for file in sorted(Path(made).iterdir()):
                if (given.output / file.name).exists():
                    raise checks.UsageError(
                        f"{given.output / file.name} is there. Remove it, or name another --output."
                    )
            for file in sorted(Path(made).iterdir()):
                print(shutil.copy(file, given.output))
    except (checks.UsageError, checks.Refused) as error:
        print(f"release_assets: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
