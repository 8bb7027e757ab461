"""Serves the demo's page to the person who started it, and to nobody else.

Gradio opens any file that a request names and takes uploads from every page and program of this
machine as long as there is disk. So each start has an address with a secret in it, and `Guard`
stands before Gradio: it lets through what that page asks for, from that page, and files that were
uploaded to it.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdistill.data import image_files
from tfdistill.utils import checks

if TYPE_CHECKING:
    import gradio as gr
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = "127.0.0.1"
CSS = """
.gradio-container { width: 100% !important; max-width: 60rem !important; margin: auto; }
.picture img { width: 100%; height: 100%; object-fit: contain; image-rendering: pixelated; }
#problem p { color: #b42318; font-weight: 600; }
.dark #problem p { color: #fda29b; }
#facts table { width: 100%; }
#facts :is(td, th) {
  border: 1px solid var(--border-color-primary); padding: 0.4rem; text-align: left;
  overflow-wrap: anywhere;
}
"""
# What stands around a file in the body of an upload, and the most of any other body.
FORM_BYTES = 2**16
# All files that are kept at a time; the oldest go first.
MAX_TOTAL = 8 * image_files.MAX_BYTES
API = "/gradio_api"
FILE = f"{API}/file="
UPLOAD, ASK = f"{API}/upload", f"{API}/queue/join"
# All that the page asks for; Gradio answers to much more.
GETS = ("/assets/", "/static/", f"{API}/heartbeat/", FILE)
GETS_EXACT = (
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    f"{API}/startup-events",
    f"{API}/queue/data",
    f"{API}/upload_progress",
)
POSTS = (UPLOAD, ASK, f"{API}/cancel", f"{API}/reset")
HEADERS = (
    (b"referrer-policy", b"same-origin"),  # the address is a secret
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# Ends when the demo does, however that ends: it reads what nobody writes.
_REMOVER = "import shutil, sys; sys.stdin.read(); shutil.rmtree(sys.argv[1], ignore_errors=True)"


@contextlib.contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """Take the port before models are opened: whether it is free is known at once.

    Args:
        port: On 127.0.0.1; 0 takes any that is free.

    Raises:
        UsageError: It is no port, or taken.
    """
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
def own_uploads() -> Iterator[Path]:
    """Yield a folder for uploaded images, which goes away however this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="tfdistill-demo-")).resolve()
    # In a session of its own, so that what ends the demo's group does not end it.
    remover = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _REMOVER, str(folder)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    try:
        yield folder
    finally:
        del os.environ["GRADIO_TEMP_DIR"]
        shutil.rmtree(folder, ignore_errors=True)
        remover.communicate()


