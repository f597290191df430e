#!/usr/bin/env bash
# Installs a key so that only the containers' user can read it, and names it in .env. The key is read from a file, from
# standard input or from the terminal without being shown; it never becomes an argument or an environment value.
#   docker/key.sh [openai_api_key|initial_api_key|hf_token|hf_write_token|wandb_api_key] [FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/settings.sh 2>/dev/null

name=${1:-openai_api_key}
source=${2:-}
case $name in
  openai_api_key) variable=CAI_OPENAI_KEY_FILE ;;
  initial_api_key) variable=CAI_INITIAL_KEY_FILE ;;
  hf_token) variable=CAI_HF_TOKEN_FILE ;;
  hf_write_token) variable=CAI_HF_WRITE_TOKEN_FILE ;;
  wandb_api_key) variable=CAI_WANDB_KEY_FILE ;;
  *) echo "cai: unknown key name '$name'; there are openai_api_key, initial_api_key, hf_token, hf_write_token and wandb_api_key" >&2; exit 2 ;;
esac
uid=${CAI_UID:-$(from_env_file CAI_UID)}
gid=${CAI_GID:-$(from_env_file CAI_GID)}
owner=${uid:-10001}:${gid:-10001}
write='umask 077; set -e; tr -d "[:space:]" >".$2.new"; test -s ".$2.new" || { rm ".$2.new"; exit 66; }
chmod 400 ".$2.new"; chown "$1" ".$2.new"; mv -f ".$2.new" "$2"'

read_key() {
  if [ -n "$source" ]; then
    cat -- "$source"
  elif [ -t 0 ]; then
    local key
    read -rsp "Paste the key for $name (not shown): " key && echo >&2
    printf %s "$key"
  else
    cat
  fi
}

# Only root may give a file to another user; others let the engine do it.
write_key() {
  if [ "$(id -u)" = 0 ]; then
    (cd .secrets && sh -c "$write" sh "$owner" "$name")
  else
    docker image inspect cai-cpu >/dev/null 2>&1 || { echo "cai: first run: make build" >&2; exit 69; }
    docker run --rm -i --network none --user 0:0 --cap-drop ALL --cap-add CHOWN --cap-add DAC_OVERRIDE --read-only \
      -v "$PWD/.secrets:/secrets" -w /secrets --entrypoint sh cai-cpu -c "$write" sh "$owner" "$name"
  fi
}

install -d -m 700 .secrets
read_key | write_key || { echo "cai: no key installed: nothing to read, or it could not be written" >&2; exit 78; }
touch .env
sed -i "/^ *$variable=/d" .env
echo "$variable=./.secrets/$name" >>.env
echo "cai: installed .secrets/$name for the containers' user $owner; .env names it" >&2
