"""Runs the guides of docs/guides, each as a reader would: block after block, in one empty folder.

    python scripts/guides.py [--write] [FILE ...]

A `python` block runs in the guide's one Python, an `sh` block in bash, which stops at the first
command that fails. A `text` block right behind it is what it prints: `--write` puts it there.
Without that, a guide fails where a block fails or says something else: most words have to be the
same, and no number, as another processor rounds otherwise, which may change a verdict's words, too.
"""

import contextlib
import difflib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GUIDES = Path(__file__).parents[1] / "docs/guides"
BLOCK = re.compile(r"```(python|sh)\n(.*?)```\n(\n```text\n(.*?)```\n)?", re.DOTALL)
# What only a slow machine shows, and what TensorFlow's libraries say of the machine.
NOISE = re.compile(r"^(\[\d+/\d+\] .*: epoch |WARNING: All log|[IWE]\d{4} ).*\n", re.MULTILINE)


def run(language: str, code: str, names: dict) -> str:
    """Run one block and return what it prints."""
    if language == "sh":
        done = subprocess.run(
            ["bash", "-ec", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            raise SystemExit(f"exit status {done.returncode} of\n{code}\n{done.stdout}")
        output = done.stdout
    else:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, "<guide>", "exec"), names)
        output = printed.getvalue()
    output = NOISE.sub("", output).replace(f"{Path.cwd()}/", "")
    return "".join(f"{line.rstrip()}\n" for line in output.splitlines())


def alike(first: str, second: str) -> bool:
    """Whether most words of two outputs are the same, numbers and line breaks left out."""
    words = [re.findall(r"[^\W\d_]{2,}", text) for text in (first, second)]
    return difflib.SequenceMatcher(None, *words, autojunk=False).ratio() >= 0.6


def play(guide: Path, write: bool) -> list[str]:
    """Run a guide in a folder of its own and return what its page says otherwise."""
    differences, names, home = [], {"__name__": "__main__"}, Path.cwd()

    def block(match: re.Match) -> str:
        language, code, _, expected = match.groups()
        output = run(language, code, names)
        if not write and not alike(output, expected or ""):
            differences.append(
                f"{guide.name}:\n{code}\nis to print\n{expected or ''}\nprints\n{output}"
            )
        shown = f"\n```text\n{output}```\n" if output.strip() else ""
        return f"```{language}\n{code}```\n{shown}"

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            page = BLOCK.sub(block, guide.read_text(encoding="utf-8"))
        finally:
            os.chdir(home)
    if write:
        guide.write_text(page, encoding="utf-8")
    return differences


def main() -> int:
    """Run the guides that are named, or all."""
    write = "--write" in sys.argv
    files = [Path(name).resolve() for name in sys.argv[1:] if name != "--write"]
    # The command of this Python, and of the checkout that PYTHONPATH may name.
    with tempfile.TemporaryDirectory() as commands:
        command = Path(commands, "tfdistill")
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tfdistill "$@"\n')
        command.chmod(0o755)
        os.environ |= {"PATH": f"{commands}:{os.environ['PATH']}", "TF_CPP_MIN_LOG_LEVEL": "3"}
        os.environ |= {"COLUMNS": "100"}
        differences = []
        for guide in files or sorted(GUIDES.glob("*.md")):
            before = sum(os.times()[:4])
            started = time.monotonic()
            differences += play(guide, write)
            print(
                f"{guide.name}: {sum(os.times()[:4]) - before:.0f} s of CPU, "
                f"{time.monotonic() - started:.0f} s"
            )
    print(*differences, sep="\n")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
