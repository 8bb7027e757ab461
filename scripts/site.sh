#!/usr/bin/env bash
# Builds the documentation into site/; a broken link or a name that is not there fails.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=.venv-site
[ -x "$tools/bin/zensical" ] || "${PYTHON:-python3}" -m venv "$tools"
pip=("$tools/bin/python" -m pip install --quiet --disable-pip-version-check)
if "$tools/bin/python" -c 'import sys; sys.exit(sys.platform != "linux" or sys.version_info[:2] != (3, 11))'; then
  "${pip[@]}" --require-hashes --requirement scripts/locks/site.txt
else
  "${pip[@]}" zensical==0.0.73 mkdocstrings==1.0.8 mkdocstrings-python==2.0.11 ruff
fi
"$tools/bin/zensical" build --strict --clean
echo "Open site/index.html in a browser."
