"""The demo's page as a user meets it: a real process, a real browser, tiny exported networks."""

import importlib.util
import io
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import keras
import numpy as np
import pytest

from tfdistill.data import image_files
from tfdistill.export import litert, model_card, saved_model
from tfdistill.inference import demo
from tfdistill.utils import checks

if not importlib.util.find_spec("gradio"):  # the demo's process imports it
    pytest.skip("There is no gradio.", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")
Image = pytest.importorskip("PIL.Image")

CHROMIUM = Path("/usr/bin/chromium")
if not CHROMIUM.exists():
    pytest.skip("There is no Chromium.", allow_module_level=True)

expect = sync_api.expect
expect.set_options(timeout=600_000)
SHAPE, CLASSES = (8, 8, 3), ("apple", "bean_pod", "cherry")
QUIET = ["background-networking", "component-update", "sync", "gpu"]
# The demo, with every address that its process connects to or looks up written to a file.
WATCHED = """
import socket, sys
log = open(sys.argv[1], "a", buffering=1)
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments
        log.write(f"{address[0]}\\n")
sys.addaudithook(watch)
socket.getaddrinfo("localhost", 0)
from tfdistill.inference import demo
sys.exit(demo.launch(sys.argv[2], port=0))
"""
# A run as its student's card names it, and in the card of its own export.
TAUGHT = {"run": "single-0", "parameters": 1000, "test_accuracy": 0.9}
OTHER = {**TAUGHT, "run": "single-1"}
TEACHER = {
    "kind": "teacher",
    "training": {"run": "single-0"},
    "parameters": 1000,
    "figures": {"values": {"accuracy": 0.9}},
}
BROKEN = {
    "text.png": "no JPEG, PNG, BMP, GIF",
    "empty.png": "empty",
    "cut.png": "damaged or cut short",
    "huge.png": "megapixels",
    "<b>.png": "no JPEG, PNG, BMP, GIF",
}


def network(channels, seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(SHAPE)
    x = keras.layers.Conv2D(channels, 3, activation="relu")(inputs / 255.0)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def probabilities(network, pixels):
    return keras.ops.convert_to_numpy(keras.ops.softmax(network(pixels[None].astype("f4"))))[0]


def write_card(folder, name, **facts):
    folder.mkdir(parents=True, exist_ok=True)
    card = {"format": model_card.FORMAT, "name": name, "version": int(folder.name), **facts}
    (folder / model_card.JSON_FILE).write_text(json.dumps(card))
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))


def taught_by(*teachers):
    return {"kind": "student", "distilled_from": {"teachers": teachers}}


@pytest.fixture(scope="module")
def networks():
    return {"Teacher": network(16, 1), "Student": network(4, 2)}


@pytest.fixture(scope="module")
def exports(networks, tmp_path_factory):
    """A teacher's SavedModel and the LiteRT file of its student, with their cards."""
    folder = tmp_path_factory.mktemp("saved_models")
    teacher, student = folder / "tiny-teacher" / "2", folder / "tiny-student" / "1"
    student.mkdir(parents=True)
    numeric = tmp_path_factory.mktemp("numeric")
    saved_model.write(networks["Teacher"], teacher, SHAPE, CLASSES)
    saved_model.write_numeric(networks["Student"], numeric, SHAPE)
    litert.convert(numeric, student / "model.float32.tflite", "float32", None)
    check = {"checks": [{"accuracy": 0.875, "images": 40}]}
    write_card(teacher, "tiny-teacher", **TEACHER)
    write_card(student, "tiny-student", **taught_by(TAUGHT), formats={"litert-float32": check})
    return student / "model.float32.tflite", teacher


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", *(f"--disable-{part}" for part in QUIET)]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(browser, exports, tmp_path_factory):
    """Address of the demo, and the file of its connections; pages are still open when it ends."""
    connections = tmp_path_factory.mktemp("log") / "connections"
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, str(connections), str(exports[0])],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+", line)
    if not address:
        process.kill()
        pytest.fail(line + process.communicate()[1])
    assert "Ctrl-C" in line
    yield address[0], connections
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=600)
    assert (process.returncode, printed, errors) == (130, "", "")


