# Sourced by the other scripts: makes .venv in the repository and installs tfdistill into it.
# PYTHON names another interpreter than python3 (3.10 to 3.13).

cd "$(dirname "${BASH_SOURCE[0]}")/.."

install_tfdistill() {
  local extras="$1" python="${PYTHON:-python3}"
  if [ ! -x .venv/bin/python ]; then
    "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || {
      echo "tfdistill needs Python 3.10 to 3.13; $python is $("$python" --version 2>&1). Set PYTHON." >&2
      exit 2
    }
    echo "Creating .venv with $("$python" --version)"
    "$python" -m venv .venv
  fi
  echo "Installing tfdistill and its packages into .venv (about a minute at the first time)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint scripts/constraints.txt --editable ".$extras"
}
