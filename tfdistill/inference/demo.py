"""A web page on this machine: drop an image, see what teacher and student say, side by side.

The page needs no internet. Only who started it can open it (`demo_server.py`), and it loads nothing
from elsewhere: fonts, scripts and styles come from the installed Gradio.
"""

import contextlib
import html
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfdistill.data import image_files
from tfdistill.export import model_card, versions
from tfdistill.export.format import format_of, formats_of
from tfdistill.inference import classifiers, demo_samples, demo_server
from tfdistill.utils import checks
from tfdistill.utils.text import MISSING, file_size, printable

if TYPE_CHECKING:
    import gradio as gr

TOP = 5
# The first call prepares the runtime and is not counted.
CALLS = 5
INTERRUPTED = 130


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
        The demo is at http://127.0.0.1:7860/Jm0c0v3pSGM5aXbFEyJ7Zw/ . Ctrl-C ends it.
        130
    """
    _require_gradio()
    with (
        contextlib.suppress(KeyboardInterrupt),
        demo_server.listening(port) as listener,
        demo_server.own_uploads() as uploads,
    ):
        shown = opened(model, teacher, allow_unsafe)
        samples = demo_samples.write(shown[-1].model.path, uploads)
        demo_server.serve(page(shown, samples), listener, uploads)
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


def page(shown: Sequence[Shown], samples: Sequence[Path] = ()) -> "gr.Blocks":
    """Return the page of one model, or of a teacher and its student.

    Args:
        shown: The models, in the order of their columns.
        samples: Image files that can be tried by a click; in the folder of uploads.

    Raises:
        UsageError: Gradio is missing.
    """
    gr = _require_gradio()

    def classify(upload):
        answers, problem = _answers(upload, shown)
        image = gr.update(value=None) if problem else gr.skip()
        return image, *results(answers, problem)

    def try_sample(number):
        answers, problem = _answers({"path": samples[number]}, shown)
        return None if problem else str(samples[number]), *results(answers, problem)

    def clear():
        return results([None] * len(shown), "")

    def results(answers, problem):
        text = f'<p role="alert">{html.escape(problem)}</p>'
        said = gr.update(value=text, visible=bool(problem))
        labels = [answer.classes if answer else None for answer in answers]
        seen = [gr.update(value=_seen(answer), visible=answer is not None) for answer in answers]
        return said, *seen, *labels, _facts(shown, answers)

    title = " and ".join(one.role for one in shown).capitalize()
    several = all(one.model.multi_label for one in shown)
    asked = "see which labels it has" if several else "see which classes it is taken for"
    with gr.Blocks(title=f"{title} – tfdistill", analytics_enabled=False) as blocks:
        assumed = [f"{one.role}: {one.model.assumed}" for one in shown if one.model.assumed]
        gr.Markdown("\n\n".join([f"# {title}\nDrop an image to {asked}.", *assumed]))
        picture: dict[str, Any] = {"buttons": [], "elem_classes": "picture"}
        image = gr.Image(sources=["upload"], label="Image", height=240, **picture)
        problem = gr.HTML(elem_id="problem", padding=False, visible=False)
        if samples:
            rows = [[str(path)] for path in samples]
            shape = {"samples": rows, "type": "index", "label": "Test images to try"}
            tried = gr.Dataset(components=[image], **shape)
        seen, labels = [], []
        with gr.Row():
            for one in shown:
                with gr.Column(min_width=140):
                    what = {"label": f"As the {one.role.lower()} sees it", "height": 160}
                    there = {"interactive": False, "visible": False, "format": "png"}
                    seen.append(gr.Image(**what, **there, **picture))
                    # Of several labels all are shown, and none of them is the answer.
                    every = {"show_heading": False} if one.model.multi_label else {}
                    number = None if one.model.multi_label else TOP
                    labels.append(gr.Label(label=one.role, num_top_classes=number, **every))
        facts = gr.HTML(_facts(shown, [None] * len(shown)), elem_id="facts", padding=False)
        found = [problem, *seen, *labels, facts]
        # Unprocessed: Gradio would decode the file first, and fail without a clear sentence.
        image.upload(classify, image, [image, *found], preprocess=False, api_visibility="private")
        image.clear(clear, None, found, api_visibility="private")
        if samples:
            tried.click(try_sample, tried, [image, *found], api_visibility="private")
    return blocks


@dataclass(frozen=True, eq=False)
class _Answer:
    pixels: np.ndarray
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
    pixels = model.read(path)
    [guesses] = model.classify(pixels[None], TOP)
    seconds = []
    for _ in range(CALLS):
        start = time.perf_counter()
        model.runtime(pixels[None])
        seconds.append(time.perf_counter() - start)
    classes = {printable(one.name): float(one.probability) for one in guesses}
    return _Answer(pixels, classes, statistics.median(seconds))


def _seen(answer: _Answer | None) -> np.ndarray | None:
    """Return the pixels that a network was given, grey ones `[height, width]`."""
    if answer is None:
        return None
    return answer.pixels[..., 0] if answer.pixels.shape[-1] == 1 else answer.pixels


def _facts(shown: Sequence[Shown], answers: Sequence[_Answer | None]) -> str:
    """Return the table below the answers, as HTML."""
    sizes = [
        answer.pixels.shape if answer else one.model.shape
        for one, answer in zip(shown, answers, strict=True)
    ]
    there = [_labels(one, answer) for one, answer in zip(shown, answers, strict=True)]
    rows = {
        "Labels above 50 %": there,
        "Model": [_name(one) for one in shown],
        "Format": [_format_name(one.model) for one in shown],
        "Sees images of": [_size_and_channels(size) for size in sizes],
        "Size on disk": [_size(one.model.path) for one in shown],
        "Test accuracy": [_accuracy(one) for one in shown],
        "Time per image": [f"{1000 * one.seconds:.3f} ms" if one else MISSING for one in answers],
    }
    if not any(one.model.multi_label for one in shown):
        del rows["Labels above 50 %"]
    columns = _cells("th", ["", *(one.role for one in shown)])
    lines = [_cells("th", [name]) + _cells("td", cells) for name, cells in rows.items()]
    table = "".join(f"<tr>{line}</tr>" for line in [columns, *lines])
    note = f"Time: median of {CALLS} calls with this image on this machine, after reading it."
    return f"<table>{table}</table><p>{note}</p>"


def _labels(one: Shown, answer: _Answer | None) -> str:
    """Return the labels that are there, as `predict` lists them."""
    if answer is None or not one.model.multi_label:
        return MISSING
    return ", ".join(name for name, share in answer.classes.items() if share > 0.5) or "none"


def _size_and_channels(shape: Sequence[int | None]) -> str:
    """Return e.g. `8 × 8 pixels, grey`."""
    height, width, channels = shape
    size = "any size" if height is None or width is None else f"{height} × {width} pixels"
    return f"{size}, {'grey' if channels == 1 else 'colour'}"


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
    what = "the labels of " if one.model.multi_label else ""
    return f"{100 * check['accuracy']:.2f} % of {what}{check['images']} images"


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
