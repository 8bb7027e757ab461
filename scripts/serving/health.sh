#!/usr/bin/env bash
# health.sh CONFIG PORT: exit status 0 if every model of the configuration has a version that answers.
# The image of TensorFlow Serving has no curl, so bash itself speaks HTTP.
set -euo pipefail

sed -n 's/^ *name: "\(.*\)"$/\1/p' "$1" | while read -r name; do
  exec 3<>"/dev/tcp/127.0.0.1/$2"
  printf 'GET /v1/models/%s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$name" >&3
  grep -q '"state": "AVAILABLE"' <&3
  exec 3>&-
done
