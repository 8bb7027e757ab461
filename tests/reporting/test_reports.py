"""Reports: one page that needs nothing else, and tables that lose no text."""

import csv
import dataclasses
import html.parser
import io

import jinja2
import pytest
from rich.console import Console

from tfdistill.records import Record, Table
from tfdistill.reporting import reports
from tfdistill.reporting.significance import Comparison, Family

TABLE = Table(
    "Accuracy of <all>",
    ("run", "test accuracy, best epoch", "published"),
    (("single & alone", "85.95 ± 0.37", "86.01"), ("ensemble | of <five>", "89.07", "")),
    "Mean over seeds.",
)


def record(name, **changes):
    figures = {"epoch": 7, "validation_accuracy": 0.8712, "test_accuracy": 0.8654}
    figures |= {"test_nll": 0.43218, "test_ece": 0.0312, "test_agreement": 0.9133}
    values = {
        "best": figures | {"test_teacher_kl": 0.21098},
        "last": {"test_accuracy": 0.8599},
        "history": {"val_accuracy": [0.5, 0.8712]},
        "parameters": 11_173_962,
        "flops": 1_113_000_000,
        "seconds": 3723.0,
        "versions": {"keras": "3.15.1"},
        "device": "a device",
    }
    values |= {"row": "row of " + name, "config": {"training": {"select": "best"}}}
    return Record(name, seed=0, key="k", **values | changes)


LOST = record("lost", status="diverged", message="loss became NaN in epoch 3", best={}, last={})


class Page(html.parser.HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "config.yaml").write_text("study: mysteries\nseeds: [0, 1]\n")
    runs = [record("first"), record("<script>alert(1)</script>"), LOST]
    reports.write_report(folder, "A title", "Why is 1 < 2?", [TABLE], runs, ["A note."])
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_report_loads_nothing(folder, page):
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    loads = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(value.startswith("#") for value in loads)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "@import" not in text and text.count("url(") == text.count("url(#")


def test_the_report_holds_every_cell_and_remark(page):
    cells = [cell for row in (TABLE.columns, *TABLE.rows) for cell in row if cell]
    for text in (*cells, TABLE.title, TABLE.note, "A title", "Why is 1 < 2?", "A note."):
        assert text in page.texts
    assert page.texts[page.texts.index("89.07") + 1] == "–"


def test_names_are_escaped(folder, page):
    assert "<script" not in (folder / "report.html").read_text(encoding="utf-8")
    assert "<script>alert(1)</script>" in page.texts


def test_the_run_table_shows_what_was_measured(page):
    start = page.texts.index("first")
    expected = "first|row of first|0|finished|7|87.12|86.54|85.99|0.4322|0.0312|91.33|0.2110"
    expected += "|11.2 M|1.11 G|1 h 02 min"
    assert page.texts[start : start + 15] == expected.split("|")


def test_a_diverged_run_is_called_out(page):
    assert "1 of 3 runs diverged and is left out of results and figures" in page.texts
    assert any("loss became NaN in epoch 3" in text for text in page.texts)
    assert ("class", "text bad") in page.attributes and "diverged" in page.texts


def test_no_call_out_without_a_diverged_run(tmp_path):
    path = reports.write_report(tmp_path, "t", "q", [TABLE], [record("first")])
    assert "diverged" not in Page(path.read_text(encoding="utf-8")).texts
    assert 'role="alert"' not in path.read_text(encoding="utf-8")


def test_configuration_versions_and_figures_are_shown(page):
    assert "study: mysteries\nseeds: [0, 1]" in page.texts
    assert page.texts[page.texts.index("keras") + 1] == "3.15.1"
    assert "a device" in page.texts
    assert page.tags.count("svg") == 2  # no calibration and no teachers in these records


def test_a_study_without_records_still_has_a_page(tmp_path):
    path = reports.write_report(tmp_path, "Empty", "q", [], [])
    assert "0 of 0 runs finished" in path.read_text(encoding="utf-8")
    assert "svg" not in Page(path.read_text(encoding="utf-8")).tags


def test_results_have_one_line_for_each_record(folder):
    lines = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    assert [line["run"] for line in lines] == ["first", "<script>alert(1)</script>", "lost"]
    assert lines[0]["best_test_accuracy"] == "0.8654" and lines[2]["status"] == "diverged"


def test_the_page_opens_with_the_verdict_and_one_picture_before_the_tables(tmp_path):
    rows = {"distilled": Comparison(0.03, 0.01, 0.05, 0.004, 5)}
    family = Family(rows, 0.008, 4, 0.02, "the same network alone")
    path = reports.write_report(
        tmp_path,
        "t",
        "q",
        [TABLE],
        [record("first")],
        verdict="It is better.",
        comparisons=[family],
    )
    text = path.read_text(encoding="utf-8")
    places = [text.index(part) for part in ("It is better.", "<svg", TABLE.columns[1])]
    assert places == sorted(places)
    assert "Differences from the baseline" in text[: places[2]]
    (line,) = csv.DictReader(io.StringIO((tmp_path / "comparisons.csv").read_text()))
    assert line["row"] == "distilled" and line["baseline"] == "the same network alone"
    assert (line["seeds"], line["low"], line["p"]) == ("5", "0.01", "0.004")


def test_the_setting_is_one_line():
    model = {"name": "cnn2", "width": 0.5}
    data = {"source": "digits", "train_examples": 1200}
    config = {"training": {"select": "best"}, "model": model, "data": data}
    runs = [
        record(
            f"r{seed}", config=config, row="r", parameters=6090, calibration={"count": [700, 97]}
        )
        for seed in (0, 1)
    ]
    runs[1] = dataclasses.replace(runs[1], seed=1)
    assert reports.setting(runs) == (
        "digits, 1,200 training images, 797 test images · cnn2, width 0.5 (6.09 k weights) · two "
        "seeds"
    )
    assert reports.setting([]) == ""


