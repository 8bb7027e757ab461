#!/usr/bin/env bash
# Serves exported models with TensorFlow Serving in Docker until Ctrl-C: REST on port 8501, gRPC on 8500.
#
#   scripts/serve.sh [FOLDER] [--dry-run] [OPTION OF docker run ...]
#
# Every model FOLDER/NAME/VERSION/saved_model.pb is served; without FOLDER, those in saved_models. --dry-run
# prints the configuration and the command. Options such as --detach or --memory 8g go to docker run.
# TF_SERVING_IMAGE, TF_SERVING_REST_PORT and TF_SERVING_GRPC_PORT set another image and other ports.
# TF_SERVING_ADDRESS=0.0.0.0 opens the ports to other machines; the server asks nobody for a password.
set -euo pipefail

fail() {
  echo "serve.sh: $*" >&2
  exit 2
}

scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)" folder="${1:-}" dry_run=""
case "$folder" in "" | -*) folder="$scripts/../saved_models" ;; *) shift ;; esac
if [ "${1:-}" = --dry-run ]; then dry_run=yes && shift; fi
[ -d "$folder" ] || fail "FOLDER must be a folder of exports. Received: $folder. Export a model first."
folder="$(cd "$folder" && pwd)"

# The two newest versions of a model are kept loaded; the newest answers.
config="" name=""
for path in "$folder"/*/; do
  compgen -G "$path*/saved_model.pb" | grep -qE '/[0-9]+/saved_model\.pb$' || continue
  name="$(basename "$path")"
  [[ "$name" =~ ^[A-Za-z0-9._-]+$ ]] ||
    fail "A model's name has letters, digits, dots, dashes and underscores. Received: $name. Rename its folder."
  config+="  config { name: \"$name\" base_path: \"/models/$name\" model_platform: \"tensorflow\""
  config+=" model_version_policy { latest { num_versions: 2 } } }"$'\n'
done
[ -n "$config" ] || fail "No models in $folder. Expected: NAME/1/saved_model.pb. Export one first."
config="model_config_list {"$'\n'"$config}"

# The container runs as the caller, who can read the exports, never as root, and can change nothing.
user="$(id -u):$(id -g)" address="${TF_SERVING_ADDRESS:-127.0.0.1}"
[ "$(id -u)" != 0 ] || user=65534:65534
command=(
  docker run --rm --init --name tfdistill-serving --user "$user" --memory 2g
  --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges
  --publish "$address:${TF_SERVING_REST_PORT:-8501}:8501"
  --publish "$address:${TF_SERVING_GRPC_PORT:-8500}:8500"
  --volume "$folder:/models:ro" --volume "$scripts/serving:/serving:ro" "$@"
  --entrypoint tensorflow_model_server "${TF_SERVING_IMAGE:-tensorflow/serving:2.20.0}"
  --port=8500 --rest_api_port=8501 --model_config_file=/models/.serving/models.config
  --enable_batching=true --batching_parameters_file=/serving/batching.config
  --monitoring_config_file=/serving/monitoring.config
)
if [ -n "$dry_run" ]; then
  printf '%s\n' "$config" && printf '%q ' "${command[@]}" && echo && exit
fi
command -v docker >/dev/null || fail "Docker is not installed. See https://docs.docker.com/engine/install."
mkdir -p "$folder/.serving"
printf '%s\n' "$config" >"$folder/.serving/models.config"
chmod 755 "$folder/.serving" && chmod 644 "$folder/.serving/models.config"
echo "Ask in another terminal: python scripts/query.py $name IMAGE.png"
exec "${command[@]}"
