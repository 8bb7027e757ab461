"""What this machine offers: devices, XLA, precision, versions, data sets found."""

import os
import shutil
from pathlib import Path

from tfdistill.records import Table

_PACKAGES = (
    "tfdistill",
    "tensorflow",
    "keras",
    "keras-tuner",
    "tensorflow-datasets",
    "pandas",
    "numpy",
    "tensorboard",
)


def tables(data_dir: str | None = None) -> list[Table]:
    """Return the tables of `tfdistill doctor`: machine, versions, data.

    Args:
        data_dir: Where prepared TensorFlow Datasets lie; None means the usual place.
    """
    return [_machine(), _versions(), _data(data_dir)]


def _machine() -> Table:
    from tfdistill.utils import machine

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    xla = machine.uses_xla("auto")
    rows = (
        ("device", machine.device()),
        ("memory", f"{memory / 2**30:.1f} GiB"),
        ("free disk here", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB"),
        ("jit: auto", "XLA on" if xla else "XLA off (it slows small networks on a CPU)"),
        ("precision", "mixed_bfloat16 pays" if xla else "float32; mixed precision is slower here"),
        ("cache.precision", f"bfloat16 is {machine.bfloat16_here()}"),
    )
    return Table("Machine", ("", ""), rows)


def _versions() -> Table:
    from tfdistill.utils import machine

    rows = tuple((package, machine.version(package)) for package in _PACKAGES)
    return Table("Versions", ("package", "version"), rows)


def _data(data_dir: str | None) -> Table:
    from tfdistill.config import DataConfig
    from tfdistill.data.sources import tfds_prepared

    folder = Path(tfds_prepared.data_dir(DataConfig(data_dir=data_dir)))
    rows = [("digits", "built in"), ("prepared sets in", str(folder))]
    infos = sorted(folder.glob("*/*/dataset_info.json"))
    for info in infos:
        rows.append((f"tfds:{info.parts[-3]}", f"version {info.parts[-2]}"))
    if not infos:
        rows.append(("", "none found"))
    return Table("Data", ("source", ""), tuple(rows))
