"""A web page on this machine: drop an image, see what teacher and student say, side by side.

The page needs no internet. Only this machine can open it, and it loads nothing from elsewhere:
fonts, scripts and styles come from the installed Gradio.
"""

import contextlib
import html
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdistill.data import image_files
from tfdistill.export import model_card, versions
from tfdistill.export.format import format_of, formats_of
from tfdistill.inference import classifiers
from tfdistill.utils import checks
from tfdistill.utils.text import MISSING, file_size

if TYPE_CHECKING:
    import gradio as gr

HOST = "127.0.0.1"
TOP = 5
# The first call prepares the runtime and is not counted.
CALLS = 5
INTERRUPTED = 130
CSS = """
.gradio-container { width: 100% !important; max-width: 60rem !important; margin: auto; }
#image img { width: 100%; height: 100%; object-fit: contain; }
#problem p { color: #b42318; font-weight: 600; }
.dark #problem p { color: #fda29b; }
#facts table { width: 100%; }
#facts :is(td, th) {
  border: 1px solid var(--border-color-primary); padding: 0.4rem; text-align: left;
  overflow-wrap: anywhere;
}
"""


@dataclass(frozen=True, eq=False)
class Shown:
    """A model on the page.

    Args:
        role: What it is called there: `Teacher`, `Student`, ...
        model: The opened model.
        card: Its model card; empty where there is none.
    """

    role: str
    model: classifiers.Model
    card: dict


def launch(
    model: str | Path, teacher: str | Path | None = None, port: int = 7860, allow_unsafe=False
) -> int:
    """Show the page until Ctrl-C, and return the exit status of that, 130.

    Args:
        model: An export: `saved_models/NAME`, `saved_models/NAME/VERSION`, a .tflite or .onnx file.
        teacher: Another one to show beside it; None takes the export of what `model` was distilled
            from, if it lies in the same folder.
        port: Port on 127.0.0.1; 0 takes any that is free.
        allow_unsafe: Also open SavedModels that could read or write files.

    Raises:
        UsageError: Gradio is missing, the port is taken, or a model cannot be opened.

    Example:
        >>> launch("saved_models/quickstart-student")
        The demo is at http://127.0.0.1:7860 . Ctrl-C ends it.
        130
    """
    _require_gradio()
    with contextlib.suppress(KeyboardInterrupt), _listening(port) as listener, _own_uploads():
        _serve(page(opened(model, teacher, allow_unsafe)), listener)
    return INTERRUPTED


def opened(
    model: str | Path, teacher: str | Path | None = None, allow_unsafe: bool = False
) -> list[Shown]:
    """Open a model and what stands beside it on the page; a teacher comes first.

    Args:
        model, teacher, allow_unsafe: As of `launch`.

    Raises:
        UsageError: A model cannot be opened.
    """
    own = classifiers.open_export(model, allow_unsafe)
    if own.multi_label:
        raise checks.UsageError(
            f"The demo shows one class of several. Received: {model}, which gives any number of "
            "labels. Ask it with tfdistill predict."
        )
    card = _card(own.path)
    beside = teacher or find_teacher(own.path)
    if not beside:
        return [Shown(str(card.get("kind", "model")).capitalize(), own, card)]
    other = classifiers.open_export(beside, allow_unsafe)
    return [Shown("Teacher", other, _card(other.path)), Shown("Student", own, card)]


def find_teacher(path: Path) -> Path | None:
    """Return the newest export of what a student was distilled from, None where there is none.

    It is looked for beside the student's folder. The ensemble of all its teachers is taken before
    a single one.

    Args:
        path: The student's `FOLDER/NAME/VERSION`, or a file in it.
    """
    teachers = (_card(path).get("distilled_from") or {}).get("teachers")
    if not teachers:
        return None
    beside = sorted(_version_folder(path).parents[1].iterdir())
    cards = {newest: _card(newest) for newest in map(versions.latest, beside) if newest}
    ensembles = [there for there, card in cards.items() if _members(card) == teachers]
    single = [there for there, card in cards.items() if any(_is(card, one) for one in teachers)]
    return next(iter([*ensembles, *single]), None)


def page(shown: Sequence[Shown]) -> "gr.Blocks":
    """Return the page of one model, or of a teacher and its student.

    Args:
        shown: The models, in the order of their columns.

    Raises:
        UsageError: Gradio is missing.
    """
    gr = _require_gradio()

    def classify(upload):
        answers, problem = _answers(upload, shown)
        labels = [answer.classes if answer else None for answer in answers]
        picture = gr.update(value=None) if problem else gr.skip()
        return picture, said(problem), *labels, _facts(shown, answers)

    def clear():
        return said(""), *(None for _ in shown), _facts(shown, nothing)

    def said(problem):
        text = f'<p role="alert">{html.escape(problem)}</p>'
        return gr.update(value=text, visible=bool(problem))

    nothing = [None] * len(shown)

    title = " and ".join(one.role for one in shown).capitalize()
    with gr.Blocks(title=f"{title} – tfdistill", analytics_enabled=False) as blocks:
        gr.Markdown(f"# {title}\nDrop an image to see which classes it is taken for.")
        image = gr.Image(sources=["upload"], label="Image", height=240, buttons=[], elem_id="image")
        problem = gr.HTML(elem_id="problem", padding=False, visible=False)
        with gr.Row():
            labels = [gr.Label(label=one.role, num_top_classes=TOP) for one in shown]
        facts = gr.HTML(_facts(shown, nothing), elem_id="facts", padding=False)
        results = [problem, *labels, facts]
        # Unprocessed: Gradio would decode the file first, and fail without a clear sentence.
        image.upload(classify, image, [image, *results], preprocess=False, api_visibility="private")
        image.clear(clear, None, results, api_visibility="private")
    return blocks


