"""The study of the multi-view theory: which runs it lists, and the tables that it makes."""

from pathlib import Path

import pytest

from tfdistill.cli import options
from tfdistill.config import ModelConfig, StudyConfig, to_dict
from tfdistill.records import Record
from tfdistill.studies.multi_view import study
from tfdistill.utils.checks import UsageError

CONFIGS = Path(__file__).parents[2] / "configs" / "multi_view"
CONFIG = StudyConfig(
    study="multi_view",
    seeds=[3, 5],
    settings={"networks": 2, "data": {"mu": 0.025}, "other_mus": [0.1]},
)


def by_name(config=CONFIG):
    return {run.name: run for run in study.runs(config)}


def test_every_run_comes_after_what_it_needs():
    seen = set()
    for run in study.runs(CONFIG):
        assert set(run.needs) <= seen and run.name not in seen
        assert run.kind == "multi_view"
        seen.add(run.name)


def test_runs_of_each_mu_and_seed():
    runs = by_name()
    kinds = {name.partition("-mu")[0] for name in runs if "-mu" in name}
    assert kinds == {
        *("single", "ensemble-logits", "ensemble-probabilities", "control"),
        *("distilled", "self-distilled", "labels"),
        *("soft-distilled", "soft-self-distilled", "soft-labels"),
    }
    for kind in kinds:
        assert {f"{kind}-mu0.025-s3", f"{kind}-mu0.025-s5", f"{kind}-mu0.1-s3"} <= set(runs)
        assert f"{kind}-mu0.1-s5" not in runs  # one seed of other mus
    assert "wide-s3" in runs and "wide-s5" not in runs


def test_a_control_goes_on_where_the_single_networks_stopped_to_the_students_steps():
    runs = by_name()
    control = runs["control-mu0.1-s3"]
    assert control.start == "single-mu0.1-s3"
    single, rest, student = (
        runs[name].settings["steps"]
        for name in ("single-mu0.1-s3", "control-mu0.1-s3", "distilled-mu0.1-s3")
    )
    assert single + rest == student == 700


def test_who_teaches_by_which_loss():
    runs = by_name()
    taught = {
        name: (run.settings["taught_by"], run.settings["soft_loss"], run.distillation.temperature)
        for name, run in runs.items()
        if run.teachers and name.endswith("-mu0.1-s3")
    }
    soft = CONFIG.distillation.temperature
    assert taught == {
        "distilled-mu0.1-s3": ("ensemble", "one_sided", 2.0),
        "self-distilled-mu0.1-s3": ("next", "one_sided", 2.0),
        "labels-mu0.1-s3": ("labels", "one_sided", 2.0),
        "soft-distilled-mu0.1-s3": ("ensemble", "soft_targets", soft),
        "soft-self-distilled-mu0.1-s3": ("next", "soft_targets", soft),
        "soft-labels-mu0.1-s3": ("labels", "soft_targets", soft),
    }


def test_the_wide_network_has_all_the_ensembles_neurons():
    settings = by_name()["wide-s3"].settings
    assert settings["networks"] == 1 and settings["network"]["neurons"] == 20


def test_planted_labels_can_be_left_out():
    settings = CONFIG.settings | {"planted": None}
    names = by_name(StudyConfig(study="multi_view", seeds=[3], settings=settings))
    assert "linear-s3" in names and "planted-s3" not in names


