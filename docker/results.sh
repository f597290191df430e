#!/usr/bin/env bash
# Copies one run out of the volume:  docker/results.sh [RUN] [FOLDER]   (default: demo, results/)
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/settings.sh 2>/dev/null

run=${1:-demo}
folder=${2:-results}
part=$folder/.$run.part
rm -rf "$part"
mkdir -p "$part"
trap 'rm -rf "$part"' EXIT
docker compose run --rm --no-deps -T --entrypoint tar fetch -C /runs -cf - "$run" | tar -xf - --no-same-owner -C "$part" ||
  { echo "cai: no run '$run' in the volume. There are: $(docker compose run --rm --no-deps -T --entrypoint ls fetch /runs | tr '\n' ' ')" >&2; exit 65; }
rm -rf "${folder:?}/$run"
mv "$part/$run" "$folder/$run"
echo "cai: copied to $folder/$run" >&2
