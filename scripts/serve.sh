#!/usr/bin/env bash
# Serves exported models with TensorFlow Serving in Docker: REST on port 8501, gRPC on port 8500.
#
#   scripts/serve.sh [FOLDER] [--name NAME ...] [--label NAME:LABEL=VERSION ...] [--dry-run]
#
# FOLDER holds NAME/VERSION/saved_model.pb; without it, saved_models. Without --name every model in
# it is served. The two newest versions of a model are loaded and the newest answers; a version
# exported later is loaded within a second, without a restart. To roll back, move the newest
# version's folder away. Or name versions and let clients ask for a name (scripts/query.py
# --version stable):
#
#   scripts/serve.sh --label student:stable=1 --label student:canary=2
#
# A model with labels serves exactly the versions that have one. Run the script again to add models
# or move labels: a running server takes them over. --dry-run prints what would be done.
# Settings (image, ports, address, memory): scripts/serving/compose.yaml.
set -euo pipefail

scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
compose=(docker compose --file "$scripts/serving/compose.yaml")
rest_port="${TF_SERVING_REST_PORT:-8501}" grpc_port="${TF_SERVING_GRPC_PORT:-8500}"

fail() {
  echo "serve.sh: $*" >&2
  exit 2
}

usage() {
  sed -n '/^#   scripts/s/^# *//p;/^set/q' "${BASH_SOURCE[0]}" | head -n 1
}

read_options() {
  folder="" names=() labels=() dry_run=""
  while [ $# -gt 0 ]; do
    case "$1" in
      --name | --label)
        [ $# -gt 1 ] || fail "$1 needs a value. Expected: $(usage)."
        if [ "$1" = --name ]; then names+=("$2"); else labels+=("$2"); fi
        shift 2 ;;
      --dry-run) dry_run=yes; shift ;;
      -h | --help) usage; exit 0 ;;
      -*) fail "Unknown option. Expected: $(usage). Received: $1." ;;
      *)
        [ -z "$folder" ] || fail "One folder is expected. Received: $folder and $1."
        folder="$1"; shift ;;
    esac
  done
  folder="${folder:-$scripts/../saved_models}"
  [ -d "$folder" ] || fail "FOLDER must be a folder of exports. Received: $folder. Export a model first."
  folder="$(cd "$folder" && pwd)"
}

