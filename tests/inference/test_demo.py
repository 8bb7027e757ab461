"""The demo's page as a user meets it: a real process, a real browser, tiny exported networks."""

import importlib.util
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import keras
import numpy as np
import pytest
from starlette import responses, testclient

from tests import forked
from tfdistill.data import image_files
from tfdistill.export import litert, model_card, saved_model
from tfdistill.inference import demo, demo_server
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
    tries = np.random.default_rng(3).integers(0, 256, (2, *SHAPE), dtype=np.uint8)
    numeric = tmp_path_factory.mktemp("numeric")
    saved_model.write(networks["Teacher"], teacher, SHAPE, CLASSES)
    saved_model.write_numeric(networks["Student"], numeric, SHAPE)
    saved_model.write_warmup(student, "tiny-student", tries)
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
    """Address of the demo, and the file of its connections; a page is still open when it ends."""
    connections = tmp_path_factory.mktemp("log") / "connections"
    program = connections.with_name("watched.py")
    program.write_text(WATCHED)
    process = forked.program(program, connections, exports[0])
    line = process.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{22}", line)
    if not address:
        process.kill()
        pytest.fail(line + process.communicate()[1])
    assert "Ctrl-C" in line
    yield address[0], connections
    browser.new_page().goto(f"{address[0]}/")
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate()
    assert (process.returncode, printed, errors) == (130, "", "")


@pytest.fixture
def page(server, browser):
    """The page on a telephone; whatever it asks for must come from the demo."""
    asked = []
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{server[0]}/")
    expect(page.get_by_role("heading", name="Teacher and student")).to_be_visible()
    yield page
    own = (f"{server[0]}/", f"blob:{origin(server)}/", "data:")
    assert asked and [url for url in asked if not url.startswith(own)] == []
    page.close()  # else it goes on drawing until the last test


def origin(server):
    return server[0].rpartition("/")[0]


def ask(server, path, data=None, **headers):
    """Return status and body of a request as a program makes it that knows the address."""
    # A name as `Sec-Fetch-Site` is no word of Python.
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{server[0]}{path}", data, named)
    try:
        with urllib.request.urlopen(request) as answered:
            return answered.status, answered.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def classify(server, path, **headers):
    """Return the status of a request that names an image's file."""
    image = {"path": str(path), "meta": {"_type": "gradio.FileData"}, "url": "http://127.0.0.1:9/"}
    body = {"data": [image], "fn_index": 0, "session_hash": "any"}
    own = {"Content-Type": "application/json", "Origin": origin(server), **headers}
    return ask(server, "/gradio_api/queue/join", json.dumps(body).encode(), **own)[0]


def upload(server, data, **headers):
    """Return status and body of an upload of one file."""
    before = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x", "Origin": origin(server)}
    return ask(server, "/gradio_api/upload", before + data + b"\r\n--x--\r\n", **kind | headers)


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
        # A telephone shows the whole width.
        assert page.evaluate("document.scrollingElement.scrollWidth") == 390

    def test_the_picture_as_each_network_sees_it(self, page, pixels):
        # Of 16 x 8 pixels networks see the middle 8 x 8.
        edge = np.zeros((4, 8, 3), np.uint8)
        give(page, "tall.png", as_png(np.concatenate([edge, pixels, edge])))
        for role in ("teacher", "student"):
            label = page.get_by_test_id("block-label").filter(has_text=f"As the {role} sees it")
            shown = page.locator(".block").filter(has=label).locator("img")
            expect(shown).to_be_visible()
            response = page.request.get(shown.get_attribute("src"))
            assert np.array_equal(np.array(Image.open(io.BytesIO(response.body()))), pixels)
        header = page.get_by_role("rowheader", name="Sees images of")
        cells = page.get_by_role("row").filter(has=header).get_by_role("cell")
        expect(cells).to_have_text(["8 × 8 pixels, colour"] * 2)

    def test_the_first_tab_leads_to_an_image_and_a_click_classifies_a_test_image(
        self, page, networks
    ):
        button = page.get_by_role("button", name=re.compile("upload"))
        expect(button).to_be_visible()
        page.keyboard.press("Tab")
        expect(button).to_be_focused()
        page.get_by_role("button").filter(has=page.locator("img")).nth(1).click()
        second = np.random.default_rng(3).integers(0, 256, (2, *SHAPE), dtype=np.uint8)[1]
        expect_answers(page, second, networks)

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

    def test_too_large_an_upload_is_refused(self, page, tmp_path):
        path = tmp_path / "large.png"
        with open(path, "wb") as file:
            file.truncate(image_files.MAX_BYTES + 1)
        page.locator("input[type=file]").set_input_files(path)
        expect(page.get_by_text("exceed the maximum allowed size of 64")).to_be_visible()


