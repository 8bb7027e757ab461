"""The names of networks that a configuration may hold; Keras is not needed to check one."""

import re

from tfdistill.utils import checks

CNNS = ("cnn2", "cnn4")
CIFAR_RESNETS = {  # name: (depth, whether it has the widths of the x4 networks)
    "resnet8": (8, False),
    "resnet14": (14, False),
    "resnet20": (20, False),
    "resnet32": (32, False),
    "resnet44": (44, False),
    "resnet56": (56, False),
    "resnet110": (110, False),
    "resnet8x4": (8, True),
    "resnet32x4": (32, True),
}
RESNETS = {  # name: (depth, stem)
    "resnet18": (18, "cifar"),
    "resnet34": (34, "cifar"),
    "resnet50": (50, "cifar"),
    "resnet18-imagenet": (18, "imagenet"),
    "resnet34-imagenet": (34, "imagenet"),
    "resnet50-imagenet": (50, "imagenet"),
}
APPLICATIONS = {  # name: the module of keras.applications that prepares its images
    **{f"ConvNeXt{size}": "convnext" for size in ("Tiny", "Small", "Base", "Large", "XLarge")},
    **{f"DenseNet{depth}": "densenet" for depth in (121, 169, 201)},
    **{f"EfficientNetB{size}": "efficientnet" for size in range(8)},
    **{f"EfficientNetV2{size}": "efficientnet_v2" for size in ("B0", "B1", "B2", "B3")},
    **{f"EfficientNetV2{size}": "efficientnet_v2" for size in ("S", "M", "L")},
    "InceptionResNetV2": "inception_resnet_v2",
    "InceptionV3": "inception_v3",
    "MobileNet": "mobilenet",
    "MobileNetV2": "mobilenet_v2",
    **{f"MobileNetV3{size}": "mobilenet_v3" for size in ("Small", "Large")},
    **{f"NASNet{size}": "nasnet" for size in ("Mobile", "Large")},
    **{f"ResNet{depth}": "resnet" for depth in (50, 101, 152)},
    **{f"ResNet{depth}V2": "resnet_v2" for depth in (50, 101, 152)},
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "Xception": "xception",
}
KERAS = "keras:"
_WIDE = re.compile(r"wrn-(\d+)-(\d+)")


def known_names() -> tuple[str, ...]:
    """Return all names, with `wrn-D-K` and `keras:NAME` standing for many, for help texts."""
    patterns = ("wrn-D-K (D = 6n + 4, as wrn-28-10)", "keras:NAME (as keras:MobileNetV2)", "saved")
    return (*CNNS, *CIFAR_RESNETS, *RESNETS, *patterns)


def check_name(name: str) -> str:
    """Return `name` if it is that of a network, without importing Keras.

    Args:
        name: As in `ModelConfig`.

    Returns:
        The same name.

    Raises:
        UsageError: An unknown name; the message lists the known ones.

    Example:
        >>> check_name("wrn-28-10")
        'wrn-28-10'
    """
    if name.startswith(KERAS):
        return checks.one_of("model.name", name, [KERAS + known for known in APPLICATIONS])
    if name in (*CNNS, *CIFAR_RESNETS, *RESNETS, "saved") or wide(name):
        return name
    return checks.one_of("model.name", name, known_names())


def wide(name: str) -> tuple[int, int] | None:
    """Return depth and factor of a Wide ResNet's name, or None if it is not one."""
    match = _WIDE.fullmatch(name)
    depth, factor = map(int, match.groups()) if match else (0, 0)
    return (depth, factor) if depth >= 10 and depth % 6 == 4 and factor >= 1 else None
