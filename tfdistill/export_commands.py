"""The commands around exports: `tfdistill export`, `predict` and `demo`."""

import sys
from pathlib import Path

from tfdistill import checks, startup
from tfdistill.config import DataConfig, ExportConfig, build, check_keys, read_yaml
from tfdistill.models import origin
from tfdistill.options import UNSAFE, UNSAFE_HELP, flat_items, new_parser, parse

EXPORT_HELP = """\
Write networks for use elsewhere, check each file against its network in a
process of its own, and put them in place as FOLDER/NAME/VERSION at once.

Of a study's folder: its best student in all formats, its teacher and their
ensemble as SavedModels; all are measured and the report shows the table. Of a
run's folder or a .keras file: that network."""

PREDICT_HELP = """\
Classify image files, and folders with all that is in them: JPEG, PNG, BMP, GIF.
They are read as training images are; the orientation that a camera noted (EXIF)
is not applied. Exit status: 0 all answered, 1 an image failed, 2 wrong usage."""
DEMO_HELP = """\
Open a page in the browser of this machine: drop an image, and see which classes a
model and its teacher take it for, how long each takes and how large it is. The
teacher is the export that the model's card names, if it lies beside the model's
folder. The page needs no internet and only this machine can open it."""


def options(arguments: list[str]) -> tuple[Path, ExportConfig]:
    """Return what `tfdistill export` was asked to export, and how."""
    given = parse(_parser(), _with_lists(arguments), ExportConfig)
    keys = ExportConfig.__dataclass_fields__
    return Path(given.path), ExportConfig(**{key: given[key] for key in keys})


def export_study(folder: Path, config: ExportConfig) -> bool:
    """Export a study's networks; say so and return False where one fails its check."""
    from tfdistill import study_exports
    from tfdistill.progress import display

    try:
        study_exports.export_study(folder, config, display())
    except checks.Refused as error:
        print(f"tfdistill: error: {error}", file=sys.stderr)
        return False
    return True


def export_one(path: Path, config: ExportConfig, arguments: list[str]) -> int:
    """Export one network: a run's, or a file of one's own."""
    from tfdistill.progress import display

    given, images = _own_images(arguments)
    progress = display()
    progress.say("Starting TensorFlow and reading the images")
    startup.tensorflow()
    from tfdistill import exporting, format_checks, subjects

    if given.allow_unsafe:
        origin.trust()
    subject = subjects.of_path(path, images)
    exported = exporting.export(subject, config.name or subject.default_name, config, progress)
    _print_tables([format_checks.table(exported.checks, str(exported.folder))])
    return 0


def predict(arguments: list[str]) -> int:
    """Classify image files."""
    parser = new_parser(
        "predict MODEL IMAGES... [--format table|json|csv] [--top N] [--output FILE]", PREDICT_HELP
    )
    parser.add_argument(
        "model", type=str, help="saved_models/NAME[/VERSION], a .tflite, .onnx or .keras file"
    )
    parser.add_argument("images", type=str, nargs="+", help="image files and folders")
    parser.add_argument("--format", type=str, default="table", help="table, json or csv")
    parser.add_argument("--top", type=int, default=3, help="classes in each answer")
    parser.add_argument("--batch_size", type=int, default=32, help="images at once")
    parser.add_argument("--output", type=str | None, help="the file to write; default: print")
    parser.add_argument(UNSAFE, action="store_true", help=UNSAFE_HELP)
    given = parser.parse_args(arguments)
    from tfdistill import prediction_output

    return prediction_output.run(
        given.model,
        given.images,
        format=given.format,
        top=given.top,
        batch_size=given.batch_size,
        output=given.output,
        allow_unsafe=given.allow_unsafe,
    )


def demo(arguments: list[str]) -> int:
    """Show an exported network in the browser, beside its teacher, until Ctrl-C."""
    parser = new_parser("demo MODEL [--teacher MODEL] [--port 7860]", DEMO_HELP)
    parser.add_argument("model", type=str, help="saved_models/NAME, a .tflite or .onnx file")
    parser.add_argument("--teacher", type=str | None, help="another model to show beside it")
    parser.add_argument("--port", type=int, default=7860, help="port on 127.0.0.1; 0: any free one")
    parser.add_argument(UNSAFE, action="store_true", help=UNSAFE_HELP)
    given = parser.parse_args(arguments)
    startup.tensorflow()
    from tfdistill import demo

    return demo.launch(given.model, given.teacher, given.port, given.allow_unsafe)


def _parser():
    parser = new_parser(
        "export STUDY | STUDY/runs/RUN | MODEL [--formats litert-int8,onnx] [--KEY VALUE ...]",
        EXPORT_HELP,
    )
    parser.add_argument("path", type=str, help="a study's folder, a run's folder, a .keras file")
    parser.add_class_arguments(ExportConfig, None)
    parser.add_argument("--data", type=DataConfig, help="the images of a network of one's own")
    parser.add_argument("--config", type=str | None, help="a study's YAML file, for its images")
    parser.add_argument(UNSAFE, action="store_true", help=UNSAFE_HELP)
    return parser


def _own_images(arguments: list[str]):
    """Return all options, and the images that they name, if any."""
    parser, arguments = _parser(), _with_lists(arguments)
    given = parse(parser, arguments, DataConfig, "data.")
    if given.config:
        values = read_yaml(given.config).get("data", {})
        check_keys(DataConfig, values, given.config)
        build(DataConfig, values, "data")
        parser.set_defaults({f"data.{key}": value for key, value in flat_items(values)})
        given = parse(parser, arguments, DataConfig, "data.")
    named = given.config or any(argument.startswith("--data.") for argument in arguments)
    return given, parser.instantiate(given).data if named else None


def _with_lists(arguments: list[str]) -> list[str]:
    """Let `--formats a,b` stand for `--formats [a,b]`."""
    result = list(arguments)
    for place, argument in enumerate(result):
        name, equals, value = argument.partition("=")
        if name != "--formats":
            continue
        if equals:
            result[place] = f"{name}={_listed(value)}"
        elif place + 1 < len(result):
            result[place + 1] = _listed(result[place + 1])
    return result


def _listed(text: str) -> str:
    return text if text.startswith("[") else f"[{text}]"


def _print_tables(tables: list) -> None:
    from rich.console import Console

    from tfdistill import reports

    reports.print_tables(tables, Console(highlight=False))
