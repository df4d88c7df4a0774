#!/usr/bin/env bash
# Stops the Ceph that ceph-up.sh started in FOLDER, and removes its state but the logs.
#
# Usage: ceph-down.sh FOLDER
set -euo pipefail

[[ $# == 1 && -f $1/ceph.conf ]] || { echo "usage: ceph-down.sh FOLDER, one that ceph-up.sh started" >&2; exit 1; }
folder=$(cd "$1" && pwd)

# A pid file outlives its process, and its number may be another's by now: the command line tells.
runs() { [[ -r /proc/$1/cmdline ]] && grep -qzF "$folder/ceph.conf" "/proc/$1/cmdline"; }

stop() {
    local pid signal
    [[ -f $1 ]] || return 0
    pid=$(<"$1")
    runs "$pid" || return 0
    for signal in TERM KILL; do
        kill "-$signal" "$pid" 2>/dev/null || return 0
        for _ in $(seq 50); do
            runs "$pid" || return 0
            sleep 0.1
        done
    done
}

stop "$folder/run/client.gateway.pid"
stop "$folder/run/osd.0.pid"
stop "$folder/run/mon.a.pid"
rm -rf "$folder"/{mon,osd,run,ceph.conf,keyring,monmap}
