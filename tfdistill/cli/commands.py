"""The commands as they are called: what each does, what it takes and in which bounds."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tfdistill.config import DataConfig, ExportConfig, StudyConfig
from tfdistill.utils import checks
from tfdistill.utils.registry import imported

GO_ON = """\
Every value can be changed on the command line, for example --seeds [0,1,2]
--training.epochs 20. Results go to --output, by default results/ and the file's
name. The same command resumes after an interruption."""

STUDY_HELP = f"""\
Do the study that a YAML file describes, and print its tables when all is done.
{GO_ON}

`tfdistill studies` lists the studies."""

SWEEP_HELP = f"""\
Search the space `sweep.space` of a study's YAML file with Keras Tuner: grid,
random, bayesian or hyperband. Trials are compared on validation images; the
best one is trained again with fresh seeds before it is tested.
{GO_ON}

Several processes search together where KERASTUNER_TUNER_ID (chief, tuner0,
tuner1, ...), KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT are set."""

CACHE_HELP = f"""\
Train the teachers of a study and store their logits for its students. `tfdistill
run` and `sweep` do so themselves; this does it beforehand.
{GO_ON}"""

EVALUATE_HELP = """\
Measure a saved network (.keras file or SavedModel) on the test images: those of
the study whose folder it lies in, unless --config names a study's YAML file."""

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

REPRODUCE_HELP = """\
Do a finished run again, first the runs that it needs, from its record alone, and
compare weights, figures and history. Exit status 0 if all are equal to the bit."""

HELP = {"--help": "show this page"}
DRY_RUN = {"--dry-run": "list the runs and what each needs; do nothing"}
REHEARSE = {"--rehearse": "one batch of every kind of run; keep nothing"}
UNSAFE = {"--allow-unsafe": "also load model files that could run code of their own"}


@dataclass(frozen=True)
class NoOptions:
    """The options of a command that has none."""


