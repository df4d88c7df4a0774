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
    local pid
    [[ -f $1 ]] || return 0
    pid=$(<"$1")
    runs "$pid" || return 0
    kill -TERM "$pid" 2>/dev/null || return 0
    for _ in $(seq "$2"); do
        runs "$pid" || return 0
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
}

stop "$folder/run/client.gateway.pid" 50
stop "$folder/run/osd.0.pid" 50
stop "$folder/run/mon.a.pid" 50
rm -rf "$folder"/{mon,osd,run,ceph.conf,keyring,monmap}
