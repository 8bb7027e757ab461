# Sourced by the other scripts: makes .venv in the repository and installs tfdistill into it.
# PYTHON names another interpreter than python3 (3.11 to 3.13).

cd "$(dirname "${BASH_SOURCE[0]}")/.."

install_tfdistill() {
  local extra="$1" python="${PYTHON:-python3}" lock="scripts/locks/$1.txt"
  if [ ! -x .venv/bin/python ]; then
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
      echo "tfdistill needs Python 3.11 to 3.13; $python is $("$python" --version 2>&1). Set PYTHON." >&2
      exit 2
    }
    echo "Creating .venv with $("$python" --version)"
    "$python" -m venv .venv
  fi
  echo "Installing tfdistill and its packages into .venv (about a minute at the first time)"
  # Python compiles what is imported; all that is installed would take 40 seconds.
  local pip=(.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile)
  if .venv/bin/python -c 'import sys; sys.exit(sys.platform != "linux" or sys.version_info[:2] != (3, 11))'; then
    "${pip[@]}" --require-hashes --requirement "$lock"
    # The locked setuptools builds it, so that nothing without a hash is fetched.
    "${pip[@]}" --no-deps --no-build-isolation --editable .
  else
    echo "Hashes of packages are checked with Python 3.11 on Linux only; here only their versions are set."
    "${pip[@]}" --constraint scripts/constraints.txt --editable ".[$extra]"
  fi
}
