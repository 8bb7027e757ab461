"""Configurations that are right or wrong in one place, made from the dataclasses' own types."""

import contextlib
import dataclasses
import io
import os
import types
import typing
from dataclasses import dataclass
from pathlib import Path

import yaml
from hypothesis import strategies as st

from tfdistill.cli.main import main
from tfdistill.config import (
    AVERAGES,
    CACHE_DTYPES,
    CACHE_PRECISIONS,
    DIVERGENCES,
    NORMALIZATIONS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    TUNERS,
    FeatureConfig,
    StudyConfig,
    read_yaml,
)
from tfdistill.config.data import STORAGES
from tfdistill.config.registry import LOGIT_LOSSES, STUDIES

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("**/*.yaml"))
WITH_SETTINGS = [values for values in map(read_yaml, CONFIGS) if "settings" in values]
BASE = {
    "seeds": [0, 1],
    "data": {"source": "digits", "validation": 100, "train_examples": 200},
    "teacher": {"name": "cnn2", "width": 0.125},
    "training": {"epochs": 2, "batch_size": 32},
}
CHOICES = {
    "average": AVERAGES,
    "divergence": DIVERGENCES,
    "dtype": CACHE_DTYPES,
    "format": ("table", "json", "csv"),
    "jit": ("auto", "on", "off"),
    "normalize": NORMALIZATIONS,
    "optimizer": OPTIMIZERS,
    "outputs": ("auto", "logits", "probabilities"),
    "precision": PRECISIONS,
    "cache.precision": CACHE_PRECISIONS,
    "top_k": ("all",),
    "rotation_fill": ("reflect", "constant"),
    "schedule": SCHEDULES,
    "select": ("best", "last"),
    "storage": STORAGES,
    "strategy": ("none",),  # `mirrored` needs several devices
    "tuner": TUNERS,
    "distillation.loss": tuple(LOGIT_LOSSES),
    "self_distillation.loss": tuple(LOGIT_LOSSES),
    "study": ("mysteries", "single"),
    "data.source": ("digits", "imagewoof", "tfds:cifar10", "folder:photos"),
    "teacher_data.source": ("digits", "imagewoof", "tfds:cifar10", "folder:photos"),
    "teacher.name": ("cnn2", "cnn4", "resnet8", "wrn-10-2"),
    "student.name": ("cnn2", "cnn4", "resnet8", "wrn-10-2"),
}
# Of these, one has no sense without another; the tests beside the dataclasses hold them.
TOGETHER = (
    "teacher_data",
    "path",
    "top_k",
    "temperatures",
    "features",
    "teacher_view",
    "settings",
    "space",
    "classes",
    "antialias",
    "labelled_examples",
    "labelled_share",
    "steps",
    "fine_tune",
    "trained_layers",
    "cutmix",
    "student.pixel_range",
    "teacher.pixel_range",
)
FRACTIONS = (
    "alpha",
    "dropout",
    "min_confidence",
    "resized_crop",
    "momentum",
    "label_smoothing",
    "ema",
    "erasing",
)
TEXTS = st.text(max_size=30)
NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers()


