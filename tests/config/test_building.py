"""Plain data to configurations: types, defaults, and how what is wrong is worded."""

import dataclasses
import importlib
import inspect
import pkgutil
from dataclasses import dataclass, field

import pytest

import tfdistill.config
from tfdistill.config import StudyConfig, TrainingConfig, build, to_dict
from tfdistill.config.building import dataclass_in
from tfdistill.config.registry import STUDIES
from tfdistill.utils.checks import UsageError


def _configurations():
    """Return every dataclass of `config`, and the settings of every study."""
    modules = [
        importlib.import_module(f"tfdistill.config.{each.name}")
        for each in pkgutil.iter_modules(tfdistill.config.__path__)
    ]
    found = {
        each
        for module in modules
        for _, each in inspect.getmembers(module, dataclasses.is_dataclass)
        if each.__module__ == module.__name__ and each.__name__.endswith("Config")
    }
    found |= {study.Settings for study in STUDIES.values() if hasattr(study, "Settings")}
    return sorted(found, key=lambda each: (each.__module__, each.__name__))


def _given(cls):
    """Return what has no default of the configurations that need something."""
    run = {"name": "a", "row": "b", "seed": 3, "data": {}, "model": {}, "training": {}}
    return {
        "RunConfig": run,
        "ChannelSplitConfig": {"base": "a", "layer": "b"},
        "PruneConfig": {"base": "a", "keep": 0.5},
    }.get(cls.__name__, {})


def _empty_at_every_depth(config) -> list[dict]:
    """Return mappings without values, one for each nested configuration that there is."""
    found = [{}]
    for at in dataclasses.fields(config):
        value = getattr(config, at.name)
        if dataclasses.is_dataclass(value):
            found += [{at.name: inner} for inner in _empty_at_every_depth(value)]
    return found


@pytest.mark.parametrize(
    "cls", _configurations(), ids=lambda cls: f"{cls.__module__}.{cls.__name__}"
)
def test_every_default_survives_an_empty_mapping_at_every_depth(cls):
    needed = _given(cls)
    default = build(cls, needed)
    assert needed or default == cls()
    for values in _empty_at_every_depth(default):
        assert build(cls, needed | values) == default
    assert build(cls, to_dict(default)) == default


def test_the_defaults_that_are_tried_have_one_that_is_not_its_class_s_own():
    settings = STUDIES["multi_view"].Settings
    assert settings().planted_network != type(settings().planted_network)()
    found = build(settings, {"planted_network": {"neurons": 7}}).planted_network
    assert found == dataclasses.replace(settings().planted_network, neurons=7)


@dataclass(frozen=True)
class Inner:
    """Has a default of its own at each place that it stands."""

    size: int = 1
    name: str = "own"


@dataclass(frozen=True)
class Middle:
    """Has one within."""

    inner: Inner = field(default_factory=lambda: Inner(2, "middle"))
    factor: float = 1.0


@dataclass(frozen=True)
class Outer:
    """Has one two levels deep, a list and a mapping."""

    middle: Middle = field(default_factory=lambda: Middle(Inner(3, "outer"), 2.0))
    optional: Inner | None = None
    several: list[Inner] = field(default_factory=list)
    named: dict[str, Inner | None] = field(default_factory=dict)
    pair: tuple[int, ...] = ()
    mixed: str | list = "text"


def test_the_rest_of_a_default_two_levels_deep_is_kept():
    assert build(Outer, {"middle": {"inner": {"size": 9}}}) == Outer(Middle(Inner(9, "outer"), 2.0))
    before = Outer(optional=Inner(5, "given"))
    found = build(Outer, {"optional": {"size": 6}, "pair": [1]}, default=before)
    assert found == Outer(optional=Inner(6, "given"), pair=(1,))


def test_parts_of_lists_and_mappings_take_the_defaults_of_their_class():
    found = build(Outer, {"several": [{"size": 4}], "named": {"a": {"name": "b"}, "c": None}})
    assert found == Outer(several=[Inner(4)], named={"a": Inner(name="b"), "c": None})


def test_numbers_are_those_given_to_the_bit():
    for number in (0.1, 1 / 3, 1e-308, 5e-324, 1.7976931348623157e308, 2**53 + 1):
        assert build(TrainingConfig, {"learning_rate": number}).learning_rate == float(number)
    whole = build(TrainingConfig, {"learning_rate": 1}).learning_rate
    assert whole == 1.0 and type(whole) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seeds": [1.0]}, "seeds[0] must be a whole number. Received: seeds[0]=1.0."),
        (
            {"training": {"epochs": "3"}},
            "training.epochs must be a whole number. Received: training.epochs='3'.",
        ),
        (
            {"training": {"nesterov": "yes"}},
            "training.nesterov must be true or false. Received: training.nesterov='yes'.",
        ),
        (
            {"population": {"size": True}},
            "population.size must be a whole number or null. Received: population.size=True.",
        ),
        (
            {"training": {"learning_rate": float("nan")}},
            "training.learning_rate must be a finite number. Received: training.learning_rate=nan.",
        ),
        (
            {"data": {"normalize": 3}},
            "data.normalize must be text or a list. Received: data.normalize=3.",
        ),
        (
            {"sweep": {"space": {"student.width": 3}}},
            "sweep.space.student.width must be a list or keys and values. "
            "Received: sweep.space.student.width=3.",
        ),
        (
            {"distillation": {"features": [{}, {"loss": 3}]}},
            "distillation.features[1].loss must be text. "
            "Received: distillation.features[1].loss=3.",
        ),
        (
            {"population": 3},
            "population must be keys and values (keys: size, memory). Received: population=3.",
        ),
        ({"seeds": None}, "seeds must be a list, each part a whole number. Received: seeds=None."),
        (
            {"teacher_data": {"augment": {"cutout": -1}}},
            "teacher_data.augment.cutout must be a whole number, at least 0. "
            "Received: teacher_data.augment.cutout=-1.",
        ),
        (
            {"population": {"sise": 3}},
            "population: unknown key 'sise'. Did you mean 'size'? Known keys: size, memory.",
        ),
        (
            {"distillation": {"features": [{"los": "hints"}]}},
            "distillation.features[0]: unknown key 'los'. Did you mean 'loss'? "
            "Known keys: loss, weight, teacher_layer, student_layer.",
        ),
        ([], "the configuration must be keys and values. Received: the configuration=[]."),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(values, message):
    with pytest.raises(UsageError) as caught:
        build(StudyConfig, values)
    assert str(caught.value) == message


def test_what_must_be_given_is_named():
    with pytest.raises(UsageError, match=r"^split\.layer must be given\. Received: none\.$"):
        build(tfdistill.config.ChannelSplitConfig, {"base": "a"}, "split")


@pytest.mark.parametrize("value", ["\ud800", 10**5000, {1, 2}, b"a"], ids=type)
def test_what_json_cannot_hold_is_refused_in_one_line(value):
    with pytest.raises(UsageError, match="settings holds an unreadable value: ") as caught:
        build(Outer, {"mixed": [value]}, "settings")
    assert "\n" not in str(caught.value)


def test_what_is_nested_deeper_than_is_read_is_refused_in_one_line():
    deep = []
    for _ in range(400):
        deep = [deep]
    with pytest.raises(UsageError, match="must be keys and values, less deeply nested"):
        build(Outer, {"mixed": deep})


def test_a_dataclass_is_found_besides_null():
    assert dataclass_in(Inner | None) is Inner and dataclass_in(list[Inner]) is None
