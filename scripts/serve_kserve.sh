#!/usr/bin/env bash
# Serves one exported model with KServe's model server, without Docker or Kubernetes: REST, as
# TensorFlow Serving speaks it, on port 8080.
#
#   scripts/serve_kserve.sh MODEL_FOLDER [NAME]
#
# MODEL_FOLDER is saved_models/NAME, of which the newest version is served, or one version of it. The
# first start installs KServe and TensorFlow (a gigabyte) into .venv-kserve, apart from
# tfdistill, because they need other versions of shared packages. KServe opens the port on every
# address of the machine and asks nobody for a password. KSERVE_PORT sets another port, and PYTHON
# another interpreter than python3.
set -euo pipefail

fail() {
  echo "serve_kserve.sh: $*" >&2
  exit 2
}

[ $# -ge 1 ] && [ $# -le 2 ] || fail "Expected: scripts/serve_kserve.sh MODEL_FOLDER [NAME]. Received $# values."
[ -d "$1" ] || fail "MODEL_FOLDER must be the folder of an export. Received: $1. Export a model first."
folder="$(cd "$1" && pwd)"
compgen -G "$folder/saved_model.pb" >/dev/null || compgen -G "$folder/*/saved_model.pb" >/dev/null ||
  fail "MODEL_FOLDER must hold VERSION/saved_model.pb. Received: $1. Export a model first."
model="$folder"
[ ! -f "$folder/saved_model.pb" ] || model="$(dirname "$folder")"
name="${2:-$(basename "$model")}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ ! -x .venv-kserve/bin/python ]; then
  echo "Creating .venv-kserve"
  "${PYTHON:-python3}" -m venv .venv-kserve
fi
export TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"
.venv-kserve/bin/python -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ("kserve", "tensorflow"))))' || {
  echo "Installing KServe and TensorFlow into .venv-kserve (some minutes at the first time)"
  .venv-kserve/bin/python -m pip install --quiet --disable-pip-version-check \
    "kserve>=0.21,<0.22" "tensorflow>=2.21,<2.22"
}
echo "Ask: python scripts/query.py $name IMAGE.png --signature bytes --url http://localhost:${KSERVE_PORT:-8080}"
exec .venv-kserve/bin/python scripts/serving/kserve_server.py "$folder" "$name" --port "${KSERVE_PORT:-8080}"