@pytest.mark.parametrize("file", ["small.yaml", "full.yaml"])
def test_the_published_configurations_have_at_least_twenty_pairs(file):
    config = options.study_config([str(CONFIGS / file)])
    row = study.row_of(study.CONTROL, config.settings["data"]["mu"])
    controls = [run for run in study.runs(config) if run.row == row]
    assert sum(run.settings["networks"] for run in controls) >= 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"networks": 1}, "settings.networks must be a whole number, at least 2"),
        ({"student_steps": 400}, "settings.student_steps must be a whole number, at least 401"),
        ({"other_mus": [0.025]}, "settings.data.mu and settings.other_mus must be"),
        ({"other_mus": [2.0]}, "settings.data.mu must be a number from 0 to 1"),
        ({"data": {"muu": 0.1}}, "unknown key 'muu'"),
        ({"network": {"neurons": "many"}}, "neurons"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        study.runs(StudyConfig(study="multi_view", settings=settings))


def test_a_student_network_is_refused():
    with pytest.raises(UsageError, match="does not use student"):
        study.runs(StudyConfig(study="multi_view", student=ModelConfig()))


def made_up(run, single_view, multi_view_error=0.0, both=1):
    """Return a record of two networks; `both` of the two classes have both views learned."""
    mu = run.settings["data"]["mu"] if run.settings["data"] else None
    networks = []
    for error in single_view:
        figures = {"training_error": 0.0, "test_error": error}
        if mu:
            figures |= {
                "multi_view_error": multi_view_error,
                "single_view_error": error,
                "test_error": (1 - mu) * multi_view_error + mu * error,
                "learned": [[True, True]] * both + [[True, False]] * (2 - both),
            }
        networks.append(figures)
    right = {"test_accuracy": 1 - sum(one["test_error"] for one in networks) / len(networks)}
    config, measured = to_dict(run), {"networks": networks}
    return Record(run.name, run.row, run.seed, "", config, best=right, last=right, extra=measured)


def records():
    runs = by_name()
    values = {
        "single-mu0.025-s3": (0.5, 0.4),
        "single-mu0.025-s5": (0.3, 0.4),
        "ensemble-logits-mu0.025-s3": (0.0,),
        "control-mu0.025-s3": (0.4, 0.3),
        "control-mu0.025-s5": (0.3, 0.3),
        "distilled-mu0.025-s5": (0.0, 0.1),
        "distilled-mu0.025-s3": (0.1, 0.1),
        "self-distilled-mu0.025-s3": (0.2, 0.35),
        "single-mu0.1-s3": (0.6, 0.2),
        "wide-s3": (0.36,),
        "linear-s3": (0.0, 0.0),
        "linear-ensemble-s3": (0.0,),
        "planted-s3": (0.30, 0.28),
        "planted-ensemble-s3": (0.26,),
    }
    return [made_up(runs[name], errors) for name, errors in values.items()]


def table(title):
    (found,) = (each for each in study.tables(records()) if title in each.title)
    return {row[0]: row[1:] for row in found.rows}


def test_errors_stand_in_units_of_mu_beside_the_theory():
    rows = table("Errors at mu 0.025")
    assert rows["single network"] == (
        *("4", "0.00 ± 0.00", "0.00 ± 0.00", "40.00 ± 8.16", "0.400 ± 0.082", "0.49 to 0.51"),
    )
    assert rows["distilled, paper's update"][4:6] == ("0.075 ± 0.050", "≤ 0.01")
    assert "distilled, soft targets" not in rows


def test_seeds_are_compared_beside_the_pairs():
    assert "single network" in (rows := table("Test accuracy at mu 0.025"))
    # Errors 0.35 and 0.3 times mu, of two networks each; 0.1 and 0.05 where they were distilled.
    assert rows["distilled, paper's update"] == ("2", "99.81 ± 0.09")
    compared = table("Differences over seeds at mu 0.025")
    (seeds, difference) = compared["distilled, paper's update, against labels alone"]
    assert seeds == "2" and difference.startswith("+0.6")


def test_of_how_many_classes_both_views_are_learned():
    assert table("Views learned")["single network"] == ("1.0", "1.0", "0.0")


def test_multi_view_errors_count_in_units_of_mu():
    run = by_name()["single-mu0.1-s3"]
    row = study.tables([made_up(run, (0.5,), multi_view_error=0.1)])[0].rows[0]
    assert row[5] == "1.400"  # (0.9 * 0.1 + 0.1 * 0.5) / 0.1


def test_pairs_have_the_same_seed_and_number():
    rows = table("Pairs")
    found = rows["distilled, paper's update, against labels alone"]
    assert found[:3] == ("4", "32.50 ± 5.00", "7.50 ± 5.00")
    assert found[3:5] == ("-25.00 ± 5.77", "4 of 4")
    # 25 +- 3.182 * 5.7735 / sqrt(4), of four pairs.
    assert found[5] == "-25.00, -34.19 to -15.81"
    found = rows["self-distilled, paper's update, against labels alone"]
    assert found[0] == "2" and found[4] == "1 of 2"  # seed 5 is not there yet


def test_errors_by_mu():
    rows = table("by mu")
    assert rows["single network"] == ("0.400 ± 0.082", "0.400 ± 0.283", "0.49 to 0.51")
    assert rows["single network, trained as long as a student"][1] == "–"


def test_controls_say_what_share_of_the_error_an_ensemble_removes():
    rows = table("Where an ensemble helps")
    assert rows["multi-view data, this network"] == ("40.00 ± 8.16", "0.00", "40.00", "100 %")
    assert rows["multi-view data, linear network"][3] == "–"  # there is no error to remove
    assert rows["Gaussian data, planted labels"][1:] == ("26.00", "3.00", "10 %")
    # Against the single networks of its own seed.
    assert rows["multi-view data, one wide network"][2:] == ("9.00", "20 %")


def test_figures_of_records():
    drawn = study.figures(records())
    assert [title for title, svg, _ in drawn if svg.startswith("<svg")] == [
        "Views that the networks have learned",
        "Error by mu",
        "Every student and the network trained like it on labels alone",
    ]


def test_nothing_finished_is_no_table_and_no_figure():
    assert study.tables([]) == [] and study.figures([]) == []