@pytest.mark.slow
class TestStrangers:
    """Requests of programs and pages that are not the demo's own."""

    def test_only_uploaded_files_are_opened(self, server, tmp_path, pixels):
        secret = tmp_path / "secret.png"
        secret.write_bytes(as_png(pixels))
        status, body = upload(server, as_png(pixels))
        [uploaded] = json.loads(body)
        assert (status, classify(server, uploaded)) == (200, 200)
        beside = Path(uploaded).parents[1] / ".." / secret.relative_to("/")
        for path in (secret, "/dev/zero", "http://127.0.0.1:9/a.png", beside, tmp_path, "a.svg"):
            assert classify(server, path) == 403, path

    def test_only_uploaded_files_are_shown(self, server, tmp_path):
        (tmp_path / "secret.txt").write_text("secret")
        for path in (f"{tmp_path}/secret.txt", "/dev/zero", "http://127.0.0.1:9/a.png"):
            assert ask(server, f"/gradio_api/file={path}")[0] == 404, path

    def test_without_the_address_nothing_is_answered(self, server, pixels):
        for start in ("", "/", "/gradio_api", "/AAAAAAAAAAAAAAAAAAAAAA"):
            there = (f"{origin(server)}{start}",)
            assert upload(there, as_png(pixels), Origin=origin(server))[0] == 404
            assert ask(there, "/config")[0] == 404

    def test_other_pages_are_refused(self, server, pixels):
        for elsewhere in ("http://elsewhere.example", "null", "http://127.0.0.1:9"):
            assert upload(server, as_png(pixels), Origin=elsewhere)[0] == 403
            assert classify(server, "/etc/hostname", Origin=elsewhere) == 403
            assert ask(server, "/config", Origin=elsewhere)[0] == 403
        assert ask(server, "/config", Sec_Fetch_Site="cross-site")[0] == 403

    def test_what_else_gradio_answers_to_is_closed(self, server):
        body = json.dumps({"data": [None], "fn_index": 0}).encode()
        own = {"Content-Type": "application/json", "Origin": origin(server)}
        for path in ("run/predict", "call/predict", "component_server", "process_recording"):
            assert ask(server, f"/gradio_api/{path}", body, **own)[0] == 404
        for path in ("gradio_api/info", "monitoring", "gradio_api/proxy=http://127.0.0.1:9/"):
            assert ask(server, f"/{path}")[0] == 404

    def test_too_long_a_request_is_refused_before_it_is_read(self, server):
        for path, size in (("upload", image_files.MAX_BYTES + 2**20), ("queue/join", 2**20)):
            address = urllib.parse.urlsplit(f"{server[0]}/gradio_api/{path}")
            with socket.create_connection((address.hostname, address.port)) as other:
                head = f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\n"
                head += f"Origin: {origin(server)}\r\nContent-Length: {size}\r\n\r\n"
                other.sendall(head.encode())
                assert other.recv(100).startswith(b"HTTP/1.1 413 ")

    @pytest.mark.parametrize("body", ["[" * 30_000, "no JSON", '{"data": [1'])
    def test_a_damaged_request(self, server, body):
        own = {"Content-Type": "application/json", "Origin": origin(server)}
        assert ask(server, "/gradio_api/queue/join", body.encode(), **own)[0] == 400

    def test_the_oldest_uploads_make_room(self, tmp_path):
        async def store(scope, receive, send):
            body = (await receive())["body"]
            (tmp_path / body[:1].decode()).write_bytes(body)
            await responses.PlainTextResponse("kept")(scope, receive, send)

        guard = demo_server.Guard(store, "/secret", ["http://127.0.0.1:1"], tmp_path, total=100)
        client = testclient.TestClient(guard, base_url="http://127.0.0.1:1")
        for name in "abcd":
            own = {"Origin": "http://127.0.0.1:1"}
            answered = client.post("/secret/gradio_api/upload", content=name * 40, headers=own)
            assert answered.status_code == 200
        assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "d"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_the_folder_of_uploads_goes_at_any_end(number, tmp_path):
    """A process that holds the folder is killed while it waits."""
    program = (
        "import signal\n"
        f"if {int(number)} != signal.SIGKILL:\n"
        f" signal.signal({int(number)}, signal.SIG_DFL)\n"  # of nohup, it inherits one ignored
        "from tfdistill.inference import demo_server\n"
        "with demo_server.own_uploads() as place:\n"
        " print(place, flush=True)\n"
        " input()"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        folder = Path(process.stdout.readline().strip())
        (folder / "image.png").write_bytes(b"any")
        process.send_signal(number)
        # The one that removes it has the pipe, too: it ends when that is done.
        process.stdout.read()
    assert process.returncode == -number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
class TestServer:
    def test_it_connects_to_nothing_else(self, server):
        hosts = set(server[1].read_text().split())
        assert "localhost" in hosts and hosts <= {"localhost", "127.0.0.1"}

    def test_it_answers_to_no_other_name(self, server):
        assert ask(server, "/", Host="elsewhere.example")[0] == 400

    def test_other_machines_cannot_reach_it(self, server):
        port = int(origin(server).rpartition(":")[2])
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