@pytest.fixture
def page(server, browser):
    """The page on a telephone; whatever it asks for must come from the demo."""
    asked = []
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.on("request", lambda request: asked.append(request.url))
    page.goto(server[0])
    expect(page.get_by_role("heading", name="Teacher and student")).to_be_visible()
    yield page
    own = (f"{server[0]}/", f"blob:{server[0]}/", "data:")
    assert asked and [url for url in asked if not url.startswith(own)] == []


def give(page, name, data):
    page.locator("input[type=file]").set_input_files(
        {"name": name, "mimeType": "image/png", "buffer": data}
    )


def answer(page, role):
    """Return the box of one model's answer."""
    label = page.get_by_test_id("block-label").filter(has_text=role)
    return page.locator(".block").filter(has=label)


@pytest.fixture(scope="module")
def pixels(networks):
    """An image that teacher and student take for different things."""
    generator = np.random.default_rng(0)
    for _ in range(100):
        image = generator.integers(0, 256, SHAPE, dtype=np.uint8)
        if len({int(probabilities(one, image).argmax()) for one in networks.values()}) == 2:
            return image
    pytest.fail("The networks agree on every image.")


def as_png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def expect_answers(page, pixels, networks):
    for role, network in networks.items():
        found = probabilities(network, pixels)
        box = answer(page, role)
        expect(box.get_by_test_id("label-output-value")).to_have_text(CLASSES[found.argmax()])
        for name, probability in zip(CLASSES, found, strict=True):
            row = box.get_by_test_id(f"{name}-confidence-set")
            expect(row).to_contain_text(f"{100 * probability:.0f}%")


@pytest.mark.slow
class TestPage:
    def test_teacher_and_student_say_what_the_networks_say(self, page, pixels, networks):
        give(page, "image.png", as_png(pixels))
        expect_answers(page, pixels, networks)
        for role in networks:
            expect(page.get_by_role("columnheader", name=role)).to_be_visible()
        row = page.get_by_role("row", name="Time per image").get_by_role("cell")
        expect(row).to_have_text([re.compile(r"^\d+\.\d{3} ms$")] * 2)

    def test_facts_of_both_models(self, page, exports):
        def cells(name):
            header = page.get_by_role("rowheader", name=name, exact=True)
            return page.get_by_role("row").filter(has=header).get_by_role("cell")

        kilobytes = exports[0].stat().st_size / 1000
        expect(cells("Model")).to_have_text(["tiny-teacher/2", "tiny-student/1"])
        expect(cells("Format")).to_have_text(["SavedModel", "LiteRT float32"])
        expect(cells("Size on disk").last).to_have_text(f"{kilobytes:.2f} kB")
        expect(cells("Test accuracy")).to_have_text(["–", "87.50 % of 40 images"])
        expect(cells("Time per image")).to_have_text(["–", "–"])

    def test_a_broken_image_is_explained_and_the_next_one_answered(self, page, pixels, networks):
        data = {"empty.png": b"", "cut.png": as_png(np.zeros((64, 64, 3), np.uint8))[:60]}
        data["huge.png"] = as_png(np.zeros((10_000, 10_000), np.uint8))
        for name, explained in BROKEN.items():
            give(page, name, data.get(name, b"no image"))
            problem = page.get_by_role("alert").filter(has_text=f"{name} cannot be classified.")
            expect(problem).to_contain_text(explained)
            expect(page.get_by_test_id("label-output-value")).to_have_count(0)
            give(page, "image.png", as_png(pixels))
            expect_answers(page, pixels, networks)
            expect(problem).to_have_count(0)
            page.get_by_role("button", name=re.compile("Remove|Clear")).click()
            expect(page.get_by_test_id("label-output-value")).to_have_count(0)

    def test_without_its_image_the_answers_go(self, page, pixels):
        give(page, "image.png", as_png(pixels))
        expect(page.get_by_test_id("label-output-value")).to_have_count(2)
        page.get_by_role("button", name=re.compile("Remove|Clear")).click()
        expect(page.get_by_test_id("label-output-value")).to_have_count(0)

    def test_too_large_an_upload_is_refused(self, page, tmp_path):
        path = tmp_path / "large.png"
        with open(path, "wb") as file:
            file.truncate(image_files.MAX_BYTES + 1)
        page.locator("input[type=file]").set_input_files(path)
        expect(page.get_by_text("exceed the maximum allowed size of 64")).to_be_visible()

    def test_the_first_tab_leads_to_the_button_that_takes_an_image(self, page):
        button = page.get_by_role("button", name=re.compile("upload"))
        expect(button).to_be_visible()
        page.keyboard.press("Tab")
        expect(button).to_be_focused()

    def test_a_telephone_shows_the_whole_width(self, page, pixels):
        give(page, "image.png", as_png(pixels))
        expect(page.get_by_test_id("label-output-value")).to_have_count(2)
        assert page.evaluate("document.scrollingElement.scrollWidth") == 390