@dataclass(frozen=True)
class Field:
    """A field of a configuration: its dotted key and its type."""

    key: str
    hint: object

    @property
    def options(self) -> tuple:
        """The types that it may have."""
        return (
            typing.get_args(self.hint) if isinstance(self.hint, types.UnionType) else (self.hint,)
        )

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it may be; empty where any text may stand."""
        return CHOICES.get(self.key, CHOICES.get(self.key.rpartition(".")[2], ()))


@dataclass(frozen=True)
class Case:
    """A wrong configuration, and what its message must name."""

    text: str
    options: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


def fields(cls, key: str = "", nested: bool = False) -> list[Field]:
    """Return all fields of a dataclass, at any depth; with `nested` those that are dataclasses."""
    found = []
    for name, hint in typing.get_type_hints(cls).items():
        field = Field(f"{key}{name}", hint)
        inner = next(filter(dataclasses.is_dataclass, field.options), None)
        if inner:
            found += fields(inner, f"{field.key}.", nested)
        if nested is bool(inner):
            found.append(field)
    return found


LEAVES, NESTED = fields(StudyConfig), fields(StudyConfig, nested=True)


def wrong_value(field: Field) -> st.SearchStrategy:
    """Return values that a field of this type can never have."""
    plain = {typing.get_origin(option) or option for option in field.options}
    bad = [st.just({"no such key": 1})] if dict not in plain else []
    if list not in plain:
        bad.append(st.lists(NUMBERS, min_size=1, max_size=3))
    if types.NoneType not in plain:
        bad.append(st.none())
    if bool not in plain:
        bad.append(st.booleans())
    if str not in plain:
        bad.append(TEXTS.filter(lambda text: text != ""))
    elif field.choices:
        bad.append(TEXTS.filter(lambda text: text.partition(":")[0] not in field.choices))
    if plain & {int, float}:
        bad += [st.integers(-(2**53), -1), st.just(-(10**400)), st.just(10**400)]
        bad += [st.sampled_from([float("nan"), float("inf"), -float("inf"), -1e-9, -1e300])]
    else:
        bad.append(NUMBERS)
    if plain & {int}:
        bad += [st.sampled_from([0.5, 1.0, 2**31, 10**30])]
    if field.key.rpartition(".")[2] in FRACTIONS:
        bad.append(st.floats(min_value=1.0001, allow_infinity=True))
    if list in plain and field.key != "data.normalize":
        bad += [st.lists(st.just({"odd": 1}), min_size=1, max_size=2), st.just([None])]
    return st.one_of(bad)


def right_value(field: Field) -> st.SearchStrategy:
    """Return values that a field may have, whatever the others are."""
    name = field.key.rpartition(".")[2]
    made = {
        bool: st.booleans(),
        int: st.integers(2, 100),
        float: st.floats(0.01, 0.99),
        types.NoneType: st.none(),
        str: st.sampled_from(field.choices) if field.choices else TEXTS,
        list: st.lists(st.integers(1, 1000), min_size=1, max_size=4, unique=True),
    }
    if name == "crop_ratio":
        return st.floats(1.0, 3.0)
    if name == "pixel_range":
        return st.sampled_from([[0, 1], [-1.0, 1.0], "caffe"])
    if name == "formats":
        return st.lists(st.sampled_from(["onnx", "litert-int8"]), max_size=2)
    if name == "normalize":
        return st.sampled_from(["measured", "none", [0.5, 1], [[0.1, 0.2, 0.3], 0.25]])
    if field.key == "export.name":
        return st.from_regex(r"\A[a-z][a-z0-9_.-]{0,8}\Z")
    if name == "validation":
        return st.floats(0.01, 0.99) | st.integers(1, 1000)
    kinds = [typing.get_origin(option) or option for option in field.options]
    return st.one_of([made[kind] for kind in kinds if not (name in ("teacher",) and kind is None)])


def placed(values: dict, key: str, value) -> dict:
    """Return nested mappings with a value under a dotted key."""
    name, _, rest = key.partition(".")
    inner = values.get(name)
    inner = inner if isinstance(inner, dict) else {}
    return values | {name: placed(inner, rest, value) if rest else value}


def text_of(values: dict) -> str:
    """Return a mapping as YAML."""
    return yaml.dump(values, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)


@st.composite
def wrong_values(draw) -> Case:
    """A value that its field cannot have, in the file or on the command line."""
    field = draw(st.sampled_from([*LEAVES, *NESTED]))
    if field in NESTED:
        null = [] if types.NoneType in field.options else [st.none()]
        value = draw(st.one_of(TEXTS, NUMBERS, st.booleans(), st.just([1]), *null))
    else:
        value = draw(wrong_value(field))
    return Case(text_of(placed(BASE, field.key, value)), names=(_last(field.key), *_quoted(value)))


@st.composite
def wrong_options(draw) -> Case:
    """The same on the command line, where every text may stand for text."""
    numbers = [field for field in LEAVES if str not in field.options]
    field = draw(st.sampled_from(numbers))
    if draw(st.booleans()):
        value = draw(st.sampled_from(["x", "[1,", "-1.5", ".nan", "{a: 1}", "- -", "!!int 3.5"]))
        if dict in {typing.get_origin(option) or option for option in field.options}:
            value = "x"
    else:
        value = yaml.safe_dump(draw(wrong_value(field)), default_flow_style=True).strip()
        value = value.removesuffix("\n...")
    shape = draw(st.sampled_from(["joined", "apart"]))
    options = (f"--{field.key}={value}",) if shape == "joined" else (f"--{field.key}", value)
    return Case(text_of(BASE), options, (_last(field.key),))


@st.composite
def unknown_keys(draw) -> Case:
    """A key that there is not, or one misspelt, at any depth, in the file or as an option."""
    field = draw(st.sampled_from(LEAVES))
    parent, _, name = field.key.rpartition(".")
    place = draw(st.integers(0, len(name) - 1))
    misspelt = name[:place] + name[place + 1 :]
    odd = draw(st.sampled_from([misspelt + "_", name.upper(), name + "s_", "ключ", "a b", "0x"]))
    key = f"{parent}.{odd}" if parent else odd
    if draw(st.booleans()):
        return Case(text_of(BASE), (f"--{key}=1",), (odd, "unknown key"))
    return Case(text_of(placed(BASE, key, 1)), names=(odd, "unknown key"))


@st.composite
def wrong_settings(draw) -> Case:
    """A study's own settings, wrong in one place."""
    values = draw(st.sampled_from(WITH_SETTINGS))
    own = fields(STUDIES[values["study"]].Settings, "settings.")
    field = draw(st.sampled_from(own))
    if draw(st.integers(0, 3)) == 0:
        key = f"{field.key}_"
        return Case(text_of(placed(values, key, 1)), names=(_last(key), "unknown key"))
    plain = {typing.get_origin(option) or option for option in field.options}
    bad = [st.just(10**400), st.sampled_from([float("nan"), -float("inf"), -1.5])]
    bad = bad if str not in plain else []
    bad += [st.just({"odd": [1]})] if list not in plain else [st.just([{"odd": 1}, None])]
    bad += [st.text(min_size=1, max_size=10)] if str not in plain else [st.integers()]
    return Case(text_of(placed(values, field.key, draw(st.one_of(bad)))), names=(_last(field.key),))


