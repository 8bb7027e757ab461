#!/usr/bin/env bash
# Sets everything up on a fresh machine and runs the quickstart: teachers, ensemble, students, report, exports.
set -euo pipefail
source "$(dirname "$0")/environment.sh"

install_tfdistill litert
.venv/bin/tfdistill run configs/quickstart.yaml "$@"
echo "Open results/quickstart/report.html in a browser. The student is in saved_models/quickstart-student."
echo "Next: .venv/bin/tfdistill predict saved_models/quickstart-student IMAGES, docs/deployment.md"
