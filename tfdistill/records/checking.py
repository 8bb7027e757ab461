"""Whether what a record's file holds is a record: every field of its type and in its range.

A file may have been changed by hand, or come from somebody else with a right checksum. What is
found wrong here would be a traceback, or a wrong figure, in the report.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from tfdistill.config.registry import RUN_KINDS
from tfdistill.config.study import NETWORK
from tfdistill.records import extras
from tfdistill.utils import checks

FINISHED, DIVERGED = "finished", "diverged"
# More than any network, training or machine has.
MOST = 10**18
# What tables and figures show of a finished run of a network.
MEASURED = ("validation_accuracy", "test_accuracy")
SHARES = (*MEASURED, "test_agreement", "test_ece", "test_ece_equal_mass")
NO_FOLDER = ("", ".", "..")


def check(record: type, values: dict[str, Any]) -> None:
    """Raise at the first field that is of no record.

    Args:
        record: The dataclass, whose types hold.
        values: What the file holds, without its format and checksum; `config` as this version
            writes it.

    Raises:
        UsageError: The field, what is wrong with it.
    """
    _check_types(record, values)
    checks.one_of("config.kind", values["config"]["kind"], RUN_KINDS)
    config, status = values["config"], values.get("status", FINISHED)
    if status not in (FINISHED, DIVERGED):
        raise checks.UsageError(f"status is {checks.shown(status)}")
    if config["distillation"] and not config["teachers"]:
        raise checks.UsageError("config has a distillation and no teachers")
    _check_name("name", values["name"])
    for name in ("name", "seed"):
        if values[name] != config[name]:
            raise checks.UsageError(
                f"{name} is {checks.shown(values[name])}, in config {checks.shown(config[name])}"
            )
    for name, of in (("seed", checks.LARGEST), ("parameters", MOST), ("flops", MOST)):
        _check_range(name, values.get(name, 0), of)
    _check_range("seconds", values.get("seconds", 0.0), MOST)
    _check_figures(values, must=status == FINISHED and config["kind"] == NETWORK)
    extras.check(config, values.get("extra", {}))
    _check_lists("history", values.get("history", {}))
    _check_lists("calibration", values.get("calibration", {}), ("count", "confidence", "accuracy"))
    for name in values.get("files", {}):
        _check_name("files", name)
    environment = values.get("environment", {})
    if not all(isinstance(value, (str, int)) for value in environment.values()):
        raise checks.UsageError("environment holds other than text and numbers")
    threads = environment.get("threads", 1)
    if type(threads) is not int or not 1 <= threads <= 2**16:
        raise checks.UsageError(f"environment.threads is {checks.shown(threads)}")
    for place, each in enumerate(values.get("needed", ())):
        _check_name(f"needed[{place}].config.name", each["config"].get("name"))
        for name in each["config"].get("teachers") or ():
            _check_name(f"needed[{place}].config.teachers", name)
    for part in ("teachers", "members"):
        for name in config[part]:
            _check_name(f"config.{part}", name)


def check_needed(values: Any) -> None:
    """Raise unless runs that were needed each have a configuration and weights."""
    fits = isinstance(values, list) and all(
        isinstance(each, dict)
        and set(each) == {"config", "weights"}
        and isinstance(each["config"], dict)
        and isinstance(each["weights"], dict)
        and all(isinstance(value, str) for value in each["weights"].values())
        for each in values
    )
    if not fits:
        raise checks.UsageError("needed is no list of configurations and weights")


def _check_types(record: type, values: dict[str, Any]) -> None:
    from pydantic import ValidationError

    try:
        _schema(record).model_validate_json(json.dumps(values).encode())
    except ValidationError as error:
        raise checks.UsageError(extras.problem(error)) from None


@functools.cache
def _schema(record: type) -> Any:
    from pydantic import ConfigDict, create_model

    # What lies in a file of its own is named by its type's name alone.
    fields = [field for field in dataclasses.fields(record) if not isinstance(field.type, str)]
    kinds: dict[str, Any] = {
        field.name: (field.type, ... if _is_required(field) else None) for field in fields
    }
    # A diverged run's figures are no numbers.
    config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())
    return create_model(record.__name__, __config__=config, **kinds)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _check_name(where: str, name: Any) -> None:
    """Raise unless a name is that of one folder or file, and leads nowhere else."""
    plain = isinstance(name, str) and "\0" not in name and PurePosixPath(name).name == name
    if not plain or name in NO_FOLDER:
        raise checks.UsageError(f"{where} is {checks.shown(name)}, no name of a file")


def _check_range(where: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        raise checks.UsageError(f"{where} is {checks.shown(value)}")


def _check_figures(values: dict[str, Any], must: bool) -> None:
    best, last = values.get("best", {}), values.get("last", {})
    if set(best) != set(last):
        raise checks.UsageError("best and last hold different figures")
    for part, figures in (("best", best), ("last", last)):
        missing = [name for name in MEASURED if must and name not in figures]
        if missing:
            raise checks.UsageError(f"{part}.{missing[0]} is missing")
        for name, value in figures.items():
            if name in SHARES:
                _check_range(f"{part}.{name}", value, 1.0)
        _check_range(f"{part}.epoch", figures.get("epoch", 0), MOST)
        _check_size(part, figures.values())


def _check_lists(where: str, lists: dict[str, list[float]], names: tuple[str, ...] = ()) -> None:
    if names and lists and set(lists) != set(names):
        raise checks.UsageError(f"{where} does not hold {', '.join(names)}")
    if len({len(values) for values in lists.values()}) > 1:
        raise checks.UsageError(f"{where} holds lists of different lengths")
    for values in lists.values():
        _check_size(where, values)


def _check_size(where: str, values: Iterable[float]) -> None:
    """Raise at a whole number that no float can hold."""
    for value in values:
        if isinstance(value, int) and abs(value) > MOST:
            raise checks.UsageError(f"{where} holds {checks.shown(value)}")