@st.composite
def broken_texts(draw) -> Case:
    """Text that is no configuration at all, or one that means harm."""
    base = text_of(BASE)
    laughs = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))
    merged = "\n".join(
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)
    )
    twice = draw(st.sampled_from(LEAVES)).key
    depth = draw(st.integers(50, 20_000))
    command = draw(st.sampled_from(["os.system", "subprocess.check_output", "builtins.eval"]))
    tag = draw(st.sampled_from(["object/apply", "object/new", "name", "module", "object"]))
    return draw(
        st.sampled_from(
            [
                Case("", names=("an empty file",)),
                Case("# nothing\n---\n", names=("an empty file",)),
                Case(f"- {draw(st.integers())}\n", names=("list",)),
                Case(draw(st.text("abc", min_size=1)), names=("str",)),
                Case(f"{base}seeds: [3]\n", names=("'seeds' stands twice",)),
                Case(
                    f"{_nested(twice)}{_nested(twice)}",
                    names=(f"'{twice.partition('.')[0]}' stands twice",),
                ),
                Case(f"{base}note: {'[' * depth}\n", names=("deeper than 50",)),
                Case(f"{base}note: {'{a: ' * depth}\n", names=("deeper than 50",)),
                Case(f"a0: &a0 [1]\n{laughs}\n", names=("more than 20000 values",)),
                Case(f"a0: &a0 {{b: 1}}\n{merged}\n", names=("more than 20000 values",)),
                Case(f"{base}settings: &s {{s: *s}}\n", names=()),
                Case(f"{base}note: !!python/{tag}:{command} ['touch harm']\n", names=("python/",)),
                Case(f"!!python/{tag}:{command} ['touch harm']\n", names=("python/",)),
                Case(f"{base}student: os.system\n", names=("student", "'os.system'")),
                Case(f"{base}student: {{class_path: antigravity}}\n", names=("class_path",)),
                Case(f"{base}note: !!int {draw(st.text('xyz', min_size=1))}\n"),
                Case(f"{base}note: !!timestamp never\n"),
                Case(f"{base}note: {'9' * 5000}\n"),
                Case(f"{base}note: 0x{'f' * 5000}\n", names=("unreadable value", "digits")),
                Case(f"{base}note: *nowhere\n"),
                Case(f"{base}note: 'no end\n"),
                Case(f"{base}? [a, b]\n: 1\n"),
                Case(f"{base}\x00\n"),
                Case(f"{base}3: 4\n", names=("unknown key '3'",)),
                Case(f"{base}---\n{base}"),
                Case(f"{base}\tseeds: 3\n"),
                Case("a" * 300_000, names=("larger than 256 kB",)),
                Case(f"note: {draw(st.text('ab', min_size=1))}\ufffe\n"),
            ]
        )
    )