@dataclass(frozen=True)
class VerifyOptions:
    """Options of `tfdistill cache verify`.

    Args:
        rows: Random images of each cache.
    """

    rows: int = 256

    def __post_init__(self):
        checks.count("rows", self.rows)


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `tfdistill evaluate`.

    Args:
        teacher: Also compare with this saved network.
        batch_size: Images at once.
        config: A study's YAML file, for its images.
        data: The images.
    """

    teacher: str | None = None
    batch_size: int = 128
    config: str | None = None
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self):
        checks.count("batch_size", self.batch_size)


@dataclass(frozen=True)
class ExportOptions(ExportConfig):
    """Options of `tfdistill export`.

    Args:
        config: A study's YAML file, for its images.
        data: The images of a network of one's own.
    """

    config: str | None = None
    data: DataConfig = field(default_factory=DataConfig)


@dataclass(frozen=True)
class PredictOptions:
    """Options of `tfdistill predict`.

    Args:
        format: `table`, `json` or `csv`.
        top: Classes in each answer.
        batch_size: Images at once.
        output: The file to write; null prints.
    """

    format: str = "table"
    top: int = 3
    batch_size: int = 32
    output: str | None = None

    def __post_init__(self):
        from tfdistill.inference.output import FORMATS

        checks.one_of("format", self.format, FORMATS)
        checks.count("top", self.top)
        checks.count("batch_size", self.batch_size)


@dataclass(frozen=True)
class DemoOptions:
    """Options of `tfdistill demo`.

    Args:
        teacher: Another model to show beside it.
        port: Port on 127.0.0.1; 0 takes any that is free.
    """

    teacher: str | None = None
    port: int = 7860

    def __post_init__(self):
        if not 0 <= self.port <= 65535:
            checks.of_type("port", self.port, "a whole number from 0 to 65535")


@dataclass(frozen=True)
class DoctorOptions:
    """Options of `tfdistill doctor`.

    Args:
        data_dir: Where prepared data sets lie.
    """

    data_dir: str | None = None


@dataclass(frozen=True)
class ReproduceOptions:
    """Options of `tfdistill reproduce`.

    Args:
        output: A new folder; default results/NAME-reproduced.
    """

    output: str | None = None


@dataclass(frozen=True)
class Command:
    """How a command is called.

    Args:
        place: Of its function, `module:function`; that takes the words after the command and
            returns an exit status.
        words: Its places in short, for the list of commands.
        brief: What it does in short, there.
        usage: What stands after `tfdistill COMMAND`.
        about: What it does, in lines of at most 82 letters.
        places: What is given without a name, in order, and what it is. `name...` stands for one or
            more, `[name]` may be left out.
        options: The dataclass of its options.
        flags: Options without a value, and what each does.
        goes_on: Whether it leaves what it has done, and goes on from there.
    """

    place: str
    words: str
    brief: str
    usage: str
    about: str
    places: dict[str, str]
    options: type = NoOptions
    flags: dict[str, str] = field(default_factory=dict)
    goes_on: bool = False

    @property
    def action(self) -> Callable[[list[str]], int]:
        """The function that does the command."""
        return imported(self.place)


_CONFIG = {"config": "a study's YAML file, such as configs/quickstart.yaml"}
_FOLDER = {"folder": "the folder that a study wrote its results to"}
_ACTIONS = "tfdistill.cli.actions"
_SHORT = "CONFIG [--dry-run] [--KEY VALUE ...]"
_FLAGS = DRY_RUN | REHEARSE | UNSAFE
_STUDY = ("CONFIG [--dry-run] [--rehearse] [--KEY VALUE ...]", STUDY_HELP, _CONFIG, StudyConfig)

# In the order of the list of commands. To add one, write its function and one entry here.
COMMANDS = {
    "run": Command(
        f"{_ACTIONS}:run",
        "CONFIG",
        "do a study: train, distil, evaluate, report; again to go on",
        *_STUDY,
        _FLAGS,
        goes_on=True,
    ),
    "train": Command(
        f"{_ACTIONS}:train",
        "CONFIG",
        "one student for each seed, alone and taught by `teacher`",
        *_STUDY,
        _FLAGS,
        goes_on=True,
    ),
    "studies": Command(
        f"{_ACTIONS}:studies",
        "[NAME]",
        "list the studies: question, source, commands and their cost;\n"
        "with NAME also the study's own settings",
        "[NAME]",
        "List the studies, or show one with its settings.",
        {"[name]": "a study"},
    ),
    "sweep": Command(
        f"{_ACTIONS}:sweep",
        "CONFIG",
        "search alpha, temperature or any other key with Keras Tuner",
        _SHORT,
        SWEEP_HELP,
        _CONFIG,
        StudyConfig,
        DRY_RUN | UNSAFE,
        goes_on=True,
    ),
    "cache build": Command(
        f"{_ACTIONS}:cache_build",
        "CONFIG",
        "store teachers' logits for students",
        _SHORT,
        CACHE_HELP,
        _CONFIG,
        StudyConfig,
        DRY_RUN | UNSAFE,
        goes_on=True,
    ),
    "cache verify": Command(
        f"{_ACTIONS}:cache_verify",
        "FOLDER",
        "compare stored logits with those of the teachers run again",
        "FOLDER [--rows N]",
        "Run the teachers again on some rows of a study's caches.",
        _FOLDER,
        VerifyOptions,
    ),
    "evaluate": Command(
        f"{_ACTIONS}:evaluate",
        "MODEL",
        "measure a saved network on the test images",
        "MODEL [--teacher PATH] [--data.KEY VALUE ...]",
        EVALUATE_HELP,
        {"model": "a .keras file or the folder of a SavedModel"},
        EvaluateOptions,
        UNSAFE,
    ),
    "export": Command(
        f"{_ACTIONS}:export",
        "FOLDER",
        "write networks for TensorFlow Serving, LiteRT, ONNX, each checked",
        "STUDY | RUN | MODEL [--formats NAME,NAME] [--KEY VALUE ...]",
        EXPORT_HELP,
        {"path": "a study's folder, a run's (STUDY/runs/NAME) or a .keras file"},
        ExportOptions,
        UNSAFE,
        goes_on=True,
    ),
    "predict": Command(
        f"{_ACTIONS}:predict",
        "MODEL IMAGES...",
        "classify image files with an exported network",
        "MODEL IMAGES... [--format json] [--top N] [--output FILE]",
        PREDICT_HELP,
        {
            "model": "saved_models/NAME[/VERSION], a .tflite, .onnx or .keras file",
            "images...": "image files and folders",
        },
        PredictOptions,
        UNSAFE,
    ),
    "demo": Command(
        f"{_ACTIONS}:demo",
        "MODEL",
        "try an exported network in the browser, beside its teacher",
        "MODEL [--teacher MODEL] [--port 7860]",
        DEMO_HELP,
        {"model": "saved_models/NAME, a .tflite or .onnx file"},
        DemoOptions,
        UNSAFE,
    ),
    "report": Command(
        f"{_ACTIONS}:report",
        "FOLDER",
        "write the report of a study again, also of an unfinished one",
        "FOLDER",
        "Write the report of a study's folder again.",
        _FOLDER,
    ),
    "doctor": Command(
        f"{_ACTIONS}:doctor",
        "",
        "show what this machine offers",
        "[--data_dir PATH]",
        "Show what this machine offers to tfdistill.",
        {},
        DoctorOptions,
    ),
    "reproduce": Command(
        f"{_ACTIONS}:reproduce",
        "RECORD",
        "do a finished run again and compare every bit",
        "RECORD [--output FOLDER]",
        REPRODUCE_HELP,
        {"record": "STUDY/runs/NAME or its record.json"},
        ReproduceOptions,
        UNSAFE,
    ),
}