@pytest.mark.slow
class TestServer:
    def test_it_connects_to_nothing_else(self, server):
        hosts = set(server[1].read_text().split())
        assert "localhost" in hosts and hosts <= {"localhost", "127.0.0.1"}

    def test_it_answers_to_no_other_name(self, server):
        request = urllib.request.Request(server[0], headers={"Host": "elsewhere.example"})
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(request)

    def test_other_machines_cannot_reach_it(self, server):
        port = int(server[0].rpartition(":")[2])
        with socket.socket() as other, pytest.raises(ConnectionRefusedError):
            other.connect(("127.0.0.2", port))


@pytest.mark.slow
class TestWrongInput:
    def test_a_port_in_use(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            with pytest.raises(checks.UsageError, match=f"port={port} .*in use.* --port"):
                demo.launch("saved_models/any", port=port)

    def test_a_port_that_is_none(self):
        with pytest.raises(checks.UsageError, match="port=70000"):
            demo.launch("saved_models/any", port=70000)

    def test_no_model(self, tmp_path):
        with pytest.raises(checks.UsageError, match="which does not exist"):
            demo.launch(tmp_path / "nothing", port=0)

    def test_no_gradio(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "gradio", None)
        with pytest.raises(checks.UsageError, match=r'pip install "tfdistill\[demo\]"'):
            demo.launch("saved_models/any")


class TestFindTeacher:
    @pytest.fixture
    def student(self, tmp_path):
        folder = tmp_path / "a-student" / "1"
        write_card(folder, "a-student", **taught_by(TAUGHT, OTHER))
        return folder

    def test_none_beside_it(self, student):
        assert demo.find_teacher(student) is None

    def test_the_newest_version_of_one_that_taught_it(self, student, tmp_path):
        for version in ("9", "10"):
            write_card(tmp_path / "z-teacher" / version, "z-teacher", **TEACHER)
        assert demo.find_teacher(student) == tmp_path / "z-teacher" / "10"

    def test_the_ensemble_of_all_that_taught_it_comes_first(self, student, tmp_path):
        write_card(tmp_path / "a-teacher" / "1", "a-teacher", **TEACHER)
        write_card(
            tmp_path / "ensemble" / "1", "ensemble", ensemble_of={"members": [TAUGHT, OTHER]}
        )
        assert demo.find_teacher(student) == tmp_path / "ensemble" / "1"

    def test_a_run_of_the_same_name_but_another_accuracy_is_another(self, student, tmp_path):
        figures = {"values": {"accuracy": 0.5}}
        write_card(tmp_path / "a-teacher" / "1", "a-teacher", **{**TEACHER, "figures": figures})
        assert demo.find_teacher(student) is None
