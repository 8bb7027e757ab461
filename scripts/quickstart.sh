#!/usr/bin/env bash
# Sets everything up on a fresh machine and runs the quickstart: teachers, ensemble, students, report.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

install_tfdistill ""
.venv/bin/tfdistill run configs/quickstart.yaml "$@"
echo "Open results/quickstart/report.html in a browser. Next: .venv/bin/tfdistill --help"
