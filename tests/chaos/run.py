"""Chaos: schedules of faults, each drawn from its seed, on clusters of Ray; every run must end in the same bytes.

    python tests/chaos/run.py [--schedules N] [--seed N] [--only SEED]... [--quick] [--kind raylets|hosts]
                              [--results FILE] [--minutes N]

A schedule is a small recipe on a cluster of four raylets, or of three hosts in network namespaces, into a folder or S3
(Ceph behind a proxy), and up to three faults. A run must leave what one in peace left, object by object, or stop with
a clear error; then the same command is given again, and must go on to that. Labels and tokens that are missing, or
there twice, are counted by their keys.

Prints what happens, a table of all faults, and as its last line one JSON object. A schedule that fails is told with its
seed, and `--only SEED` plays it again. With `--results` it goes on where it was stopped, and with those that failed.
Linux only; hosts, small disks and partitions need root, iproute2 and nftables, clocks a C compiler.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
import traceback
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

import clocks
from ground import Ground
from hosts import HERE, go_inside, small_disk
from machines import ENVIRONMENT, Cluster
from places import s3_server
from play import Player
from processes import adopt_orphans, clear, descendants
from report import Report
from runs import ChaosError, told
from schedules import KINDS, ON_FOLDER, Schedule, draw
from slow_labelers import LEAK
from spawner import Spawner

_NODES = {"raylets": 4, "hosts": 3}
_PORTS = {"raylets": 26_379, "hosts": 6_379}
_DISK = 16 * 2**20


def main() -> int:
    options = _options()
    why = go_inside()
    adopt_orphans()
    report = Report(options.results, _seeds(options))
    result: dict[str, Any] = {"seed": options.seed}

    def torment(folder: Path, stack: ExitStack) -> None:
        try:
            _play_all(options, why, folder, stack, report, result)
        finally:
            result.update(report.result())

    return told(result, torment)


def _play_all(
    options: argparse.Namespace, why: str, folder: Path, stack: ExitStack, report: Report, result: dict[str, Any]
) -> None:
    stack.callback(lambda: clear(descendants(), 0.0))
    until = time.monotonic() + 60 * options.minutes
    kinds, lacking = _able(why)
    schedules = [draw(seed, kinds, lacking) for seed in report.left]
    if options.kind:
        schedules = [schedule for schedule in schedules if schedule.kind == options.kind]
    disks = {} if why else {kind: stack.enter_context(small_disk(folder / f"disk-{kind}", _DISK)) for kind in KINDS}
    os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "OMP_NUM_THREADS": "1"}
    result["server"] = stack.enter_context(s3_server(folder / "s3"))
    ground = Ground(folder, os.environ["AWS_ENDPOINT_URL"], disks)
    ground.prepare()
    spawner = Spawner(folder, {**os.environ, **ENVIRONMENT, LEAK: "60"})
    stack.callback(spawner.end)
    address = "127.0.0.1" if why else HERE
    library = None if "clocks" in lacking else clocks.build(folder)
    clusters = [Cluster(kind, _NODES[kind], folder, spawner, address, _PORTS[kind], library=library) for kind in KINDS]
    with ThreadPoolExecutor(len(clusters)) as lanes:
        own = [[schedule for schedule in schedules if schedule.kind == cluster.kind] for cluster in clusters]
        list(lanes.map(lambda cluster, own: _play(own, cluster, ground, report, until), clusters, own))
    print(f"\n{report.table()}\n", flush=True)
    if failed := report.failed:
        raise ChaosError(f"failed: {' '.join(f'--only {seed}' for seed in failed)}")


def _able(why: str) -> tuple[Collection[str], Collection[str]]:
    """The kinds of clusters that can be made here, and the faults that can't, which is said. why: no hosts can be."""
    kinds, lacking = set(KINDS), set[str]()
    if why:
        print(f"no hosts, and no disk that is full: {why}", flush=True)
        kinds, lacking = {"raylets"}, {*ON_FOLDER}
    if no_clocks := clocks.why_not():
        print(f"no clocks that are off: {no_clocks}", flush=True)
        lacking.add("clocks")
    return kinds, lacking


def _play(schedules: Sequence[Schedule], cluster: Cluster, ground: Ground, report: Report, until: float) -> None:
    """One after another on one cluster, which is put up anew after one that failed; none begins after `until`."""
    try:
        for schedule in schedules:
            if (began := time.monotonic()) > until:
                break
            with ExitStack() as stack:
                player = Player(schedule, cluster, ground, stack)
                try:
                    player.play()
                except Exception as error:
                    known = isinstance(error, ChaosError)
                    player.played.failure = str(error) if known else traceback.format_exc()
            if player.played.failure:
                cluster.down()
            player.played.seconds = round(time.monotonic() - began, 1)
            report.add(schedule, player.played)
    finally:
        cluster.down()


def _seeds(options: argparse.Namespace) -> Sequence[int]:
    return options.only or range(options.seed, options.seed + options.schedules)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, help="how many (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others follow it")
    parser.add_argument("--only", type=int, action="append", help="this seed's schedule alone; may be given again")
    parser.add_argument("--quick", action="store_true", help="six schedules")
    parser.add_argument("--kind", choices=KINDS, help="those of one kind of cluster alone")
    parser.add_argument("--results", type=Path, help="a file to go on with: what it has is added up, not played again")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no other schedule begins")
    options = parser.parse_args()
    options.schedules = options.schedules or (6 if options.quick else 200)
    return options


if __name__ == "__main__":
    sys.exit(main())
