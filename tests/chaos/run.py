"""Chaos: schedules of faults, each drawn from its seed, on clusters of Ray; every run must end in the same bytes.

    python tests/chaos/run.py [--schedules N] [--seed N] [--only SEED]... [--quick] [--kind raylets|hosts]

A schedule is a small recipe on a cluster of four raylets, or of three hosts in network namespaces, into a folder or S3
(Ceph behind a proxy), and up to three faults. A run must leave what one in peace left, object by object, or stop with
a clear error; then the same command is given again, and must go on to that. Labels and tokens that are missing, or
there twice, are counted by their keys.

Prints what happens, a table of all faults, and as its last line one JSON object. A schedule that fails is told with its
seed, and `--only SEED` plays it again. Linux only; hosts, small disks and partitions need root, iproute2 and nftables.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from ground import Ground
from hosts import HERE, go_inside, small_disk
from machines import ENVIRONMENT, Cluster
from places import s3_server
from play import Played, Player
from processes import adopt_orphans, clear, descendants
from runs import ChaosError, told
from schedules import KINDS, ON_FOLDER, Schedule, draw
from slow_labelers import LEAK
from spawner import Spawner

_NODES = {"raylets": 4, "hosts": 3}
_PORTS = {"raylets": 26_379, "hosts": 6_379}
_DISK = 16 * 2**20


@dataclass
class Report:
    """What all schedules came to."""

    result: dict[str, Any]
    faults: Counter[str] = field(default_factory=Counter)
    failed: list[int] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, schedule: Schedule, played: Played, seconds: float, failure: str = "") -> None:
        with self._lock:
            self.faults += played.faults
            self.result["schedules"] += 1
            self.result["faults"] = self.faults.total()
            for name in ("runs", "requests", "lost", "duplicated"):
                self.result[name] += getattr(played, name)
            self.result["stops"] += len(played.stops)
            if failure:
                self.failed.append(schedule.seed)
            told = ", ".join(f"{count} x {name}" for name, count in played.faults.items()) or "nothing befell it"
            end = f"FAILED: {failure}" if failure else f"identical after {played.runs} runs"
            print(f"{time.strftime('%T')} {schedule}: {told}; {end}, {seconds:.0f} s", flush=True)
            for stop in played.stops:
                print(f"    stopped: {stop[:300]}", flush=True)


def main() -> int:
    options = _options()
    why = go_inside()
    adopt_orphans()
    result: dict[str, Any] = dict.fromkeys(
        ("schedules", "runs", "faults", "requests", "stops", "lost", "duplicated"), 0
    )
    result["seed"] = options.seed
    return told(result, lambda folder, stack: _play_all(options, why, folder, stack, result))


def _play_all(options: argparse.Namespace, why: str, folder: Path, stack: ExitStack, result: dict[str, Any]) -> None:
    stack.callback(lambda: clear(descendants(), 0.0))
    kinds, lacking = set(KINDS), set[str]()
    if why:
        print(f"no hosts, and no disk that is full: {why}", flush=True)
        kinds, lacking = {"raylets"}, {*ON_FOLDER}
    schedules = [draw(seed, kinds, lacking) for seed in _seeds(options)]
    if options.kind:
        schedules = [schedule for schedule in schedules if schedule.kind == options.kind]
    disks = {} if why else {kind: stack.enter_context(small_disk(folder / f"disk-{kind}", _DISK)) for kind in KINDS}
    os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "OMP_NUM_THREADS": "1"}
    result["server"] = stack.enter_context(s3_server(folder / "s3"))
    ground = Ground(folder, os.environ["AWS_ENDPOINT_URL"], disks)
    ground.prepare()
    spawner = Spawner(folder, {**os.environ, **ENVIRONMENT, LEAK: "60"})
    stack.callback(spawner.end)
    report = Report(result)
    address = "127.0.0.1" if why else HERE
    clusters = [Cluster(kind, _NODES[kind], folder, spawner, address, _PORTS[kind]) for kind in KINDS]
    with ThreadPoolExecutor(len(clusters)) as lanes:
        own = [[schedule for schedule in schedules if schedule.kind == cluster.kind] for cluster in clusters]
        list(lanes.map(lambda cluster, own: _play(own, cluster, ground, report), clusters, own))
    _print_table(report.faults)
    if report.failed:
        raise ChaosError(f"failed: {' '.join(f'--only {seed}' for seed in sorted(report.failed))}")


def _play(schedules: Sequence[Schedule], cluster: Cluster, ground: Ground, report: Report) -> None:
    """One after another on one cluster, which is put up anew after one that failed."""
    try:
        for schedule in schedules:
            began, failure = time.monotonic(), ""
            with ExitStack() as stack:
                player = Player(schedule, cluster, ground, stack)
                try:
                    player.play()
                except Exception as error:
                    failure = str(error) if isinstance(error, ChaosError) else traceback.format_exc()
            if failure:
                cluster.down()
            report.add(schedule, player.played, time.monotonic() - began, failure)
    finally:
        cluster.down()


def _print_table(faults: Counter[str]) -> None:
    print("\n| fault | times |\n|---|---|")
    for name, times in sorted(faults.items()):
        print(f"| {name} | {times} |")
    print(flush=True)


def _seeds(options: argparse.Namespace) -> Sequence[int]:
    return options.only or range(options.seed, options.seed + options.schedules)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, help="how many (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others follow it")
    parser.add_argument("--only", type=int, action="append", help="this seed's schedule alone; may be given again")
    parser.add_argument("--quick", action="store_true", help="six schedules")
    parser.add_argument("--kind", choices=KINDS, help="those of one kind of cluster alone")
    options = parser.parse_args()
    options.schedules = options.schedules or (6 if options.quick else 200)
    return options


if __name__ == "__main__":
    sys.exit(main())