def test_no_name_in_the_results_is_a_formula_or_a_control_character(tmp_path):
    odd = record("=1+1", row="-2\x07")
    reports.write_report(tmp_path, "t", "q", [], [odd, record("a")])
    text = (tmp_path / "results.csv").read_text(encoding="utf-8")
    first, second = csv.DictReader(io.StringIO(text))
    assert (first["run"], first["row"]) == ("'=1+1", r"'-2\x07")
    # A number below zero stays a number, and the others what they were.
    assert (second["run"], second["best_test_accuracy"]) == ("a", "0.8654")


def test_writing_leaves_only_whole_files(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.yaml",
        "report.html",
        "results.csv",
    ]


def test_a_failing_report_keeps_the_old_one(tmp_path):
    path = reports.write_report(tmp_path, "old", "q", [TABLE], [])
    with pytest.raises(jinja2.UndefinedError):
        reports.write_report(tmp_path, "new", "q", ["no table"], [])
    assert "<h1>old</h1>" in path.read_text(encoding="utf-8")
    assert {file.name for file in tmp_path.iterdir()} == {"report.html", "results.csv"}


def test_published_values_reach_the_figure(tmp_path):
    path = reports.write_report(
        tmp_path, "t", "q", [], [record("first")], published={"row of first": 0.9}
    )
    assert "published" in Page(path.read_text(encoding="utf-8")).texts


def printed(table, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    reports.print_tables([table], console)
    return console.file.getvalue()


def test_a_terminal_table_keeps_its_text_and_width():
    text = printed(TABLE, 80)
    for cell in ("single & alone", "85.95 ± 0.37", "ensemble | of <five>", "89.07", "–"):
        assert cell in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_wide_terminal_table_breaks_before_the_deviation():
    columns = ("alpha", *map(str, range(9)))
    cells = [f"{value}.13 ± 0.2{value % 10}" for value in range(61, 70)]
    text = printed(Table("grid", columns, (("0.25", *cells),)), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert all(part in text.split() for cell in cells for part in cell.replace("± ", "±").split())


def test_long_labels_wrap_between_words():
    label = "ensemble of self-distilled networks " * 3
    text = printed(Table("t", TABLE.columns, ((label.strip(), "85.95 ± 0.37", "1"),)), 50)
    assert max(map(len, text.splitlines())) <= 50
    assert text.count("self-distilled") == 3 and "85.95 ± 0.37" in text


def test_names_in_the_terminal_are_not_markup():
    assert "[bold]x[/bold]" in printed(Table("t", ("run",), (("[bold]x[/bold]",),)), 80)


def test_names_in_the_terminal_are_not_obeyed():
    rows = (("\x1b[2Jx", "one\ntwo\x9b1m"),)
    table = Table("a\x1b]0;title\x07", ("run", "state"), rows, "\x1b[8m")
    text = printed(table, 80)
    assert not {"\x1b", "\x07", "\x9b"} & set(text)
    assert all(shown in text for shown in (r"\x1b[2Jx", r"a\x1b]0;title\x07", r"two\x9b1m"))
    assert "one\\n" not in text


def grid_records(alphas, temperatures):
    yield record("alone", row="student alone", config=grid_config("alone"))
    for alpha in alphas:
        for temperature in temperatures:
            row = f"alpha {alpha}, T {temperature}"
            values = {"alpha": alpha, "temperature": temperature, "scale_by_t2": False}
            best = {"test_accuracy": 0.8, "validation_accuracy": 0.8 + alpha / 10}
            yield record(row, row=row, best=best, config=grid_config(row, values))


def grid_config(name, distillation=None):
    teachers = ["teacher"] if distillation else []
    select = {"training": {"select": "best"}}
    return {"name": name, "row": name, "teachers": teachers, "distillation": distillation} | select


def written(folder, runs):
    return Page(reports.write_report(folder, "t", "q", [], runs).read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_grid_has_its_figures_and_only_its_best_cell_is_a_row_of_the_others(tmp_path):
    page = written(tmp_path, list(grid_records([0.1, 0.5, 0.9], range(1, 11))))
    assert "Accuracy by alpha and temperature" in page.texts
    assert "Accuracy by epoch, for each cell" in page.texts
    strip = page.texts[page.texts.index("Test accuracy") :]
    strip = strip[: strip.index("Accuracy by epoch")]
    assert "student alone" in strip and "alpha 0.9, T 1" in strip
    assert "alpha 0.1, T 1" not in strip
    assert any(text.startswith("Of each grid") for text in page.texts)


def test_a_small_grid_keeps_all_its_rows(tmp_path):
    page = written(tmp_path, list(grid_records([0.1, 0.9], [1, 4])))
    strip = page.texts[page.texts.index("Test accuracy") :]
    assert "alpha 0.1, T 1" in strip and "Accuracy by alpha and temperature" in page.texts
    assert not any(text.startswith("Of each grid") for text in page.texts)


def test_too_many_rows_outside_a_grid_are_not_drawn(tmp_path):
    page = written(tmp_path, [record(f"run {i}") for i in range(reports.MANY_ROWS + 1)])
    assert "svg" not in page.tags
    assert "There are no figures with a mark for each of the 25 rows." in page.texts


@pytest.mark.parametrize("count, folded", [(reports.MANY_RUNS, 0), (reports.MANY_RUNS + 1, 1)])
def test_a_long_table_of_runs_is_folded(tmp_path, count, folded):
    runs = [record(f"run {i}", row="row") for i in range(count)]
    page = written(tmp_path, runs)
    assert page.tags.count("details") == folded and f"run {count - 1}" in page.texts
