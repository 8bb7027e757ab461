"""What can be exported: the network of a finished run, an ensemble of such, or a file of one's own.

A subject is a network with all that is known about it: its record, its teachers, its images.
"""

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keras

from tfdistill import data, records
from tfdistill.config import NETWORK as NETWORK_RUN
from tfdistill.config import DataConfig, ModelConfig, build, export_name
from tfdistill.data import Dataset
from tfdistill.distillation.distiller import Distiller
from tfdistill.distillation.ensembles import Ensemble
from tfdistill.distillation.pairs import check_network, on_logits
from tfdistill.export import versions
from tfdistill.export.verify import ENSEMBLE, NETWORK, STUDENT, TEACHER
from tfdistill.models.logits import SIGMOID, SOFTMAX, final_activation
from tfdistill.records import FINISHED, Record
from tfdistill.training import evaluation, tasks
from tfdistill.utils import checks
from tfdistill.utils.storage import digest

OWN_FILES = (".keras", ".h5")


@dataclass(frozen=True, eq=False)
class Subject:
    """A network to export.

    Args:
        kind: `student` (it was taught), `teacher` (it taught), `ensemble` or `network`.
        name: The run's name, or that of the file.
        data: How its images are read, or the images themselves.
        study: Folder of its study; None for a file of one's own.
        record: Of its run; None for a file of one's own, or an ensemble that has no run.
        members: Names of the runs that an ensemble averages.
        average: How it averages them.
        path: The file of one's own.
        model: The network itself, where it is in memory.
        part: `best` or `last` weights; None takes what the run's configuration selects.
        measured: Its accuracy on all test images, 0..1, where there is no record of it.
    """

    kind: str
    name: str
    data: DataConfig | Dataset
    study: Path | None = None
    record: Record | None = None
    members: tuple[str, ...] = ()
    average: str = "probabilities"
    path: Path | None = None
    model: keras.Model | None = None
    part: str | None = None
    measured: float | None = None

    @property
    def default_name(self) -> str:
        """What its exports are called unless another name is given."""
        study = f"{self.study.resolve().name}-" if self.study else ""
        return export_name(study + self.name)

    @property
    def key(self) -> str:
        """Hash of the weights: of its run and of the runs that it averages."""
        if self.model is not None:
            return digest(
                [hashlib.sha256(w.tobytes()).hexdigest() for w in self.model.get_weights()]
            )
        if self.path:
            one = self.path.is_file()
            return digest(versions.sha256(self.path) if one else versions.files_of(self.path))
        own = [self.record.key, self.record.weights] if self.record else []
        members = [[member.key, member.weights] for member in self.member_records]
        return digest(own, members, self.average, self.part)

    @cached_property
    def images(self) -> Dataset:
        """The images, read from disk when first asked for."""
        return data.load(self.data) if isinstance(self.data, DataConfig) else self.data

    @cached_property
    def teachers(self) -> list[Record]:
        """Records of the runs that taught it."""
        return self._records(self.record.config["teachers"] if self.record else ())

    @cached_property
    def member_records(self) -> list[Record]:
        """Records of the runs that it averages."""
        return self._records(self.members)

    def _records(self, names) -> list[Record]:
        return records.read_runs(self.study, names) if self.study else []

    def network(self) -> keras.Model:
        """Return the network, or an `Ensemble` of its members."""
        if self.model is not None:
            return self.model
        if self.path:
            own = ModelConfig(name="saved", path=str(self.path))
            return evaluation.build(own, self.images)
        if self.study is None:
            raise ValueError(f"{self.name} has no model, no path and no study.")
        if self.members:
            members = [evaluation.load_network(self.study, n, self.images) for n in self.members]
            return Ensemble(members, average=tasks.of(self.images).average(self.average))
        return evaluation.load_network(self.study, self.name, self.images, self.part)


def of_network(
    network: keras.Model, name: str, images: data.Dataset, accuracy: float | None = None
) -> Subject:
    """Return a network in memory; of a `Distiller`, its student.

    Args:
        network: A Keras model to logits or their softmax, an `Ensemble` or a `Distiller`.
        name: Name of the model.
        images: The data set that it was trained on.
        accuracy: What was measured of it on all test images, 0..1; None if it is not known.

    Raises:
        UsageError: A network that is none, ends in sigmoid or has several outputs.
    """
    kind = ENSEMBLE if isinstance(network, Ensemble) else NETWORK
    if isinstance(network, Distiller):
        network, kind = network.student, STUDENT
    check_network("network", network)
    ends = final_activation(network)
    if isinstance(network, Ensemble):
        ends = {"sigmoid": SIGMOID, "probabilities": SOFTMAX}.get(network.average)
    if ends == (SOFTMAX if images.multi_label else SIGMOID):
        needed = "any number of labels" if images.multi_label else "one of several classes"
        raise checks.UsageError(
            f"An export for these images gives each {needed}. Received: {network.name}, which ends "
            f"in {ends}. Give a network or images that fit the other."
        )
    if accuracy is not None:
        checks.fraction("accuracy", accuracy)
    # An export holds its softmax itself.
    network = on_logits(network, "network")
    return Subject(kind, name, images, model=network, measured=accuracy)


