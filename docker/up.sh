#!/usr/bin/env bash
# Runs one profile (generate, sft or dpo) to its end and exits with the code of the container that failed: compose alone
# turns a dependency's code into 1, and nobody would see a failed respond.
#   docker/up.sh dpo             in the foreground
#   docker/up.sh dpo --detach    survives a dropped connection; prints how to follow it and how to stop it
# CAI_RECIPE, CAI_RUN, CAI_SET choose what runs; BUILD=--no-build uses images as they are; GPU=0 or 1 overrides the look.
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/settings.sh

stages=(doctor fetch prompts initial generate audit sft dpo respond)
profile=${1:?usage: docker/up.sh generate|sft|dpo [--detach]}

say() { echo "cai: $*" >&2; }

state() { docker inspect -f "{{$1}}" "$2" 2>/dev/null || true; }

container_of() { docker compose --profile "$profile" ps -aq "$1" 2>/dev/null | head -1; }

# The first stage that failed since this run began; containers of earlier runs keep their old codes.
failed_code() {
  local stage id
  for stage in "${stages[@]}"; do
    id=$(container_of "$stage")
    [ -n "$id" ] && [[ $(state .State.FinishedAt "$id") > $begun ]] || continue
    [ "$(state .State.ExitCode "$id")" = 0 ] || { echo "$stage $(state .State.ExitCode "$id")"; return; }
  done
}

explain() {
  local stage=$1 id error
  id=$(container_of "${stage:-doctor}")
  error=$(state .State.Error "$id")
  case $error in
    *"device driver"* | *nvidia* | *CDI*)
      say "the engine could not give a GPU to the container. Driver: nvidia-smi. Toolkit: apt-get install nvidia-container-toolkit &&" \
        "nvidia-ctk runtime configure --runtime=docker && systemctl restart docker. Without a GPU: GPU=0 make $profile"
      code=78
      return ;;
  esac
  case $code in
    75) say "$stage stopped and can be resumed: run the same command again" ;;
    137) say "$stage was killed (137): out of memory, or stopped without grace. Run the same command again to resume" ;;
    *) [ -z "$stage" ] || say "$stage ended with $code. Its log: docker compose logs $stage" ;;
  esac
}

detach() {
  local log
  mkdir -p logs
  log=logs/$profile-$(date +%Y%m%d-%H%M%S).log
  setsid nohup docker/up.sh "$profile" >"$log" 2>&1 </dev/null &
  say "started; it goes on when this connection drops"
  say "follow:  tail -f $log"
  say "stop:    docker compose --profile $profile stop    (the trainer saves; run it again to go on)"
  say "results: make results, then stop the meter: shut the server down at its provider (docs/rent-a-box.md)"
}

running=$(docker compose --profile dpo ps -q --status running)
if [ -n "$running" ]; then
  say "a run is already going in project ${COMPOSE_PROJECT_NAME:-cai}. Follow it: docker compose --profile dpo logs -f." \
    "Stop it: docker compose --profile dpo stop"
  exit 75
fi
if [ "${2:-}" = --detach ]; then
  detach
  exit
fi

begun=$(date -u +%Y-%m-%dT%H:%M:%S)
code=0
docker compose --profile "$profile" up "${BUILD:---build}" --abort-on-container-failure --exit-code-from "$profile" || code=$?
[ "$code" = 130 ] && exit 130
read -r stage failed < <(failed_code) || true
[ -z "${failed:-}" ] || code=$failed
[ "$code" = 0 ] || explain "${stage:-}"
exit "$code"
