#!/usr/bin/env bash
# Installs what the tests need and runs lint and tests; arguments go to pytest.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

install_tfdistill dev
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports --no-logo
# Two processes; more would need 2 GB each.
.venv/bin/python -m pytest -n 2 --dist loadfile "$@"
