"""Ask the demo for what it must not give: files, uploads without end, answers to other pages.

Starts `tfdistill demo` on an export and sends it requests as another page or program of this
machine could, without the secret of its address and with it. Prints how each was answered, and at
the end what the demo left behind; exit status 1 if anything was given.

    python benchmarks/faults demo saved_models/quickstart-student
"""

import argparse
import glob
import json
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

PRINTED = re.compile(r"(http://127\.0\.0\.1:\d+)(/\S+)/ ")
FOLDERS = f"{tempfile.gettempdir()}/tfdistill-demo-*"


def answer(url: str, data: bytes | None = None, **headers: str) -> str:
    """Return the status of a request and the start of what came, or that nothing came."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        request = urllib.request.Request(url, data, named)
        with urllib.request.urlopen(request, timeout=20) as answered:
            return f"{answered.status} {answered.read(40)!r}"
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read(40)!r}"
    except OSError as error:
        return f"nothing ({error})"


def asked(path: str) -> bytes:
    """Return a request to classify the file at a path."""
    image = {"path": path, "meta": {"_type": "gradio.FileData"}}
    return json.dumps({"data": [image], "fn_index": 0, "session_hash": "any"}).encode()


def form(megabytes: int) -> bytes:
    """Return an upload of one file."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    return head + bytes(megabytes * 10**6) + b"\r\n--x--\r\n"


def attacks(origin: str, secret: str, stolen: Path) -> dict[str, str]:
    """Return the answers to all requests, by what was tried."""
    own = {"Origin": origin}
    json_kind = {"Content-Type": "application/json"}
    form_kind = {"Content-Type": "multipart/form-data; boundary=x"}
    other = {"Origin": "http://elsewhere.example"}
    found = {}
    for start, name in (("", "without the secret"), (secret, "with the secret")):
        api = f"{origin}{start}/gradio_api"
        for path in (str(stolen), "/etc/passwd", "/dev/zero", "http://127.0.0.1:9/", "/proc/self"):
            for way in ("queue/join", "run/predict", "call/predict"):
                found[f"{name}: {way} {path}"] = answer(
                    f"{api}/{way}", asked(path), **json_kind, **own
                )
            found[f"{name}: file={path}"] = answer(f"{api}/file={path}", **own)
        found[f"{name}: upload from elsewhere"] = answer(
            f"{api}/upload", form(1), **form_kind, **other
        )
        found[f"{name}: upload of 100 MB"] = answer(f"{api}/upload", form(100), **form_kind, **own)
        found[f"{name}: upload of nobody"] = answer(f"{api}/upload", form(1), **form_kind)
        found[f"{name}: under another name"] = answer(
            f"{origin}{start}/config", Host="elsewhere.example"
        )
    return found


def main() -> int:
    """Start the demo, ask it, end it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", help="saved_models/NAME")
    export = parser.parse_args().export
    command = [sys.executable, "-m", "tfdistill", "demo", export, "--port", "0"]
    with (
        tempfile.NamedTemporaryFile(prefix="secret-") as stolen,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    ):
        printed = PRINTED.search(process.stdout.readline())
        if not printed:
            return 1
        found = attacks(*printed.groups(), Path(stolen.name))
        alive = answer(f"{printed[1]}{printed[2]}/config")
        process.terminate()
    # One that is refused before it is read may end in a closed connection.
    refused = re.compile(r"4\d\d |nothing .*(Broken pipe|reset)")
    given = {name for name, text in found.items() if not refused.match(text)}
    for name, text in found.items():
        print(f"{'GIVEN ' if name in given else ''}{name}: {text}")
    left = glob.glob(FOLDERS)
    print(f"{len(found)} requests, {len(given)} given; then {alive[:3]}; left behind: {left}")
    return 1 if given or left or not alive.startswith("200") else 0


if __name__ == "__main__":
    sys.exit(main())
