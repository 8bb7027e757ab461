#!/usr/bin/env bash
# Tries losses, Distiller, Ensemble, metrics, save and load on PyTorch, which the other tests leave out for its
# size (3 GB, a fifth without CUDA). It goes into .venv-torch, over the packages of .venv. Arguments go to pip:
#   bash scripts/torch_backend.sh torch --index-url https://download.pytorch.org/whl/cpu
set -euo pipefail
source "$(dirname "$0")/environment.sh"

install_tfdistill dev
[ -x .venv-torch/bin/python ] || .venv/bin/python -m venv .venv-torch
packages='import site; print(site.getsitepackages()[0])'
.venv/bin/python -c "$packages" > "$(.venv-torch/bin/python -c "$packages")/venv.pth"
[ $# -gt 0 ] || set -- torch
.venv-torch/bin/python -m pip install --quiet --disable-pip-version-check "$@"
.venv-torch/bin/python -m pytest tests/test_other_backends.py -k torch
