"""The commands around exports: `tfdistill export`, `predict` and `demo`."""

import dataclasses
import sys
from pathlib import Path

from tfdistill.cli.options import Arguments, read
from tfdistill.config import ExportConfig
from tfdistill.models import saved_model_safety
from tfdistill.utils import checks, tensorflow


def config_of(options: ExportConfig) -> ExportConfig:
    """Return those of the options of `tfdistill export` that a study's file has, too."""
    return ExportConfig(**{key: getattr(options, key) for key in ExportConfig.__dataclass_fields__})


def check_own_images(path: Path, given: Arguments) -> None:
    """Raise where options name images for networks of a study, which has its own.

    Args:
        path: A study's folder, or the folder of one of its runs.
        given: What was given to `tfdistill export`.
    """
    if given.images(given.options.config) is not None:
        raise checks.UsageError(
            f"{path} belongs to a study, on whose own images its networks are checked. "
            "Received: --config or --data. Remove them."
        )


def export_study(folder: Path, config: ExportConfig) -> bool:
    """Export a study's networks; say so and return False where one fails its check."""
    from tfdistill.export import study_exports
    from tfdistill.utils.progress import display

    try:
        study_exports.export_study(folder, config, display())
    except checks.Refused as error:
        print(f"tfdistill: error: {error}", file=sys.stderr)
        return False
    return True


def export_one(path: Path, config: ExportConfig, given: Arguments) -> int:
    """Export one network: a run's, or a file of one's own."""
    from tfdistill.utils.progress import display

    images = given.images(given.options.config)
    progress = display()
    progress.say("Starting TensorFlow and reading the images")
    tensorflow.start()
    from tfdistill.export import exporter, targets, verify

    if given.unsafe:
        saved_model_safety.trust()
    subject = targets.of_path(path, images)
    if subject.kind != verify.NETWORK:
        check_own_images(path, given)
    exported = exporter.export(subject, config.name or subject.default_name, config, progress)
    _print_tables([verify.table(exported.checks, str(exported.folder))])
    return 0


def predict(arguments: list[str]) -> int:
    """Classify image files."""
    given = read("predict", arguments)
    options = dataclasses.asdict(given.options)
    from tfdistill.inference import output

    places = given.places["model"], given.places["images"]
    return output.run(*places, **options, allow_unsafe=given.unsafe)


def demo(arguments: list[str]) -> int:
    """Show an exported network in the browser, beside its teacher, until Ctrl-C."""
    given = read("demo", arguments)
    options = given.options
    tensorflow.start()
    from tfdistill.inference import demo

    return demo.launch(given.places["model"], options.teacher, options.port, given.unsafe)


def _print_tables(tables: list) -> None:
    from rich.console import Console

    from tfdistill.reporting import reports

    reports.print_tables(tables, Console(highlight=False))
