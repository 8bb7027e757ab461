"""The long trials of what studies survive: kills, full and damaged disks, hostile files, long runs.

    python benchmarks/faults                       # what there is
    python benchmarks/faults kills --help
    python benchmarks/faults kills --kills 50 --signals 20 --scratch /tmp/kills

Each trial is a file beside this one and prints its figures; docs/reliability.md has what came of
them.
"""

import ast
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent


def trials() -> dict[str, Path]:
    """Return the programs by name: the files beside this one that can be run."""
    files = sorted(HERE.glob("[!_]*.py"))
    return {path.stem: path for path in files if "__main__" in path.read_text()}


def main(arguments: list[str]) -> None:
    """Run a trial with its own options, or list all."""
    known = trials()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        for name, path in known.items():
            told = ast.get_docstring(ast.parse(path.read_text())) or ""
            print(f"{name:10} {told.splitlines()[0]}")
    elif arguments[0] not in known:
        sys.exit(f"trial must be one of: {', '.join(known)}. Received: {arguments[0]!r}.")
    else:
        path = known[arguments[0]]
        sys.argv = [str(path), *arguments[1:]]
        runpy.run_path(str(path), run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