def serve(blocks: "gr.Blocks", listener: socket.socket, uploads: Path) -> None:
    """Print the page's address and answer requests until a signal comes.

    Args:
        blocks: The page.
        listener: From `listening`.
        uploads: From `own_uploads`.
    """
    import fastapi
    import gradio as gr
    import uvicorn

    app = fastapi.FastAPI(openapi_url=None)
    port = listener.getsockname()[1]
    secret = f"/{secrets.token_urlsafe(16)}"
    fonts: dict[str, Any] = {
        "font": ["system-ui", "sans-serif"],
        "font_mono": ["ui-monospace", "monospace"],
    }
    gr.mount_gradio_app(
        app,
        blocks,
        path=secret,
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
    # Mounted, Gradio takes itself for not yet launched and leaves its own check of paths out.
    blocks.has_launched = True
    guard = Guard(app, secret, [f"http://{name}:{port}" for name in (HOST, "localhost")], uploads)
    print(f"The demo is at http://{HOST}:{port}{secret}/ . Ctrl-C ends it.", flush=True)
    # Open pages keep a connection, which must not hold up the end.
    config = uvicorn.Config(guard, log_level="critical", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run([listener])


class Refusal(Exception):
    """A request that is not answered: the HTTP status and a line that says why."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


class Guard:
    """Passes to `app` only what the page of this start asks for.

    Args:
        app: The ASGI application behind it.
        secret: What all its paths start with, as `/k3f...`.
        origins: The page's own, as `http://127.0.0.1:7860`.
        uploads: Folder of the files that were uploaded; no other file is opened.
        total: Bytes that all of them may take.
    """

    def __init__(
        self,
        app: "ASGIApp",
        secret: str,
        origins: list[str],
        uploads: Path,
        total: int = MAX_TOTAL,
    ):
        self.app = app
        self.secret = secret
        self.origins = origins
        self.uploads = uploads
        self.total = total
        self._arriving = 0

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)

    async def _request(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        from starlette.responses import PlainTextResponse

        async def send_more(message: "Message") -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS]}
            await send(message)

        try:
            path = self._path(scope)
            if scope["method"] != "POST":
                await self.app(scope, receive, send_more)
            elif path == UPLOAD:
                await self._upload(scope, receive, send_more)
            else:
                await self._ask(scope, receive, send_more)
        except Refusal as refusal:
            response = PlainTextResponse(f"{refusal}\n", refusal.status)
            await response(scope, receive, send_more)

    def _path(self, scope: "Scope") -> str:
        """Return what is asked for, without the secret, if this page may ask for it."""
        given = {name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]}
        origin = given.get("origin")
        if f"http://{given.get('host')}" not in self.origins:
            raise Refusal(400, "The demo answers to 127.0.0.1 and localhost only.")
        start, slash, rest = scope["path"][1:].partition("/")
        if not slash or not secrets.compare_digest(f"/{start}".encode(), self.secret.encode()):
            raise Refusal(404, "Open the address that the demo has printed.")
        path = f"/{rest}"
        elsewhere = given.get("sec-fetch-site", "none") not in ("same-origin", "none")
        if elsewhere or origin not in (None, f"http://{given.get('host')}"):
            raise Refusal(403, "The demo answers to its own page only.")
        if scope["method"] == "POST":
            if origin is None:
                raise Refusal(403, "The demo answers to its own page only.")
            known = path in POSTS
        else:
            known = scope["method"] == "GET" and (path in GETS_EXACT or path.startswith(GETS))
            known &= not path.startswith(FILE) or self._is_upload(path.removeprefix(FILE))
        if not known:
            raise Refusal(404, "The demo has nothing there.")
        return path

    def _is_upload(self, path: object) -> bool:
        """Return whether a path is that of a file in the folder of uploads."""
        try:
            place = Path(path).resolve(strict=True) if isinstance(path, str) else None
        except (OSError, ValueError, RuntimeError):
            return False
        return bool(place and place.is_file() and place.is_relative_to(self.uploads))

    async def _upload(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        size = _length(scope, image_files.MAX_BYTES + FORM_BYTES)
        self._arriving += size
        try:
            self._make_room()
            await self.app(scope, receive, send)
        finally:
            self._arriving -= size

    def _make_room(self) -> None:
        """Remove the oldest files for those that are arriving."""
        left = self.total - self._arriving
        if left < 0:
            raise Refusal(503, "Too many images arrive at once.")
        files = [(path.stat(), path) for path in self.uploads.rglob("*") if path.is_file()]
        for facts, path in sorted(files, key=lambda each: each[0].st_mtime_ns, reverse=True):
            left -= facts.st_size
            if left < 0:
                path.unlink(missing_ok=True)

    async def _ask(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass on what was read and checked here, so that nobody reads it otherwise."""
        body = await _body(receive, _length(scope, FORM_BYTES))
        try:
            checked = json.dumps(self._checked(json.loads(body))).encode()
        except (ValueError, RecursionError):
            raise Refusal(400, "The request is no JSON.") from None
        replaced = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
        headers = [*replaced, (b"content-length", str(len(checked)).encode())]
        first = iter([{"type": "http.request", "body": checked, "more_body": False}])

        async def replay() -> "Message":
            message = next(first, None)
            return await receive() if message is None else message

        await self.app({**scope, "headers": headers}, replay, send)

    def _checked(self, value: Any) -> Any:
        """Return a request's value if all paths in it are of uploads; Gradio fetches no address."""
        if isinstance(value, list):
            return [self._checked(part) for part in value]
        if not isinstance(value, dict):
            return value
        if "path" in value and not self._is_upload(value["path"]):
            raise Refusal(403, "The demo opens only what was uploaded to it.")
        return {key: None if key == "url" else self._checked(part) for key, part in value.items()}


def _length(scope: "Scope", most: int) -> int:
    """Return the bytes of a request's body, which the server counts."""
    text = dict(scope["headers"]).get(b"content-length", b"")
    if not (text.isascii() and text.isdigit()):
        raise Refusal(411, "The request does not say how long it is.")
    if len(text) > 18 or int(text) > most:
        raise Refusal(413, f"The request is longer than {most} bytes.")
    return int(text)


async def _body(receive: "Receive", size: int) -> bytes:
    body = b""
    while len(body) <= size:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body
    raise Refusal(413, f"The request is longer than {size} bytes.")
