"""What the name of a network says before Keras is there to build it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfdistill.utils.registry import imported


@dataclass(frozen=True)
class Family:
    """Networks that one function builds, by the names that a configuration holds.

    Args:
        builder: `module:function` of `(config, input_shape, num_classes, mean, std)`, imported when
            a network is built; what these are is said at `tfdistill.models.build`.
        names: All names; or none, where `pattern` says them.
        settings: What it takes of a `ModelConfig` besides the name: `width`, `dropout`, ImageNet
            `weights`, or the `path` that it must have.
        pattern: Regular expression of its names, where they are too many to list.
        shown: What stands for its names in messages; empty lists them.
        layers: Whether it has layers of its own, which a saved network needs when it is loaded.

    Example:
        >>> Family("tfdistill.models.cnn:build", ("cnn2", "cnn4"), ("width", "dropout"))
    """

    builder: str
    names: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    pattern: str = ""
    shown: str = ""
    layers: bool = False

    def has(self, name: str) -> bool:
        """Return whether a network of this name is one of the family."""
        return name in self.names or bool(self.pattern and re.fullmatch(self.pattern, name))

    @property
    def build(self) -> Callable[..., Any]:
        """The function that builds its networks."""
        return imported(self.builder)


# Wide ResNets have 6n + 4 layers.
WIDE = rf"wrn-({'|'.join(map(str, range(10, 1000, 6)))})-[1-9]\d*"
# Of keras.applications (https://keras.io/api/applications), which takes seconds to import.
APPLICATIONS = (
    *(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")),
    *(f"DenseNet{depth}" for depth in (121, 169, 201)),
    *(f"EfficientNetB{size}" for size in range(8)),
    *(f"EfficientNetV2{size}" for size in ("B0", "B1", "B2", "B3", "S", "M", "L")),
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    *(f"MobileNetV3{size}" for size in ("Small", "Large")),
    *(f"NASNet{size}" for size in ("Mobile", "Large")),
    *(f"ResNet{depth}{version}" for version in ("", "V2") for depth in (50, 101, 152)),
    "VGG16",
    "VGG19",
    "Xception",
)