# The versions of a model that TensorFlow Serving can load, one a line.
versions_of() {
  local path
  for path in "$folder/$1"/*/saved_model.pb; do
    path="$(basename "$(dirname "$path")")"
    case "$path" in *[!0-9]*) ;; *) echo "$path" ;; esac
  done
}

find_models() {
  local path name
  models=()
  if [ ${#names[@]} -gt 0 ]; then
    for name in "${names[@]}"; do
      [ -n "$(versions_of "$name")" ] ||
        fail "No version of the model $name. Expected: $folder/$name/1/saved_model.pb. Export it first."
      models+=("$name")
    done
    return
  fi
  for path in "$folder"/*/; do
    name="$(basename "$path")"
    [ -z "$(versions_of "$name")" ] || models+=("$name")
  done
  [ ${#models[@]} -gt 0 ] ||
    fail "No models in $folder. Expected: NAME/VERSION/saved_model.pb in it. Export a model first."
}

check_names() {
  local name label
  for name in "${models[@]}"; do
    case "$name" in
      *[!A-Za-z0-9._-]*)
        fail "A model's name is made of letters, digits, dots, hyphens and underscores. Received: $name." ;;
    esac
  done
  for label in ${labels[@]+"${labels[@]}"}; do
    [[ "$label" =~ ^([A-Za-z0-9._-]+):([A-Za-z][A-Za-z0-9._-]*)=([0-9]+)$ ]] ||
      fail "A label is given as NAME:LABEL=VERSION. Received: $label."
    [[ " ${models[*]} " == *" ${BASH_REMATCH[1]} "* ]] ||
      fail "A label is for a model that is served (${models[*]}). Received: $label."
    [ -f "$folder/${BASH_REMATCH[1]}/${BASH_REMATCH[3]}/saved_model.pb" ] ||
      fail "A label needs a version that exists. Received: $label. Versions:" \
        "$(versions_of "${BASH_REMATCH[1]}" | tr '\n' ' ')"
  done
}

# The version policy and labels of one model, in the text format of ModelConfig.
version_lines() {
  local label versions="" keys=""
  for label in ${labels[@]+"${labels[@]}"}; do
    [[ "$label" =~ ^"$1":(.*)=([0-9]+)$ ]] || continue
    [[ "$versions " == *" ${BASH_REMATCH[2]} "* ]] || versions+=" versions: ${BASH_REMATCH[2]}"
    keys+="    version_labels { key: \"${BASH_REMATCH[1]}\" value: ${BASH_REMATCH[2]} }"$'\n'
  done
  if [ -n "$versions" ]; then
    printf '    model_version_policy { specific {%s } }\n%s' "$versions" "$keys"
  else
    echo '    model_version_policy { latest { num_versions: 2 } }'
  fi
}

model_config() {
  local name
  echo "model_config_list {"
  for name in "${models[@]}"; do
    printf '  config {\n    name: "%s"\n    base_path: "/models/%s"\n' "$name" "$name"
    printf '    model_platform: "tensorflow"\n%s\n  }\n' "$(version_lines "$name")"
  done
  echo "}"
}

# The folder is mounted whole, so a renamed file reaches a running server.
write_config() {
  local new
  mkdir -p "$folder/.serving" && new="$(mktemp "$folder/.serving/XXXXXX")" ||
    fail "The configuration is written to $folder/.serving. The folder cannot be written to."
  model_config >"$new"
  chmod 755 "$folder/.serving" && chmod 644 "$new"
  mv "$new" "$folder/.serving/models.config"
}

# A port in use is fine if it is this server's own.
check_port() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null || return 0
  [ -n "$("${compose[@]}" ps --quiet 2>/dev/null)" ] ||
    fail "Port $1 is in use. Stop what uses it, or set $2 to another port."
}

check_docker() {
  command -v docker >/dev/null || fail "Docker is not installed. See https://docs.docker.com/engine/install."
  docker info >/dev/null 2>&1 ||
    fail "The Docker daemon does not answer. Start it, or ask for the right to use it (group docker)."
  docker compose version >/dev/null 2>&1 ||
    fail "Docker has no compose command. Install its plugin (package docker-compose-plugin)."
}

# The container runs as the caller, who can read the exports, and never as root.
set_environment() {
  export TF_SERVING_MODELS="$folder" TF_SERVING_USER
  TF_SERVING_USER="$(id -u):$(id -g)"
  [ "$(id -u)" != 0 ] || TF_SERVING_USER=65534:65534
}

start_server() {
  "${compose[@]}" up --detach --wait ||
    fail "TensorFlow Serving did not start. Read: docker compose --project-name tfdistill-serving logs"
  echo "Serving ${models[*]} from $folder"
  echo "REST http://localhost:$rest_port, gRPC localhost:$grpc_port"
  echo "Ask:  python scripts/query.py ${models[0]} IMAGE.png --signature bytes"
  echo "Stop: docker compose --project-name tfdistill-serving down"
}

read_options "$@"
find_models
check_names
set_environment
if [ -n "$dry_run" ]; then
  echo "# $folder/.serving/models.config"
  model_config
  printf '%q ' "TF_SERVING_MODELS=$TF_SERVING_MODELS" "TF_SERVING_USER=$TF_SERVING_USER" \
    "${compose[@]}" up --detach --wait
  echo
  exit
fi
check_port "$rest_port" TF_SERVING_REST_PORT
check_port "$grpc_port" TF_SERVING_GRPC_PORT
check_docker
write_config
start_server
