"""What a .keras file says of its network beside what Keras writes: a member of its archive.

Keras leaves it alone when it loads the file, and out when it saves the network again. A file
without it says nothing.
"""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfdistill.utils import checks

MEMBER = "tfdistill.json"


def write_notes(
    path: Path, multi_label: bool | None = None, class_names: Sequence[str] | None = None
) -> None:
    """Add to a .keras file what its network's outputs are.

    Args:
        path: A .keras file without notes.
        multi_label: Whether an image may have any number of the classes; None is not said.
        class_names: One for each output, in their order; None is not said.
    """
    notes = {"multi_label": multi_label, "class_names": class_names and list(class_names)}
    known = {key: value for key, value in notes.items() if value is not None}
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(MEMBER, json.dumps(known))


def read_notes(path: Path) -> dict[str, Any]:
    """Return what `write_notes` was given; empty where nothing was, or of another kind of file.

    Raises:
        UsageError: They cannot be read.
    """
    if not path.is_file() or not zipfile.is_zipfile(path):
        return {}
    try:
        with zipfile.ZipFile(path) as file:
            notes = json.loads(file.read(MEMBER)) if MEMBER in file.namelist() else {}
        return dict(notes)
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise checks.UsageError(
            f"{MEMBER} in {path} cannot be read: {checks.first_line(error)} Save the network again."
        ) from error
