"""Records of a finished study in one small file, to be kept with its results.

`records.jsonl.xz` has one line for each record: figures, history, configuration, versions, and what
the network said of each test image. Results that were published before such files were kept have
`results.csv` alone, which holds figures and no histories, calibration or predictions.
"""

import csv
import dataclasses
import json
import lzma
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tfdistill.records.predictions import Predictions
from tfdistill.records.record import Record, as_values, of_values
from tfdistill.utils import checks, storage

ARCHIVE_FILE, RESULTS_FILE = "records.jsonl.xz", "results.csv"
_PREDICTIONS = "predictions"
# More digits than float16 has.
_DIGITS = 4


def write_archive(path: Path, records: Iterable[Record]) -> None:
    """Write records and, of those that have them, predictions; equal records give equal bytes."""
    with (
        storage.appearing(Path(path)) as temporary,
        lzma.open(temporary, "wt", encoding="utf-8", preset=9) as file,
    ):
        for record in records:
            values = as_values(record)
            if record.predictions is not None:
                values[_PREDICTIONS] = _listed(record.predictions)
            file.write(json.dumps(values, sort_keys=True) + "\n")


def read_archive(path: Path) -> list[Record]:
    """Return the records of `write_archive`, in its order.

    Raises:
        DamagedError: The file is not as it was written.
        LaterError: A later version of this package wrote it.
    """
    path, found = Path(path), []
    try:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
    except (lzma.LZMAError, EOFError, ValueError) as error:
        raise storage.DamagedError(path, f"is damaged ({checks.first_line(error)})") from None
    for values in lines:
        if not isinstance(values, dict):
            raise storage.DamagedError(path, "is damaged (a line of it is no record)")
        listed = values.pop(_PREDICTIONS, None)
        record = of_values(path, values)
        found.append(_with(record, listed) if listed else record)
    return found


def read_results(path: Path, configs: Mapping[str, dict[str, Any]]) -> list[Record]:
    """Return what `results.csv` tells of a study's runs: figures, without all that is not in it.

    Args:
        path: The file.
        configs: The configuration of each planned run, by name.

    Raises:
        DamagedError: It is no such file, or has a run that is not planned.
    """
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    if not lines or not {"run", "row", "seed", "status"} <= lines[0].keys():
        raise storage.DamagedError(path, "is no table of runs")
    if unknown := [line["run"] for line in lines if line["run"] not in configs]:
        raise storage.DamagedError(
            path, f"has runs that config.yaml beside it does not plan, such as {unknown[0]}"
        )
    return [_of_line(line, configs[line["run"]]) for line in lines]


def _of_line(line: dict[str, str], config: dict[str, Any]) -> Record:
    def figures(part: str) -> dict[str, float]:
        known = {name: text for name, text in line.items() if name.startswith(part) and text}
        return {name.removeprefix(part): float(text) for name, text in known.items()}

    return Record(
        name=line["run"],
        row=line["row"],
        seed=int(line["seed"]),
        key=line.get("key", ""),
        config=config,
        status=line["status"],
        best=figures("best_"),
        last=figures("last_"),
        parameters=int(float(line.get("parameters") or 0)),
        flops=int(float(line.get("flops") or 0)),
        seconds=float(line.get("seconds") or 0),
    )


def _listed(predictions: Predictions) -> dict[str, list[float]]:
    return {
        "labels": [int(label) for label in predictions.labels],
        "classes": [int(each) for each in predictions.classes],
        "probabilities": [round(float(share), _DIGITS) for share in predictions.probabilities],
    }


def _with(record: Record, listed: dict[str, list[float]]) -> Record:
    import numpy as np

    predictions = Predictions(
        np.array(listed["labels"], np.uint16),
        np.array(listed["classes"], np.uint16),
        np.array(listed["probabilities"], np.float16),
    )
    return dataclasses.replace(record, predictions=predictions)