WRONG = {
    "a value of another type or out of range": wrong_values(),
    "the same on the command line": wrong_options(),
    "an unknown or misspelt key": unknown_keys(),
    "a study's own settings": wrong_settings(),
    "text that is no configuration": broken_texts(),
}


@st.composite
def right(draw) -> dict:
    """A configuration with right values in some places."""
    values = dict(BASE)
    chosen = draw(st.lists(st.sampled_from(LEAVES), max_size=12, unique_by=lambda at: at.key))
    for field in chosen:
        if not set(TOGETHER) & {field.key, *field.key.split(".")}:
            values = placed(values, field.key, draw(right_value(field)))
    features = st.builds(FeatureConfig, st.sampled_from(["hints", "relational_angle"]), st.none())
    if draw(st.booleans()):
        live = [dataclasses.asdict(draw(features))]
        values = placed(values, "distillation.features", live) | {"cache": None}
    return values


def answer(folder: Path, data: str | bytes, *options: str) -> tuple[int, str, list[str]]:
    """Return exit status, error text and the new files of `tfdistill run FILE --dry-run`."""
    path = folder / "study.yaml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    return ran(folder, ["run", str(path), *options, "--dry-run"])


def ran(folder: Path, arguments: list[str]) -> tuple[int, str, list[str]]:
    """Return exit status, error text and the new files of a command, run in a folder."""
    before, there = os.getcwd(), set(folder.iterdir())
    os.chdir(folder)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            status = main(arguments)
    finally:
        os.chdir(before)
    written = [str(at) for at in folder.iterdir() if at not in there]
    return status, errors.getvalue(), written


def fault(case: Case, status: int, error: str, written: list[str]) -> str | None:
    """Return what is wrong with the answer to a wrong configuration; None where nothing is."""
    if status != 2:
        return f"exit status {status}"
    if error.count("\n") != 1 or not error.startswith("tfdistill: error: "):
        return f"not one line: {error[:300]!r}"
    if len(error) > 1000:
        return f"{len(error)} characters"
    lost = [name for name in case.names if name not in error]
    if lost:
        return f"{lost[0]!r} is not named: {error.strip()!r}"
    if written:
        return f"written: {written}"
    if not any(
        word in error
        for word in (
            "must",
            "nknown key",
            "Cannot",
            "is not YAML",
            "Remove",
            "Flatten",
            "Shorten",
            "Give",
            "unreadable",
            "need",
            "Write",
        )
    ):
        return f"nothing says what is allowed: {error.strip()!r}"
    return None


def _quoted(value) -> list[str]:
    """Return the value as the message must show it; nothing where that is cut or of a part."""
    if isinstance(value, list | dict) or value in (10**400, -(10**400)) or len(repr(value)) > 60:
        return []
    return [" ".join(repr(value).split())]


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _nested(key: str) -> str:
    return text_of(placed({}, key, 1))
