#!/usr/bin/env bash
# Builds the documentation into site/, and runs its guides; a broken link, a name that is not there, or a guide that prints
# other words than its page fails. `scripts/site.sh pages` leaves the guides out.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

tools=.venv-site
[ -x "$tools/bin/zensical" ] || "${PYTHON:-python3}" -m venv "$tools"
pip=("$tools/bin/python" -m pip install --quiet --disable-pip-version-check)
if "$tools/bin/python" -c 'import sys; sys.exit(sys.platform != "linux" or sys.version_info[:2] != (3, 11))'; then
  "${pip[@]}" --require-hashes --requirement scripts/locks/site.txt
else
  "${pip[@]}" zensical==0.0.73 mkdocstrings==1.0.8 mkdocstrings-python==2.0.11 ruff
fi
"$tools/bin/zensical" build --strict --clean
if [ "${1:-}" != pages ]; then
  [ -x .venv/bin/tfdistill ] || install_tfdistill litert
  PYTHONPATH="$PWD" .venv/bin/python scripts/guides.py # the checkout, also while tests install it beside
fi
echo "Open site/index.html in a browser."
