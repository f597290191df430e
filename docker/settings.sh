# shellcheck shell=bash
# Sourced by the scripts beside it: chooses the compose files (the CPU override where there is no NVIDIA GPU) and names
# the commit for the manifests.
has_gpu() {
  case ${GPU:-} in
    0) return 1 ;;
    1) return 0 ;;
  esac
  [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidiactl ] || [ -e /dev/dxg ] || nvidia-smi -L >/dev/null 2>&1
}

from_env_file() { [ ! -r .env ] || sed -n "s/^ *\(export \)\? *$1=[\"']\?\([^\"']*\)[\"']\? *\$/\2/p" .env | tail -1; }

COMPOSE_FILE=${COMPOSE_FILE:-$(from_env_file COMPOSE_FILE)}
COMPOSE_FILE=${COMPOSE_FILE:-compose.yaml}
if ! has_gpu && [[ :$COMPOSE_FILE: != *:compose.cpu.yaml:* ]]; then
  echo "cai: no NVIDIA GPU on this machine: adding compose.cpu.yaml, the trainers use the CPU" >&2
  COMPOSE_FILE=$COMPOSE_FILE:compose.cpu.yaml
fi
export COMPOSE_FILE

if [ -z "${CAI_GIT_COMMIT:-}" ] && CAI_GIT_COMMIT=$(git rev-parse HEAD 2>/dev/null); then
  [ -z "$(git status --porcelain 2>/dev/null)" ] || CAI_GIT_COMMIT+=+changes
  export CAI_GIT_COMMIT
fi
