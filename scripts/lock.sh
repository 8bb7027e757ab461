#!/usr/bin/env bash
# Writes scripts/locks/EXTRA.txt again: the packages of setup.cfg in the versions of constraints.txt, with the
# SHA-256 of every file that the package index has of them. Needs Python 3.11 on Linux (PYTHON names it) and
# ten minutes for each extra. Afterwards: bash scripts/test.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

tools="$(mktemp -d)"
trap 'rm -rf "$tools"' EXIT
"${PYTHON:-python3}" -m venv "$tools"
"$tools/bin/python" -m pip install --quiet --disable-pip-version-check pip-tools==7.6.2
[ $# -gt 0 ] || set -- litert dev
for extra; do
  CUSTOM_COMPILE_COMMAND="bash scripts/lock.sh $extra" "$tools/bin/python" -m piptools compile \
    --quiet --generate-hashes --allow-unsafe --strip-extras --no-annotate \
    --no-emit-find-links --no-emit-index-url --no-emit-trusted-host \
    --extra "$extra" --constraint scripts/constraints.txt \
    --output-file "scripts/locks/$extra.txt" setup.cfg
done
