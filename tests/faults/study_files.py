"""A study's own files with one thing wrong: its configuration and its records, checksums right.

What a study has written may come from somebody else, or have been changed by hand: it is read as
carefully as a user's own YAML.
"""

import base64
import copy
import io
import json
from collections.abc import Callable

from PIL import Image

from tfdistill.utils import storage

DEEP = 30_000
LAUGHS = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


def configurations(text: str) -> dict[str, bytes]:
    """Return contents of a `config.yaml` that no study has written, by what is wrong with them.

    Args:
        text: What the study wrote.
    """
    plain = text.partition("\n")[2] if text.startswith(storage.MARK) else text
    cases = {
        "empty": "",
        "null": "null\n",
        "a list": "- 1\n",
        "a number": "3\n",
        "text": "nonsense\n",
        "half": plain[: len(plain) // 2] + '"',
        "no UTF-8": b"\xff\xfe\x00" + plain.encode("utf-16"),
        "NUL": plain + "\x00",
        "control characters": plain + "note: \x1b[31m\n",
        "aliases without end": f"a0: &a0 [1, 1]\n{LAUGHS}" + plain,
        "an alias of itself": "settings: &a [*a]\n" + plain.replace("settings: {}\n", ""),
        "a mapping in itself": "settings: &a {b: *a}\n" + plain.replace("settings: {}\n", ""),
        "deep lists": f"settings: {'[' * DEEP}{']' * DEEP}\n",
        "deep keys": "".join(f"{' ' * i}a:\n" for i in range(300)),
        "many values": "seeds: [" + "1, " * 30_000 + "1]\n",
        "many bytes": plain + "#" * 10_000_000,
        "many digits": plain + f"format: {'9' * 100_000}\n",
        "a huge exponent": _with(plain, "distillation", "{alpha: 1e999999999}"),
        "an object": "study: !!python/object/apply:os.system ['true']\n",
        "an unknown tag": "study: !mine x\n",
        "binary": "note: !!binary '%'\n" + plain.replace("note: ''\n", ""),
        "a key twice": plain + "study: single\n",
        "a key of no text": "? [1, 2]\n: 3\n" + plain,
        "an unknown key": plain + "unknown: 1\n",
        "two documents": plain + "---\n" + plain,
        "a wrong checksum": f"{storage.MARK}{'0' * 64}\n{plain}",
        "a format that is no number": "format: two\n" + _without_format(plain),
        "format null": "format: null\n" + _without_format(plain),
        "format NaN": "format: .nan\n" + _without_format(plain),
        "format true": "format: true\n" + _without_format(plain),
        "format 0": "format: 0\n" + _without_format(plain),
        "a later format": "format: 999\n" + _without_format(plain),
        "seeds of text": _with(plain, "seeds", "x"),
        "seeds null": _with(plain, "seeds", "null"),
        "data a list": _with(plain, "data", "[1]"),
        "training a number": _with(plain, "training", ".inf"),
        "teacher NaN": _with(plain, "teacher", ".nan"),
        "study a list": _with(plain, "study", "[mysteries]"),
        "study unknown": _with(plain, "study", "../../etc"),
        "sweep text": _with(plain, "sweep", "x"),
        "settings a list": _with(plain, "settings", "[[]]"),
    }
    return {
        name: text if isinstance(text, bytes) else text.encode() for name, text in cases.items()
    }


def _without_format(plain: str) -> str:
    return "".join(line for line in plain.splitlines(True) if not line.startswith("format:"))


def _with(plain: str, key: str, value: str) -> str:
    """Return a configuration with another value at a key of its first level."""
    kept, inside = [], False
    for line in plain.splitlines(True):
        if line[:1] not in (" ", "-"):
            inside = line.startswith(f"{key}:")
        kept += [] if inside else [line]
    return f"{key}: {value}\n" + "".join(kept)


def records(record: dict) -> dict[str, bytes]:
    """Return contents of a `record.json` with one thing wrong, by what it is.

    Args:
        record: What a run of a network wrote, that is taught by others.
    """
    found = {name: _checked(changed(copy.deepcopy(record))) for name, changed in _CHANGES.items()}
    for field in sorted({*record} - {"checksum", "format"}):
        for name, value in _VALUES.items():
            found[f"{field} is {name}"] = _checked({**record, field: value})
    text = json.dumps(record)
    return found | {
        "no JSON": b"{",
        "empty": b"",
        "a list": b"[]",
        "null": b"null",
        "deep": ('{"a":' * DEEP + "1" + "}" * DEEP).encode(),
        "no UTF-8": b"\xff\xfe" + text.encode("utf-16"),
        "a wrong checksum": json.dumps({**record, "checksum": "0" * 16}).encode(),
        "cut": text[: len(text) // 2].encode(),
    }


def _checked(record: dict) -> bytes:
    plain = {key: value for key, value in record.items() if key != "checksum"}
    try:
        return json.dumps({**plain, "checksum": storage.digest(plain)}).encode()
    except (ValueError, TypeError) as error:  # keys of several types
        raise AssertionError(plain) from error


def _deep() -> list:
    value: list = []
    for _ in range(500):
        value = [value]
    return value


# A field of a record takes none of these.
_VALUES = {
    "null": None,
    "a list of lists": [[1]],
    "a large number": 10**400,
    "deep": _deep(),
    "a mapping to nothing": {"a": None, "b": {"c": [{}]}},
}


def _set(*place) -> Callable[[dict], dict]:
    """Return what puts the last of `place` where the others lead."""
    *path, last, value = place

    def changed(record: dict) -> dict:
        inner = record
        for part in path:
            inner = inner[part]
        inner[last] = value
        return record

    return changed


def _without(*place) -> Callable[[dict], dict]:
    *path, last = place

    def changed(record: dict) -> dict:
        inner = record
        for part in path:
            inner = inner[part]
        del inner[last]
        return record

    return changed


_NAN, _INFINITE = float("nan"), float("inf")
_CHANGES: dict[str, Callable[[dict], dict]] = {
    "no name": _without("name"),
    "no config": _without("config"),
    "no training in config": _without("config", "training"),
    "no teachers in config": _without("config", "teachers"),
    "a name that leads elsewhere": _set("name", "../../elsewhere"),
    "another name than its config's": _set("name", "other"),
    "a config name that leads elsewhere": lambda record: _set("name", "../../x")(
        _set("config", "name", "../../x")(record)
    ),
    "an unknown status": _set("status", "unknown"),
    "a seed of text": _set("seed", "0"),
    "a seed of half": _set("seed", 0.5),
    "a negative seed": _set("seed", -1),
    "a seed that is true": _set("seed", True),
    "parameters of text": _set("parameters", "many"),
    "negative parameters": _set("parameters", -1),
    "seconds NaN": _set("seconds", _NAN),
    "seconds without end": _set("seconds", _INFINITE),
    "negative seconds": _set("seconds", -5.0),
    "accuracy NaN": _set("best", "test_accuracy", _NAN),
    "accuracy of text": _set("best", "test_accuracy", "0.9"),
    "accuracy of 96": _set("best", "test_accuracy", 96.0),
    "accuracy of no image": _set("best", "test_accuracy", -0.5),
    "accuracy null": _set("best", "test_accuracy", None),
    "accuracy a list": _set("best", "test_accuracy", [0.9]),
    "accuracy missing": _without("best", "test_accuracy"),
    "validation accuracy missing": _without("best", "validation_accuracy"),
    "last empty": _set("last", {}),
    "epoch NaN": _set("best", "epoch", _NAN),
    "nll of text": _set("best", "test_nll", "x"),
    "history of text": _set("history", "val_accuracy", "text"),
    "history of nothing": _set("history", "val_accuracy", [None]),
    "history of lists": _set("history", "val_accuracy", [[0.5]]),
    "history of unequal lengths": _set("history", "val_accuracy", [0.5]),
    "calibration without confidence": _without("calibration", "confidence"),
    "calibration of unequal lengths": _set("calibration", "count", [1.0]),
    "calibration of text": _set("calibration", "accuracy", ["x"] * 15),
    "weights of numbers": _set("weights", "best", 5),
    "versions of lists": _set("versions", "keras", ["3"]),
    "images of numbers": _set("images", "test", 5),
    "environment of lists": _set("environment", "threads", [2]),
    "threads without end": _set("environment", "threads", 10**9),
    "negative threads": _set("environment", "threads", -2),
    "a file elsewhere": _set("files", "../../../../dev/zero", "0" * 64),
    "a file of the system": _set("files", "/dev/zero", "0" * 64),
    "a file of number": _set("files", "best.keras", 3),
    "needed of text": _set("needed", ["single-0"]),
    "needed without weights": _set("needed", [{"config": {"name": "single-0"}}]),
    "needed without a name": _set("needed", [{"config": {}, "weights": {}}]),
    "needed with weights of numbers": lambda record: _set("needed", 0, "weights", "best", 3)(
        record
    ),
    "format null": _set("format", None),
    "format of text": _set("format", "2"),
    "format 0": _set("format", 0),
    "a later format": _set("format", 999),
    "a later field": _set("later", 1),
    "select unknown": _set("config", "training", "select", "worst"),
    "select null": _set("config", "training", "select", None),
    "training null": _set("config", "training", None),
    "epochs of text": _set("config", "training", "epochs", "many"),
    "alpha NaN": _set("config", "distillation", "alpha", _NAN),
    "features of text": _set("config", "distillation", "features", ["x"]),
    "teachers a number": _set("config", "teachers", 5),
    "teachers elsewhere": _set("config", "teachers", ["../../x"]),
    "members null": _set("config", "members", None),
    "data null": _set("config", "data", None),
    "an unknown kind": _set("config", "kind", "unknown"),
}


def _png(width: int = 2, height: int = 2) -> str:
    data = io.BytesIO()
    Image.new("L", (width, height)).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


_COVERS = {"mean": 0.5, "std": 0.1}
# What kinds of run measure besides figures, right: `config.settings` and `extra`.
EXTRAS: dict[str, tuple[dict, dict]] = {
    "multi_view": (
        {"data": {"classes": 2, "mu": 0.2}},
        {
            "networks": [
                {
                    "training_error": 0.0,
                    "test_error": 0.1,
                    "multi_view_error": 0.0,
                    "single_view_error": 0.5,
                    "responses": [[1.5, 0.25], [0.0, -1.0]],
                    "learned": [[True, False], [True, True]],
                }
            ]
        },
    ),
    "saliency": (
        {"image_ids": [], "singles": ["single-0"]},
        {
            "layer": None,
            "tested": 5,
            "networks": [
                {"name": name, "row": row, "blank": 0.0}
                | dict.fromkeys(("ensemble", "one", "chance"), _COVERS)
                for name, row in (("single-0", "single network"), ("distilled-0", "distilled"))
            ],
            "images": [
                {
                    "id": 7,
                    "label": "three",
                    "png": _png(),
                    "views": [
                        {
                            "name": name,
                            "map": _png(),
                            "predicted": "three",
                            "probability": 0.75,
                            "right": True,
                        }
                        for name in ("single-0", "distilled-0", "ensemble")
                    ],
                }
            ],
            "channels": {
                "network": "single-0",
                "label": "three",
                "channels": [
                    {
                        "number": 4,
                        "share": 0.5,
                        "images": [{"id": 7, "png": _png(), "map": _png()}],
                    }
                ],
            },
        },
    ),
}


def extras(kind: str) -> dict[str, tuple[dict, dict]]:
    """Return `config.settings` and `extra` of a kind of run with one thing wrong, by what it is."""
    found = {}
    for name, changed in _EXTRA_CHANGES[kind].items():
        settings, extra = copy.deepcopy(EXTRAS[kind])
        found[name] = changed({"settings": settings, **extra})
    for key in EXTRAS[kind][1]:
        for name, value in _VALUES.items():
            # The layer is each network's own, and channels need not be shown.
            if (key, value) not in (("layer", None), ("channels", None)):
                settings, extra = EXTRAS[kind]
                found[f"{key} is {name}"] = {"settings": settings, **extra, key: value}
    return {name: (each.pop("settings"), each) for name, each in found.items()}


_EXTRA_CHANGES: dict[str, dict[str, Callable[[dict], dict]]] = {
    "multi_view": {
        "no networks": _set("networks", []),
        "an error of text": _set("networks", 0, "test_error", "0.1"),
        "an error of 3": _set("networks", 0, "test_error", 3.0),
        "no single-view error": _without("networks", 0, "single_view_error"),
        "nothing learned": _without("networks", 0, "learned"),
        "learned a number": _set("networks", 0, "learned", [[1, 0], [1, 1]]),
        "learned of three views": _set("networks", 0, "learned", [[True] * 3] * 2),
        "learned of three classes": _set("networks", 0, "learned", [[True, True]] * 3),
        "responses of text": _set("networks", 0, "responses", [["x", "y"]] * 2),
        "a mu of 0": _set("settings", "data", "mu", 0),
        "a mu of text": _set("settings", "data", "mu", "0.2"),
        "data of text": _set("settings", "data", "x"),
        "no classes": _without("settings", "data", "classes"),
    },
    "saliency": {
        "channels of no network": _set("channels", "network", "single-9"),
        "no channels": _set("channels", "channels", []),
        "a channel without images": _set("channels", "channels", 0, "images", []),
        "a channel of text": _set("channels", "channels", 0, "number", "4"),
        "a channel's share of 3": _set("channels", "channels", 0, "share", 3.0),
        "a channel's map of text": _set("channels", "channels", 0, "images", 0, "map", "x"),
        "a network of no row": _without("networks", 0, "row"),
        "coverage of text": _set("networks", 1, "ensemble", "mean", "half"),
        "no coverage by chance": _without("networks", 1, "chance"),
        "a picture of text": _set("images", 0, "png", "no base64!"),
        "a picture that is none": _set("images", 0, "png", "AAAA"),
        "a picture cut short": _set("images", 0, "png", _png(64, 64)[:64]),
        "a picture of 9 million pixels": _set("images", 0, "views", 1, "map", _png(3000, 3000)),
        "a map that is null": _set("images", 0, "views", 0, "map", None),
        "no view of the ensemble": _without("images", 0, "views", 2),
        "a view of another": _set("images", 0, "views", 0, "name", "other"),
        "a probability of 75": _set("images", 0, "views", 0, "probability", 75.0),
        "right of text": _set("images", 0, "views", 0, "right", "yes"),
        "an id of text": _set("images", 0, "id", "7"),
    },
}
