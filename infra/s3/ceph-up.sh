#!/usr/bin/env bash
# A single-node Ceph with its S3 gateway on loopback, for development and tests: no systemd, no root, nothing outside
# FOLDER. Objects live in memory and end with it. Packages: ceph-mon ceph-osd radosgw ceph-common.
#
# Usage: ceph-up.sh FOLDER [PORT]      FOLDER: new or empty; PORT: a free one when none is named
# Prints what to export to reach it, so eval "$(infra/s3/ceph-up.sh FOLDER)" sets a shell up. ceph-down.sh stops it.
set -euo pipefail

die() { echo "ceph-up.sh: $*" >&2; exit 1; }

[[ $# == 1 || $# == 2 ]] || die "usage: ceph-up.sh FOLDER [PORT]"
for program in ceph ceph-authtool ceph-mon ceph-osd monmaptool radosgw radosgw-admin; do
    command -v "$program" >/dev/null ||
        die "$program is missing. Run: apt-get install --no-install-recommends ceph-mon ceph-osd radosgw ceph-common"
done

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
[[ -z $(ls -A "$folder") ]] || die "$folder isn't empty; stop what runs there with ceph-down.sh $folder, or name another"

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below the ports that the kernel gives to clients, so that none of them takes it before the server does.
free_port() {
    local port
    while port=$((25000 + RANDOM % 5000)); answers "$port" || [[ $port == "${1:-}" ]]; do :; done
    echo "$port"
}

port=${2:-$(free_port)}
if answers "$port"; then die "port $port is taken; name another, or none for a free one"; fi
monitor=v1:127.0.0.1:$(free_port "$port")
access_key=tokenloom
secret_key=tokenloom-secret

mkdir -p "$folder"/{mon,osd,run}
cat >"$folder/ceph.conf" <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = [$monitor]
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
keyring = $folder/keyring
run dir = $folder/run
pid file = $folder/run/\$name.pid
admin socket = $folder/run/\$name.\$pid.asok
log file = $folder/\$name.log
crash dir = $folder/run
# One copy of everything, few placement groups, and a monitor that waits for nobody: it starts in seconds.
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
paxos propose interval = 0.05
paxos min wait = 0.01
[mon.a]
host = localhost
mon data = $folder/mon
[osd.0]
host = localhost
# Starting, it would ask the monitor for its place before it knows the cluster's id, now and then, and be refused.
osd crush update on start = false
osd class update on start = false
osd data = $folder/osd
osd objectstore = memstore
memstore device bytes = 4294967296
CONF

# Any failure stops what was started, and leaves the logs.
fail() {
    trap - ERR
    exec >&5 2>&5
    "$here/ceph-down.sh" "$folder"
    tail -n 20 "$folder/start.log"
    die "Ceph didn't start; its logs are in $folder"
}
set -E
trap fail ERR
exec 4>&1 5>&2 >"$folder/start.log" 2>&1 </dev/null

# A server that kept the caller's output open would keep whoever reads it waiting.
server() { "$@" 4>&- 5>&-; }

conf=(--conf "$folder/ceph.conf")
fsid=$(sed -n 's/^fsid = //p' "$folder/ceph.conf")
ceph-authtool --create-keyring "$folder/keyring" --gen-key --name mon. --cap mon 'allow *'
monmaptool --create --addv a "[$monitor]" --fsid "$fsid" "$folder/monmap"
ceph-mon "${conf[@]}" --id a --mkfs --monmap "$folder/monmap" --keyring "$folder/keyring"
server ceph-mon "${conf[@]}" --id a

# The servers answer when they are ready: within a second or two, on a busy machine much later. Until then a request may
# wait or fail, in many ways ("problem getting command descriptions from mon"), so it is made again.
deadline=$((SECONDS + 180))
ready() {
    until timeout 30 "$@"; do
        ((SECONDS < deadline)) || { echo "gave up after 180 s: $*"; return 1; }
        sleep 0.5
    done
}

osd=$(cat /proc/sys/kernel/random/uuid)
ready ceph "${conf[@]}" osd new "$osd"
ready ceph "${conf[@]}" osd crush add osd.0 1 root=default host=localhost
ceph-osd "${conf[@]}" --id 0 --mkfs --osd-uuid "$osd"
server ceph-osd "${conf[@]}" --id 0

# An answer leaves at once: else its second half waits 40 ms for the kernel to be told that the first has come.
server radosgw "${conf[@]}" --name client.gateway --rgw-frontends="beast endpoint=127.0.0.1:$port tcp_nodelay=1"
ready bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1"' bash "$port"
# One that was given up may have been heard, and the user be there.
user=(--uid=dev --display-name=dev --access-key="$access_key" --secret-key="$secret_key")
ready bash -c 'radosgw-admin "$@" user create || radosgw-admin "$@" user modify' bash "${conf[@]}" "${user[@]}"

cat >&4 <<ENV
export AWS_ENDPOINT_URL=http://127.0.0.1:$port
export AWS_ACCESS_KEY_ID=$access_key
export AWS_SECRET_ACCESS_KEY=$secret_key
export AWS_REGION=us-east-1
export AWS_DEFAULT_REGION=us-east-1
ENV
