#!/usr/bin/env bash
# A Docker engine with compose and buildx on a Debian machine that has none, and a base image where no image registry
# can be reached. Does nothing where an engine with a new enough compose already answers. Needs root only to start one.
#   eval "$(docker/engine.sh up)"   exports DOCKER_HOST, DOCKER_CONFIG and PATH as far as they differ
#   docker/engine.sh stop           ends an engine that `up` started
#   docker/engine.sh prune          cuts the engine's build cache to 20 GB and says when disk is short all the same
set -euo pipefail

root=${CAI_ENGINE_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/cai-engine}
suites=${CAI_ENGINE_SUITE:-forky sid}  # trixie's compose 2.26 lacks --abort-on-container-failure
base=${CAI_BASE:-debian:trixie-slim}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
need_free_gb=45
keep_cache=20GB

say() { echo "engine: $*" >&2; }
fail() { say "$*"; exit 69; }

mirror() {
  awk '$1 == "URIs:" { print $2; exit } $1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^http/) { print $i; exit } }' \
    /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | grep . ||
    fail "found no Debian mirror in /etc/apt; install docker, compose >= 2.27 and buildx yourself"
}

engine_answers() { docker version >/dev/null 2>&1; }

plugins_answer() {
  docker buildx version >/dev/null 2>&1 &&
    docker compose up --help 2>/dev/null | grep -q -- --abort-on-container-failure
}

use_own() { export DOCKER_CONFIG=$root/config PATH=$root/bin:$PATH; }

own_is_complete() { [ -x "$root/bin/dockerd" ] && [ -x "$root/config/cli-plugins/docker-buildx" ]; }

install_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q ' installed$' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing ${missing[*]}"
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The engine's packages are unpacked beside the system, never installed: the host's apt keeps its own lists and choices.
# runc stays the host's, since a newer Debian's asks for a newer libc.
download_from() {
  local suite=$1 work=$2 from
  from=$(mirror)
  mkdir -p "$work"/{lists/partial,cache/archives/partial,debs,x}
  echo "deb [signed-by=$keyring] $from $suite main" >"$work/sources.list"
  local apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
  "${apt[@]}" update >&2 || return 1
  local packages=(docker.io docker-cli containerd docker-compose docker-buildx)
  (cd "$work/debs" && "${apt[@]}" download "${packages[@]/%//$suite}" >&2)
}

unpack_engine() {
  install_packages iptables runc tini mmdebstrap
  local suite work
  work=$(mktemp -d)
  for suite in $suites; do
    say "fetching the engine from Debian $suite"
    rm -rf "${work:?}"/*
    download_from "$suite" "$work" && break
    say "Debian $suite did not give it"
  done
  compgen -G "$work/debs/docker-compose_*.deb" >/dev/null || fail "no Debian suite of '$suites' gave the engine"
  local deb
  for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/x"; done
  mkdir -p "$root"/{bin,config/cli-plugins}
  install -m755 "$work"/x/usr/libexec/docker/cli-plugins/docker-{compose,buildx} "$root/config/cli-plugins/"
  install -m755 "$work"/x/usr/bin/{docker,containerd,containerd-shim-runc-v2} "$work"/x/usr/sbin/{docker-proxy,dockerd} "$root/bin/"
  ln -sf "$(command -v runc)" "$root/bin/runc"
  ln -sf "$(command -v tini-static || command -v tini)" "$root/bin/docker-init"
  rm -rf "$work"
}

start_engine() {
  mkdir -p "$root"/{data,exec}
  # No engine answers, so these are left from one that was killed; their numbers may belong to other processes by now.
  rm -f "$root/pid" "$root/exec/containerd/containerd.pid"
  [ -d /sys/fs/cgroup ] && [ -n "$(ls -A /sys/fs/cgroup)" ] || mount -t cgroup2 none /sys/fs/cgroup
  setsid nohup dockerd -H "unix://$root/docker.sock" --data-root "$root/data" --exec-root "$root/exec" --pidfile "$root/pid" \
    >"$root/dockerd.log" 2>&1 </dev/null &
  for _ in $(seq 120); do
    engine_answers && return
    sleep 0.5
  done
  tail -20 "$root/dockerd.log" >&2
  fail "the engine gave no answer in 60 s; its log is $root/dockerd.log"
}

# Bit-identical for one state of the mirror: times are pinned, manuals and translations left out.
bootstrap_base() {
  docker image inspect "$base" >/dev/null 2>&1 && return
  timeout 20 docker pull -q "$base" >/dev/null 2>&1 && return
  install_packages mmdebstrap
  local suite=${base#debian:} from
  suite=${suite%-slim}
  from=$(mirror)
  say "no registry gives $base: bootstrapping it from the Debian mirror"
  SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1735689600} mmdebstrap --quiet --variant=minbase --keyring="$keyring" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' "$suite" - "$from" |
    docker import --change 'CMD ["bash"]' - "$base" >&2
}

up() {
  local host=${DOCKER_HOST:-} config=${DOCKER_CONFIG:-}
  if ! engine_answers && own_is_complete; then
    use_own
    export DOCKER_HOST=unix://$root/docker.sock
  fi
  if ! engine_answers; then
    [ "$(id -u)" = 0 ] || fail "no engine answers and only root can start one; see docs/rent-a-box.md"
    own_is_complete || unpack_engine
    use_own
    export DOCKER_HOST=unix://$root/docker.sock
    engine_answers || start_engine
  elif ! plugins_answer; then
    own_is_complete || unpack_engine
    use_own
  fi
  plugins_answer || fail "compose >= 2.27 and buildx are needed beside $(docker --version)"
  bootstrap_base
  [ "${DOCKER_HOST:-}" = "$host" ] || printf 'export DOCKER_HOST=%q\n' "$DOCKER_HOST"
  [ "${DOCKER_CONFIG:-}" = "$config" ] || printf 'export DOCKER_CONFIG=%q PATH=%q:"$PATH"\n' "$DOCKER_CONFIG" "$root/bin"
}

stop() {
  [ -s "$root/pid" ] || return 0
  local pid
  pid=$(cat "$root/pid")
  kill "$pid" 2>/dev/null || return 0
  while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
}

prune() {
  local where free_gb
  where=$(docker info --format '{{.DockerRootDir}}')
  docker image prune -f >/dev/null
  docker buildx prune -f --max-used-space "$keep_cache" >/dev/null
  free_gb=$(df --output=avail -BG "$where" 2>/dev/null | tail -1 | tr -dc '0-9')
  if [ "${free_gb:-0}" -lt "$need_free_gb" ]; then
    say "only ${free_gb:-?} GB of disk are free under $where; both images and their cache want $need_free_gb"
  fi
}

case ${1:-} in
  up | stop | prune) "$1" ;;
  *) sed -n '2,6s/^# \?//p' "$0"; exit 2 ;;
esac
