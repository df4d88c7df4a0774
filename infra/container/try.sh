#!/usr/bin/env bash
# Builds the image with podman, and has it make the quickstart's dataset as on a cluster: uid 1000, a root that is
# read-only, no network; then once more as a job of a head in it, which asks for a token. BASE, TORCH, PIP_FIND_LINKS and PIP_EXTRA_INDEX_URL of the environment go into the build; CA is a
# file of certificates that pip needs, ARCHIVE a tar of Debian that is to be BASE. Images and layers lie below STORAGE,
# and are removed at the end unless it is named.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
image=localhost/tokenloom:try
folder=$(mktemp -d)
storage=${STORAGE:-$folder/storage}
podman() { command podman --root "$storage" --runroot "${STORAGE:-$folder}/run" "$@"; }
finish() {
    [[ -n ${STORAGE:-} ]] || podman rmi --all --force >/dev/null
    rm -rf "$folder"
}
trap finish EXIT

words=(--network=host --tag "$image" --file "$root/infra/container/Dockerfile")
for name in BASE TORCH PIP_FIND_LINKS PIP_EXTRA_INDEX_URL; do
    [[ -z ${!name:-} ]] || words+=(--build-arg "$name=${!name}")
done
[[ -z ${CA:-} ]] || words+=(--secret "id=ca,src=$CA")
[[ -z ${PIP_FIND_LINKS:-} ]] || words+=(--volume "$PIP_FIND_LINKS:$PIP_FIND_LINKS:ro")
[[ -z ${ARCHIVE:-} ]] || podman import "$ARCHIVE" "$BASE"
podman build "${words[@]}" "$root"

# Twelve pictures with captions, drawn in the container.
draw='
import pathlib, numpy, PIL.Image
for n in range(12):
    grey = numpy.add.outer(numpy.arange(240) * n, numpy.arange(320)) % 256
    name = pathlib.Path("photos") / f"stripes-{n:02}"
    name.parent.mkdir(exist_ok=True)
    PIL.Image.fromarray(grey.astype(numpy.uint8)).convert("RGB").save(f"{name}.jpg")
    pathlib.Path(f"{name}.txt").write_text(f"Stripes of slope {n}.")
'

# shellcheck disable=SC2016 - for the shell in the container
submit='
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d " \n")
ray start --head --node-ip-address 127.0.0.1 --num-cpus 2 --object-store-memory 200000000 >/tmp/head.log 2>&1
tokenloom submit quickstart --corpus photos/ --output submitted/ --address http://127.0.0.1:8265
'

mkdir "$folder/work"
chown 1000:1000 "$folder/work"
locked=(--rm --network=none --read-only --tmpfs /tmp --shm-size=1g --memory=6g --cap-drop=all
    --security-opt=no-new-privileges --volume "$folder/work:/work" --workdir /work)
podman run "${locked[@]}" "$image" id
podman run "${locked[@]}" "$image" python -c "$draw"
podman run "${locked[@]}" "$image" tokenloom run quickstart --corpus photos/ --output dataset/
podman run "${locked[@]}" "$image" tokenloom verify dataset/
podman run "${locked[@]}" "$image" bash -c "$submit"
podman run "${locked[@]}" "$image" tokenloom verify submitted/
podman run "${locked[@]}" "$image" bash -c '! touch /etc/written 2>/dev/null'
podman image ls "$image"
