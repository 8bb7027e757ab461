"""Exports of a study: its best student, its teacher and their ensemble, measured side by side.

What is in place already, whole and from the same weights, is not exported again; TensorFlow is
imported only when there is something to do.
"""

import dataclasses
from pathlib import Path

from tfdistill import records
from tfdistill.config import DataConfig, ExportConfig, export_name, to_dict
from tfdistill.export import benchmark, verify, versions
from tfdistill.export.format import export_format
from tfdistill.export.saved_model import SAVED_MODEL
from tfdistill.export.verify import STUDENT
from tfdistill.records import Table
from tfdistill.training import study_folder
from tfdistill.utils import storage, tensorflow
from tfdistill.utils.progress import Silent
from tfdistill.utils.storage import digest

DEPLOYMENT_FILE = "deployment.json"
REMEDY = "Give the command that exported again: it is measured again."


def export_study(folder: Path, config: ExportConfig, progress: Silent | None = None) -> None:
    """Export what a study found and measure all forms of it in one run.

    The student is written in all formats, teacher and ensemble as SavedModels, as
    `NAME-student`, `NAME-teacher` and `NAME-ensemble`; NAME is the study's folder's, or `name`.

    Args:
        folder: The study's folder; `deployment.json` is left there for its report.
        config: Formats, folder, name and checks.
        progress: Where to say what is being done; None says nothing.

    Raises:
        UsageError: The study has no student, a package is missing, there is no room, or another
            process is working in the folder.
        Refused: A format that answers too differently from its network.
    """
    progress = progress or Silent()
    key = _key(folder, config)
    before = _before(folder, progress)
    damaged = [place for place in before["exports"] if not _intact(place)]
    if before["key"] == key and not damaged:
        return
    for place in damaged:
        progress.say(f"{place} is missing, damaged or changed; a new version is exported")
    rounding = [record.config.get("quantize") for record in records.read_all(folder)]
    bits = [(each["weight_bits"], each["activation_bits"]) for each in rounding if each]
    config.check_for_study(bits)
    with study_folder.alone(folder):
        _export(folder, config, key, progress)


def _export(folder: Path, config: ExportConfig, key: str, progress: Silent) -> None:
    tensorflow.start()
    from tfdistill.export import exporter, targets
    from tfdistill.training.session import Session

    session = Session(progress)  # the subjects of a study share their images
    found = [
        dataclasses.replace(subject, data=session.images(subject.data))
        for subject in targets.of_study(folder, config.weight_bits())
        if isinstance(subject.data, DataConfig)
    ]
    name = config.name or export_name(folder.resolve().name)
    done = []
    for subject in found:
        own = config if subject.kind == STUDENT else dataclasses.replace(config, formats=[])
        done.append(exporter.ensure(subject, f"{name}-{subject.kind}", own, progress))
    # The same images for all, to each at its network's size.
    shown = {
        subject.kind: exporter.test_images(subject.images, config.check_images) for subject in found
    }
    forms = _forms(found, done)
    images = [shown[form.model].images for form in forms]
    labels = next(iter(shown.values())).labels
    with verify.refused():
        rows = benchmark.measure(forms, images, labels, progress)
    exports = [str(one.folder) for one in done]
    storage.write_checked(folder / DEPLOYMENT_FILE, {"key": key, "exports": exports, "rows": rows})


def read(folder: Path) -> dict | None:
    """Return what was measured of a study's exports, None where nothing was.

    Raises:
        DamagedError: The file is not as it was written.
    """
    path = folder / DEPLOYMENT_FILE
    if not path.exists():
        return None
    found = storage.read_checked(path, REMEDY)
    if not {"key", "exports", "rows"} <= set(found):
        raise storage.DamagedError(path, "is damaged (it is not complete)", REMEDY)
    return found


def tables(folder: Path) -> list[Table]:
    """Return the deployment table of a study's folder, if it has one."""
    found = read(folder)
    return [benchmark.table(found["rows"])] if found else []


def _before(folder: Path, progress: Silent) -> dict:
    """Return what an earlier export left, as far as it can be relied on."""
    try:
        found = read(folder)
    except storage.DamagedError as error:
        progress.say(f"{error.problem}; the exports are measured again")
        found = None
    return found or {"key": "", "exports": []}


def _key(folder: Path, config: ExportConfig) -> str:
    """Return the hash of what exports follow from: the networks, and how they are written."""
    networks = [[record.name, record.key, record.weights] for record in records.read_all(folder)]
    return digest(networks, to_dict(config), benchmark.FORMAT)


def _intact(folder: str) -> bool:
    return versions.intact(Path(folder)) is not None


def _forms(found: list, done: list) -> list[benchmark.Form]:
    """Return the forms in the order of the table: the large networks first."""
    pairs = sorted(zip(found, done, strict=True), key=lambda pair: pair[0].kind == "student")
    return [
        benchmark.Form(_label(subject.kind, format), subject.kind, format, exported.file(format))
        for subject, exported in pairs
        for format in exported.formats
    ]


def _label(kind: str, format: str) -> str:
    return kind if format == SAVED_MODEL.name else f"{kind}, {export_format(format).title}"
