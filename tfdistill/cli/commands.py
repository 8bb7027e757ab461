"""What `tfdistill` can do: a typed function for each command, whose docstring is its help.

Each reads what it was given, makes one call, prints, and returns an exit status. It imports what it
needs itself: help and errors do not wait for TensorFlow. To add one, write its function and one
line in `COMMANDS`.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tfdistill.cli import exports, options
from tfdistill.cli.exports import AllowUnsafe, print_tables, trust
from tfdistill.config import StudyConfig
from tfdistill.config.registry import STUDIES
from tfdistill.recipes import findings
from tfdistill.utils import checks, storage, tensorflow
from tfdistill.utils.pixels import FULL, PixelRange

Config = Annotated[
    Path,
    Parameter(
        allow_leading_hyphen=True,
        help="A study's YAML file, or one that comes along, such as quickstart or mysteries/small.",
    ),
]
Keys = Annotated[
    str,
    Parameter(
        allow_leading_hyphen=True,
        help="Values in place of the file's, as `--seeds [0,1,2]` or `--training.epochs 20`; "
        "`tfdistill keys` lists all.",
    ),
    StudyConfig,
]
DryRun = Annotated[
    bool,
    Parameter(
        "--dry-run",
        show_default=False,
        help="List the runs, what each needs, and what difference the seeds could show; do "
        "nothing.",
    ),
]
Deviation = Annotated[
    float | None,
    Parameter(
        help="With --dry-run: standard deviation of a run in points; else that of finished runs."
    ),
]
Workers = Annotated[
    options.Whole,
    Parameter(
        help="Runs done at the same time, each by a process with `--threads` threads, by default "
        "an equal part of the cores.",
    ),
]
Executor = Annotated[
    Literal["processes", "ray"],
    Parameter(help="Where the workers are: `processes` of this machine, or those of `ray`."),
]
Address = Annotated[
    str | None,
    Parameter(
        help="Of a Ray cluster, as HOST:PORT; by default that of RAY_ADDRESS, else Ray is started "
        "on this machine."
    ),
]
Rehearse = Annotated[
    bool,
    Parameter(
        "--rehearse", show_default=False, help="One batch of every kind of run; keep nothing."
    ),
]


def distill(
    photos: Annotated[
        str,
        Parameter(
            help="A folder with a sub-folder for each class, or of images without any label, a CSV "
            "file, or a source."
        ),
    ],
    /,
    *,
    teacher: str,
    student: str = "cnn4",
    student_size: options.WholeOrNull = None,
    image_size: options.WholeOrNull = None,
    epochs: options.WholeOrNull = None,
    seeds: options.Whole = 3,
    pixel_range: Annotated[PixelRange, exports.PIXEL_RANGE] = FULL,
    classes: exports.Names = (),
    head: Literal["auto", "keep", "new"] = "auto",
    output: Path | None = None,
    export: exports.Formats | None = None,
    unlabelled: str | None = None,
    workers: Workers = 1,
    dry_run: DryRun = False,
    allow_unsafe: AllowUnsafe = False,
) -> int:
    """Teach a small network your images by a trained one, beside the same network alone.

    PHOTOS is a folder with a sub-folder for each class, a CSV file of path,label, or a source such
    as tfds:NAME. A teacher that never had these classes gets a new head, fitted to the training
    images. Settings are chosen for the number of images and said; the study that it makes is in
    the output folder as config.yaml. The same command resumes after an interruption.

    Args:
        teacher: A .keras file or a SavedModel; the folder of a finished run; keras:NAME of
            keras.applications, or keras:NAME=FILE of weights; hub:PRESET of KerasHub, a name or a
            folder; or train:NAME, which trains one first.
        student: Its architecture, as `tfdistill keys student` lists them, or a .keras file.
        student_size: Side in pixels that it sees; by default 48 where the teacher sees more.
        image_size: Side in pixels that the teacher sees; by default its own, else 128.
        epochs: Passes over all images; by default 1,500 steps.
        seeds: Number of students, each beside one alone.
        pixel_range: What a teacher in a file expects for the pixels 0 and 255, as 0,1 or -1,1;
            or caffe or torch, as preprocess_input of keras.applications makes them.
        classes: The teacher's outputs for your classes, in their order: numbers from 0, or names.
        head: `auto` picks outputs by name, keeps as many outputs as classes, else fits a new head.
        output: By default results/ and the name of PHOTOS.
        export: Formats of an export of the best student, such as litert-int8.
        unlabelled: Images without labels, a folder, a text file of paths, a .npz file or `tfds:NAME
            SPLIT`: the teacher says what is on them, and the student learns from them, too.
    """
    trust(allow_unsafe)
    checks.count("workers", workers)
    from tfdistill.recipes import inputs
    from tfdistill.recipes.plan import Wish, nothing_half_done, prepare
    from tfdistill.utils.progress import display

    name = Path(photos).stem if Path(photos).exists() else photos.replace(":", "-")
    output = output or Path("results") / f"{name}-distill"
    progress = display()
    found = inputs.counted(photos)
    progress.say(f"Teaching {student} from {teacher}: {photos}{f', {found}' if found else ''}")
    outputs = [int(each) if each.isdecimal() else each for each in classes]
    wish = Wish(
        photos,
        teacher,
        output,
        student,
        student_size,
        image_size,
        epochs,
        seeds,
        outputs,
        head,
        export,
        unlabelled,
        pixel_range,
    )
    with nothing_half_done(output, dry_run):
        study = prepare(wish, progress)
        return _study(study, dry_run, False, workers=(workers, "processes", None))


def quickstart(*keys: Keys) -> int:
    """Distil a first student, of digits that come along: two minutes on two cores.

    Five small networks learn from labelled digits; a student of a hundredth of their size learns
    from their answers. It is `tfdistill run quickstart`, and exports what the installed packages
    can write.
    """
    study = options.study_config(["quickstart", *keys], quickstart)
    if study.export:
        export = study.export.of_installed()
        if left := [name for name in study.export.formats if name not in export.formats]:
            print(f"Left out: {', '.join(left)}; to export them: pip install 'tfdistill[litert]'")
        study = dataclasses.replace(study, export=export)
    return _study(study, False, False)


def init(
    folder: Annotated[Path, Parameter(help="Gets the file study.yaml.")],
    /,
    *,
    like: Annotated[
        str, Parameter(help="The configuration that comes along to start with.")
    ] = "quickstart",
) -> int:
    """Write a configuration to start with, with comments, which editors complete and check."""
    from tfdistill.config import schema

    source, target = options.configuration(Path(like)), folder / "study.yaml"
    if target.exists():
        raise checks.UsageError(f"{target} is there already. Name another folder, or remove it.")
    _, _, text = source.read_text(encoding="utf-8").partition("\n")
    with storage.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with storage.appearing(target) as temporary:
        temporary.write_text(
            f"# yaml-language-server: $schema={schema.FILE}\n{text}", encoding="utf-8"
        )
    print(f"{target}: change it, then `tfdistill run {target}`; `tfdistill keys` explains all keys")
    return 0


def run(
    config: Config,
    /,
    *keys: Keys,
    dry_run: DryRun = False,
    deviation: Deviation = None,
    rehearse: Rehearse = False,
    workers: Workers = 1,
    executor: Executor = "processes",
    address: Address = None,
    allow_unsafe: AllowUnsafe = False,
) -> int:
    """Do a study: train, distil, evaluate, report.

    It does what a YAML file describes, and prints its tables when all is done. Results go to
    `--output`, by default results/ and the file's name. The same command resumes after an
    interruption. `tfdistill studies` lists the studies.
    """
    trust(allow_unsafe)
    checks.count("workers", workers)
    study = options.study_config([config, *keys], run)
    return _study(study, dry_run, rehearse, deviation, (workers, executor, address))


def train(
    config: Config,
    /,
    *keys: Keys,
    dry_run: DryRun = False,
    rehearse: Rehearse = False,
    workers: Workers = 1,
    executor: Executor = "processes",
    address: Address = None,
    allow_unsafe: AllowUnsafe = False,
) -> int:
    """Train one student for each seed, alone and taught by `teacher`.

    Results go to `--output`, by default results/ and the file's name. The same command resumes
    after an interruption.
    """
    trust(allow_unsafe)
    checks.count("workers", workers)
    study = options.study_config([config, *keys], train, {"study": "single"}, "-train")
    return _study(study, dry_run, rehearse, workers=(workers, executor, address))


def _study(
    config: StudyConfig,
    dry_run: bool,
    rehearse: bool,
    deviation: float | None = None,
    workers: tuple[int, str, str | None] = (1, "processes", None),
) -> int:
    from tfdistill.training import runner, study_folder

    folder = config.folder
    study_folder.check_folder(config, folder)
    if dry_run:
        power = findings.power_table(config, folder, deviation)
        print_tables([runner.plan_table(config, folder), power])
        return 0
    from tfdistill.utils.progress import display

    if rehearse:
        from tfdistill.training import rehearsal

        table, good = rehearsal.rehearse(config, display())
        print_tables([table])
        return 0 if good else 1
    if config.export:
        rounding = [run.quantize for run in runner.plan(config) if run.quantize]
        bits = [(each.weight_bits, each.activation_bits) for each in rounding]
        config.export.check_for_study(bits)
    found = runner.run_study(config, folder, display(), *workers)
    if not config.export:
        return _finish(folder, findings.of_folder(config, folder, found))
    says = findings.of_folder(config, folder, found)
    with contextlib.suppress(storage.DamagedError):  # of a deployment.json, which is made again
        findings.write(folder, says)  # an export that fails must not cost it
    good = exports.export_study(folder, config.export)
    return max(_finish(folder, says), 0 if good else 1)


def studies(
    name: Annotated[str | None, Parameter(choices=tuple(STUDIES), show_choices=False)] = None, /
) -> int:
    """List the studies: question, source, commands and their cost.

    Args:
        name: A study, to show its own settings, too.
    """
    from tfdistill.cli import list_studies

    print(list_studies.page(name) if name else list_studies.pages())
    return 0


def keys(
    part: Annotated[
        str | None, Parameter(choices=tuple(StudyConfig.__dataclass_fields__), show_choices=False)
    ] = None,
    /,
    *,
    markdown: bool = False,
) -> int:
    """List the keys of a study: what may stand in its YAML file, or after it as --KEY VALUE.

    Args:
        part: Only the keys of this part, such as `training`.
        markdown: As docs/keys.md has them.
    """
    from tfdistill.cli import list_keys

    print(list_keys.markdown() if markdown else list_keys.page(part))
    return 0


def sweep(
    config: Config,
    /,
    *keys: Keys,
    dry_run: DryRun = False,
    allow_unsafe: AllowUnsafe = False,
) -> int:
    """Search alpha, temperature or any other key with Keras Tuner.

    The space is `sweep.space` of a study's YAML file, the tuner grid, random, bayesian or
    hyperband. Trials are compared on validation images; the best one is trained again with fresh
    seeds before it is tested. The same command resumes after an interruption.

    Several processes search together where KERASTUNER_TUNER_ID (chief, tuner0, tuner1, ...),
    KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT are set.
    """
    trust(allow_unsafe)
    checks.installed(["keras_tuner"], "tune", "A search")
    study = options.study_config([config, *keys], sweep, suffix="-sweep")
    from tfdistill.training import study_folder
    from tfdistill.tuners import sweeps

    folder = study.folder
    plan = sweeps.plan_table(study, folder)
    study_folder.check_folder(study, folder, grows=False)
    if dry_run:
        print_tables([plan])
        return 0
    from tfdistill.utils.progress import display

    found = sweeps.search(study, folder, display())
    if sweeps.is_worker():
        print("The search is over; the chief confirms the best trial and writes the report.")
        return 0
    return _finish(folder, findings.of_folder(study, folder, found, sweeps))


def cache_build(
    config: Config,
    /,
    *keys: Keys,
    dry_run: DryRun = False,
    allow_unsafe: AllowUnsafe = False,
) -> int:
    """Train the teachers of a study and store their logits for its students.

    `tfdistill run` and `sweep` do so themselves; this does it beforehand, and helps beside them, on
    this machine or on others that share the folder, once the teachers are trained. The same command
    resumes after an interruption.
    """
    trust(allow_unsafe)
    study = options.study_config([config, *keys], cache_build)
    from tfdistill.training import runner, study_folder
    from tfdistill.utils.progress import display

    folder = study.folder
    runs = runner.plan(study)
    study_folder.check_folder(study, folder)
    if dry_run:
        print_tables([runner.plan_table(study, folder)])
        return 0
    print_tables([runner.build_caches(study, runs, folder, display())])
    return 0


def cache_verify(folder: Path, /, *, rows: options.Whole = 256) -> int:
    """Compare stored logits with those of the teachers, run again on some rows.

    Args:
        folder: The folder that a study wrote its results to.
        rows: Random images of each cache.
    """
    checks.count("rows", rows)
    config = options.study_of(folder)
    tensorflow.start()
    from tfdistill.training import runner, teacher_logits
    from tfdistill.training.session import Session

    table, good = teacher_logits.verification(
        runner.plan(config), folder, rows, Session(reading=config.data)
    )
    print_tables([table])
    return 0 if good else 1


def export(
    path: exports.Exported,
    /,
    *keys: exports.ImageKeys,
    given: exports.Options = exports.ExportOptions(),  # noqa: B008
    allow_unsafe: AllowUnsafe = False,
) -> int:
    """Write networks for TensorFlow Serving, LiteRT, ONNX, each checked.

    Each file is checked against its network in a process of its own; all are put in place as
    FOLDER/NAME/VERSION at once. Of a study's folder: its best student in all formats, its teacher
    and their ensemble as SavedModels; all are measured and the report shows the table. Of a run's
    folder or a .keras file: that network.
    """
    words = options.read([path, *keys], options.Images, export)
    images = words.images(given.config)
    if not (words.place / "config.yaml").exists():
        return exports.export_one(words.place, given.written, images, allow_unsafe)
    exports.check_own_images(words.place, images)
    options.study_of(words.place)  # of a study that cannot be read, no report can be written
    good = exports.export_study(words.place, given.written)
    return max(report(words.place), 0 if good else 1)


def report(folder: Path, /, *, archive: Path | None = None) -> int:
    """Write the report of a study again, also of an unfinished one.

    Of a folder that keeps a study's records in one file, records.jsonl.xz, the page README.md is
    written, too: verdict, tables and pictures, between two marks.

    Args:
        folder: The folder that the study wrote its results to, or one that keeps its records.
        archive: A folder in which to keep the records as records.jsonl.xz, with their page; beside
            those of other seeds of the same study, where it keeps such.
    """
    config = options.study_of(folder)
    if findings.is_kept(folder):
        says, page = findings.write_kept(config, folder)
        print_tables(says.tables, says.verdict)
        print(f"Page: {page}")
        return 0
    from tfdistill import records
    from tfdistill.training import runner
    from tfdistill.tuners import sweeps

    if sweeps.is_search(folder):
        found = [*sweeps.finished_teachers(config, folder), *sweeps.trial_records(folder)]
    else:
        order = {run.name: place for place, run in enumerate(runner.plan(config))}
        found = sorted(records.read_all(folder), key=lambda run: order.get(run.name, len(order)))
    if not found:
        raise checks.UsageError(
            f"{folder} holds no finished run yet. Let tfdistill run finish one."
        )
    search = sweeps if sweeps.is_search(folder) else None
    status = _finish(folder, findings.of_folder(config, folder, found, search))
    if archive:
        whole = [records.with_predictions(folder, run) for run in found]
        kept = findings.keep(config, whole, archive, searched=search is not None)
        print(f"Page: {findings.write_kept(kept, archive)[1]}")
    return status


def _finish(folder: Path, says: findings.Findings) -> int:
    from tfdistill.records import revisions

    tables, path = findings.write(folder, says)
    print_tables(tables, says.verdict)
    print("\n".join([*filter(None, [revisions(says.found)]), f"Report: {path}"]))
    return findings.failures(says.found)


def doctor(*, data_dir: Path | None = None) -> int:
    """Show what this machine offers.

    Args:
        data_dir: Where prepared data sets lie.
    """
    tensorflow.start()
    from tfdistill.cli import doctor as machine

    print_tables(machine.tables(str(data_dir) if data_dir else None))
    return 0


def reproduce(
    record: Path, /, *, output: Path | None = None, allow_unsafe: AllowUnsafe = False
) -> int:
    """Do a finished run again and compare every bit.

    First the runs that it needs are done, all from its record alone; then weights, figures and
    history are compared. Exit status 0 if all are equal to the bit.

    Args:
        record: STUDY/runs/NAME or its record.json.
        output: A new folder; by default results/NAME-reproduced.
    """
    trust(allow_unsafe)
    from tfdistill.training import reproduction
    from tfdistill.utils.progress import display

    found = reproduction.reproduce(record, output, display())
    print_tables(found.tables)
    return 0 if found.equal else 1


def completion(shell: Literal["bash", "zsh", "fish"], /) -> int:
    """Print what lets a shell complete commands, options, keys and choices.

    Write it to a file, and `source` that in ~/.bashrc, in ~/.zshrc after `compinit`, or in
    ~/.config/fish/config.fish.

    Args:
        shell: Whose.
    """
    from tfdistill.cli import completions

    print(completions.script(shell, COMMANDS))
    return 0


# In the order of the list of commands.
COMMANDS: dict[str, Callable[..., int]] = {
    "quickstart": quickstart,
    "distill": distill,
    "init": init,
    "run": run,
    "train": train,
    "studies": studies,
    "keys": keys,
    "sweep": sweep,
    "cache build": cache_build,
    "cache verify": cache_verify,
    "evaluate": exports.evaluate,
    "export": export,
    "predict": exports.predict,
    "demo": exports.demo,
    "report": report,
    "doctor": doctor,
    "reproduce": reproduce,
    "completion": completion,
}
# Of the commands that are two words, what they have in common.
GROUPS = {"cache": "Store teachers' logits for students, or verify what is stored."}
# Those that leave what they have done, and go on from there.
GOES_ON = (quickstart, distill, run, train, sweep, cache_build, export)
