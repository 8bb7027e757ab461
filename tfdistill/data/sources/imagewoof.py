"""ImageWoof: ten breeds of dog from ImageNet, short side 160 pixels (github.com/fastai/imagenette).

Prepared by TensorFlow Datasets from the published archive, which is either already at hand
(`data.archive`) or downloaded when the user asks for it, with the command in the error message.
"""

import contextlib
import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from tfdistill.config import DataConfig
from tfdistill.data import headers
from tfdistill.data.dataset import Reader, Source
from tfdistill.data.sources import tfds_prepared
from tfdistill.utils import checks

tfds = tfds_prepared.import_tfds()  # a builder is a class of that package
URL = "https://s3.amazonaws.com/fast-ai-imageclas/imagewoof2-160.tgz"
IMAGE_SIZE = 160
BREEDS = {
    "n02086240": "shih_tzu",
    "n02087394": "rhodesian_ridgeback",
    "n02088364": "beagle",
    "n02089973": "english_foxhound",
    "n02093754": "border_terrier",
    "n02096294": "australian_terrier",
    "n02099601": "golden_retriever",
    "n02105641": "old_english_sheepdog",
    "n02111889": "samoyed",
    "n02115641": "dingo",
}


class Imagewoof(tfds.core.GeneratorBasedBuilder):  # type: ignore[name-defined]  # of an Any
    """Builder of the TensorFlow data set `imagewoof`.

    Args:
        archive: Path of an already downloaded imagewoof2-160.tgz; None downloads it.

    Example:
        >>> Imagewoof(data_dir="data", archive="imagewoof2-160.tgz").download_and_prepare()
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, archive: str | None = None, **settings):
        self._archive = archive
        super().__init__(**settings)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=list(BREEDS.values())),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Ten breeds of dog from ImageNet, 160 pixels on the short side.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage="https://github.com/fastai/imagenette",
        )

    def _split_generators(self, dl_manager):
        archive = self._archive or dl_manager.download(URL)
        parts = {"train": "train", "validation": "val"}
        return {
            split: self._generate_examples(dl_manager.iter_archive(archive), part)
            for split, part in parts.items()
        }

    def _generate_examples(self, files: Iterable[tuple[str, Any]], part: str):
        # Members are read, never extracted: what their paths and links say reaches no file.
        for name, file in files:
            *_, folder, breed, file_name = ("", "", "", *PurePath(name).parts)
            if file_name.endswith(".JPEG") and folder == part and breed in BREEDS:
                yield file_name, {"image": io.BytesIO(_image(name, file)), "label": BREEDS[breed]}


def read(config: DataConfig, _: str = "") -> Source:
    """Return ImageWoof; its validation images are the test set.

    Raises:
        UsageError: It is not prepared and no usable `config.archive` is given.
    """
    folder = tfds_prepared.data_dir(config)
    if not (Path(folder) / "imagewoof" / str(Imagewoof.VERSION) / "dataset_info.json").exists():
        _prepare(folder, config.archive)
    builder = tfds.core.read_only_builder.builder_from_files("imagewoof", data_dir=folder)
    size = config.image_size or IMAGE_SIZE
    return tfds_prepared.read_builder(builder, dataclasses.replace(config, image_size=size))


def _image(name: str, file) -> bytes:
    data = file.read(headers.MAX_BYTES + 1)
    try:
        if len(data) > headers.MAX_BYTES:
            raise headers.ImageError(f"It is larger than {headers.MAX_BYTES // 2**20} MB.")
        headers.checked(data, 3)
    except headers.ImageError as error:
        raise checks.UsageError(f"The member {checks.shown(name)} is no image: {error}") from None
    return data


def _prepare(folder: str, archive: str | None) -> None:
    if archive is None:
        raise checks.UsageError(
            f"ImageWoof is not prepared in data_dir {folder}. Set data.archive to a downloaded "
            f'imagewoof2-160.tgz, or fetch it: python -c "from tfdistill.data.sources.imagewoof '
            f"import Imagewoof; Imagewoof(data_dir='{folder}').download_and_prepare()\""
        )
    if not Path(archive).expanduser().is_file():
        raise checks.UsageError(
            f"data.archive must be a downloaded imagewoof2-160.tgz. Received: {archive!r}, which "
            f"is no file."
        )
    try:
        # TFDS writes its progress to both streams.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            path = str(Path(archive).expanduser().resolve())
            Imagewoof(data_dir=folder, archive=path).download_and_prepare()
    except Exception as error:
        raise checks.UsageError(
            f"Cannot prepare ImageWoof from {archive} in data_dir {folder}: "
            f"{' '.join(str(error).split())[:200]}. Give the published imagewoof2-160.tgz."
        ) from error


READER = Reader(read)