@dataclass(frozen=True)
class _Answer:
    classes: dict[str, float]
    seconds: float


def _answers(upload: dict, shown: Sequence[Shown]) -> tuple[list[_Answer | None], str]:
    """Return every model's answer, and what is wrong with the image where there is none."""
    try:
        return [_answer(one.model, Path(upload["path"])) for one in shown], ""
    except (image_files.ImageError, checks.UsageError) as error:
        name = upload.get("orig_name") or "This file"
        return [None] * len(shown), f"{name} cannot be classified. {error}"


def _answer(model: classifiers.Model, path: Path) -> _Answer:
    images = model.read(path)[None]
    [guesses] = model.classify(images, TOP)
    seconds = []
    for _ in range(CALLS):
        start = time.perf_counter()
        model.runtime(images)
        seconds.append(time.perf_counter() - start)
    return _Answer(
        {one.name: float(one.probability) for one in guesses}, statistics.median(seconds)
    )


def _facts(shown: Sequence[Shown], answers: Sequence[_Answer | None]) -> str:
    """Return the table below the answers, as HTML."""
    rows = {
        "Model": [_name(one) for one in shown],
        "Format": [_format_name(one.model) for one in shown],
        "Size on disk": [_size(one.model.path) for one in shown],
        "Test accuracy": [_accuracy(one) for one in shown],
        "Time per image": [f"{1000 * one.seconds:.3f} ms" if one else MISSING for one in answers],
    }
    columns = _cells("th", ["", *(one.role for one in shown)])
    lines = [_cells("th", [name]) + _cells("td", cells) for name, cells in rows.items()]
    table = "".join(f"<tr>{line}</tr>" for line in [columns, *lines])
    note = f"Time: median of {CALLS} calls with this image on this machine, after reading it."
    return f"<table>{table}</table><p>{note}</p>"


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)


def _name(one: Shown) -> str:
    return f"{one.card['name']}/{one.card['version']}" if one.card else one.model.name


def _format_name(model: classifiers.Model) -> str:
    return (format_of(model.path) or model.runtime).title


def _size(path: Path) -> str:
    found = formats_of(path)
    files = found[0].shipped(path) if found else [path]
    return file_size(sum(file.stat().st_size for file in files))


def _accuracy(one: Shown) -> str:
    """Return the accuracy of this very file, as its check measured it."""
    found = format_of(one.model.path)
    described = found and one.card.get("formats", {}).get(found.name)
    if not described or not described["checks"]:
        return MISSING
    check = described["checks"][0]
    return f"{100 * check['accuracy']:.2f} % of {check['images']} images"


def _members(card: dict) -> list | None:
    return (card.get("ensemble_of") or {}).get("members")


def _is(card: dict, teacher: dict) -> bool:
    """Return whether a card is that of a run which another card names as a teacher."""
    run = (card.get("training") or {}).get("run")
    same = (run, card.get("parameters")) == (teacher["run"], teacher["parameters"])
    values = (card.get("figures") or {}).get("values", {})
    return same and values.get("accuracy") == teacher["test_accuracy"]


def _card(path: Path) -> dict:
    """Return the model card beside a model; empty where there is none that can be read."""
    card = versions.card_of(_version_folder(path)) or {}
    return card if card.get("format") == model_card.FORMAT else {}


def _version_folder(path: Path) -> Path:
    path = path.resolve()
    return path if path.is_dir() else path.parent


def _require_gradio():
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"}
    checks.installed(["gradio"], "demo", "The demo")
    import gradio

    return gradio


@contextlib.contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """Take the port before models are opened: whether it is free is known at once."""
    with socket.socket() as listener:
        # A port that a demo has just left is free again at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise checks.UsageError(
                f"port must be one that is free, 0 for any. Received: port={port!r} ({reason}). "
                "Give another one with --port."
            ) from None
        yield listener


@contextlib.contextmanager
def _own_uploads() -> Iterator[None]:
    """Let uploaded images lie in a folder that goes away with the demo."""
    with tempfile.TemporaryDirectory(prefix="tfdistill-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["GRADIO_TEMP_DIR"]


def _serve(blocks: "gr.Blocks", listener: socket.socket) -> None:
    """Answer requests until a signal comes."""
    import fastapi
    import gradio as gr
    import uvicorn
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # Otherwise a page from elsewhere could reach this one through a name that leads here.
    app = fastapi.FastAPI()
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    port = listener.getsockname()[1]
    fonts: dict[str, Any] = {
        "font": ["system-ui", "sans-serif"],
        "font_mono": ["ui-monospace", "monospace"],
    }
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=HOST,
        server_port=port,
        footer_links=[],
        max_file_size=image_files.MAX_BYTES,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        theme=gr.themes.Default(**fonts),
        css=CSS,
    )
    print(f"The demo is at http://{HOST}:{port} . Ctrl-C ends it.", flush=True)
    # Open pages keep a connection, which must not hold up the end.
    config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run([listener])