def of_path(path: Path, images: DataConfig | None = None) -> Subject:
    """Return what a path names: a run's folder, a file of its weights, or a file of one's own.

    Args:
        path: `STUDY/runs/NAME`, `STUDY/runs/NAME/best.keras`, or another .keras file or SavedModel.
        images: The images of a network of one's own.

    Raises:
        UsageError: There is nothing to export at the path, or its images are not known.
    """
    path = Path(path)
    folder = path.parent if path.suffix in OWN_FILES else path
    record = _record_in(folder)
    if record is not None:
        part = path.stem if path != folder else None
        return dataclasses.replace(_of_record(folder.resolve().parents[1], record), part=part)
    if not path.exists() or path.is_dir() and not (path / "saved_model.pb").exists():
        raise checks.UsageError(
            f"There is nothing to export at {path}. Give a study's folder, the folder of one of "
            "its runs, a .keras file or a SavedModel."
        )
    if images is None:
        raise checks.UsageError(
            f"{path} is not part of a study, so its images are not known. Name them with --config "
            "STUDY.yaml or --data.source."
        )
    name = path.resolve().stem
    return Subject(NETWORK, name, images, path=path)


def of_study(folder: Path, weight_bits: int | None = None) -> list[Subject]:
    """Return a study's best student, its teacher and, with several teachers, their ensemble.

    The best student is the taught network of the highest validation accuracy; the teacher is the
    best of its teachers by the same measure.

    Args:
        folder: The study's.
        weight_bits: Only a student that rounds, its weights to so many bits or fewer, will do.

    Raises:
        UsageError: No network of the study was taught by another.
    """
    finished = [record for record in records.read_all(folder) if record.status == FINISHED]
    students = [record for record in finished if record.config["teachers"] and _has_network(record)]
    if weight_bits:
        students = [record for record in students if _bits(record) <= weight_bits]
    if not students:
        raise checks.UsageError(
            f"{folder} has no finished student to export. Let the study finish one, or name the "
            "folder of one run."
        )
    student = max(students, key=_validation_accuracy)
    found = [_of_record(folder, student)]
    teachers = [record for record in finished if record.name in student.config["teachers"]]
    if teachers:
        found.append(_of_record(folder, max(teachers, key=_validation_accuracy)))
    if len(teachers) > 1:
        found.append(_ensemble(folder, student, finished))
    return found


def _of_record(study: Path, record: Record) -> Subject:
    if not _has_network(record) or record.status != FINISHED:
        raise checks.UsageError(
            f"The run {record.name} has no network that could be exported. Name another run."
        )
    config = record.config
    images = build(DataConfig, config["data"])
    return Subject(
        _kind(study, record),
        record.name,
        images,
        study=study,
        record=record,
        members=tuple(config["members"]),
        average=config["average"],
    )


def _kind(study: Path, record: Record) -> str:
    if record.config["members"]:
        return ENSEMBLE
    if record.config["teachers"]:
        return STUDENT
    taught = any(record.name in other.config["teachers"] for other in records.read_all(study))
    return TEACHER if taught else NETWORK


def _ensemble(study: Path, student: Record, finished: list[Record]) -> Subject:
    """Return the ensemble of a student's teachers, with its record if the study evaluated it."""
    names = student.config["teachers"]
    average = student.config["distillation"]["average"]
    for record in finished:
        if record.config["members"] == names and record.config["average"] == average:
            return _of_record(study, record)
    images = build(DataConfig, student.config["data"])
    return Subject(ENSEMBLE, "ensemble", images, study=study, members=tuple(names), average=average)


def _record_in(folder: Path) -> Record | None:
    return records.read(folder) if folder.is_dir() else None


def _has_network(record: Record) -> bool:
    return record.config.get("kind", NETWORK_RUN) == NETWORK_RUN


def _bits(record: Record) -> float:
    """Return the bits of a network's weights where it rounds them, inf where it does not."""
    rounding = record.config.get("quantize")
    return rounding["weight_bits"] if rounding else math.inf


def _validation_accuracy(record: Record) -> float:
    return record.figures["validation_accuracy"]
