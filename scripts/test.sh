#!/usr/bin/env bash
# Installs what the tests need and runs lint and tests; arguments go to pytest.
# `scripts/test.sh fast` leaves out the tests that are marked as slow and takes two minutes on two cores; all take fifteen.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

install_tfdistill dev
if [ "${1:-}" = fast ]; then
  set -- -m "not slow" "${@:2}"
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports --no-logo
# Two processes, in the order of tests/conftest.py; more would need 2 GB each.
.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
