"""Clusters of Ray that stay up over many runs, and are mended in between: raylets on one machine, or hosts."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from signal import Signals

from clocks import environment as with_clock
from hosts import Host
from processes import Process
from runs import ChaosError
from spawner import Spawned, Spawner

STARTED = "Ray runtime started"
_LONGEST = 90.0
"""Seconds within which a node has to be up."""
_WORKERS = ("MapWorker", "StageWorker", "read_units")

ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # others may take the machine's memory
    "RAY_worker_niceness": "0",
    # A node counts as dead, and a head as gone, within seconds instead of a minute.
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
    "OMP_NUM_THREADS": "1",
    "TOKENLOOM_DEVICE": "cpu",
    "COLUMNS": "200",
}
"""Of every node and driver."""

_OFFER = "--num-cpus 2 --num-gpus 1 --object-store-memory 80000000"

_logs = count()


@dataclass
class Node:
    """A raylet with its workers, the head's with what leads the cluster. clock: so many seconds ahead."""

    number: int
    started: Spawned
    host: Host | None
    clock: int

    @property
    def is_up(self) -> bool:
        return self.started.poll() is None and (self.host is None or self.host.is_up)

    @property
    def processes(self) -> list[Process]:
        return self.started.processes

    def find(self, *words: str) -> list[Process]:
        return [process for process in self.processes if any(word in process.command for word in words)]

    @property
    def workers(self) -> list[Process]:
        return self.find(*_WORKERS)

    def kill(self) -> None:
        """All of it, at once."""
        if self.host:
            self.host.end()
        for process in self.processes:
            process.kill()
        self.started.wait()

    def send(self, number: Signals) -> None:
        """A signal to all of it."""
        for process in self.processes:
            process.send(number)


@dataclass
class Cluster:
    """kind: raylets or hosts. folder: for all that it shares, a short path. address: of the head's machine, where
    there are no hosts. environment: of the nodes, besides ENVIRONMENT. library: of clocks. clocks: how many seconds
    each node's is to be ahead, where it is off at all. offers: what nodes claim to have, as `ray start` takes it; those
    not named claim _OFFER."""

    kind: str
    size: int
    folder: Path
    spawner: Spawner
    address: str
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    library: Path | None = None
    clocks: Mapping[int, int] = field(default_factory=dict)
    offers: Mapping[int, str] = field(default_factory=dict)
    nodes: dict[int, Node] = field(default_factory=dict)

    @property
    def gcs(self) -> str:
        return f"{self._address(0)}:{self.port}"

    def up(self) -> None:
        """Mends it: afterwards all nodes are there. One that doesn't start, on a busy machine, gets a second chance."""
        try:
            self._up()
        except ChaosError as error:
            print(f"once more: {error}", flush=True)
            self.down()
            self._up()

    def _up(self) -> None:
        if 0 in self.nodes and not self.nodes[0].is_up:
            self.down()
        for number in range(self.size):
            if number not in self.nodes or not self._is_as_meant(self.nodes[number]):
                self.start(number)
        for node in self.nodes.values():
            self._await(node)

    def _is_as_meant(self, node: Node) -> bool:
        return node.is_up and node.clock == self.clocks.get(node.number, 0)

    def down(self) -> None:
        for node in self.nodes.values():
            node.kill()
        self.nodes.clear()
        shutil.rmtree(self.folder / f"ray-{self.kind}", ignore_errors=True)

    def start(self, number: int) -> None:
        """Starts the node, in the place of the one before."""
        if number in self.nodes:
            self.nodes.pop(number).kill()
        host = Host(number, (self.folder,)) if self.kind == "hosts" else None
        words = f"ray start --block --node-ip-address {self._address(number)} {self.offers.get(number, _OFFER)}"
        if number == 0:
            words += f" --head --port {self.port} --include-dashboard=false"
        else:
            words += f" --address {self.gcs}"
        temporary = "/tmp/ray" if host else str(self.folder / f"ray-{self.kind}")
        environment = {**self._environment(number), "RAY_TMPDIR": "/tmp" if host else temporary}
        # What is forked off one process draws the same numbers, and Ray's ids are drawn.
        environment["RAY_OVERRIDE_NODE_ID_FOR_TESTING"] = os.urandom(28).hex()
        if number == 0 and not host:
            words += f" --temp-dir {temporary}"
        log = self.folder / f"logs/{self.kind}-node{number}-{next(_logs)}.log"
        before = self._sockets()
        started = self.spawner.start(words.split(), log, host and host.first, **environment)
        self.nodes[number] = node = Node(number, started, host, self.clocks.get(number, 0))
        if number == 0:
            self._await(node)
        elif not host:  # raylets that start at once on one machine take each other's sockets
            self._await(node, lambda: self._sockets() > before)

    def _await(self, node: Node, what: Callable[[], bool] | None = None) -> None:
        """Until the node is there, or `what()` is true."""
        until = time.monotonic() + _LONGEST
        while STARTED not in (text := _text(node.started.log)) and not (what and what()):
            if not node.is_up or time.monotonic() > until:
                raise ChaosError(f"node {node.number} of {self.kind} didn't start:\n{text[-2000:]}")
            time.sleep(0.05)

    def _sockets(self) -> set[str]:
        """Those of all raylets that one machine has had."""
        return {path.name for path in self.folder.glob(f"ray-{self.kind}/session_latest/sockets/raylet*")}

    def _address(self, number: int) -> str:
        return f"10.77.0.{number + 1}" if self.kind == "hosts" else self.address

    def command(self, words: list[str], log: Path, number: int, **environment: str) -> Spawned:
        """A command that runs beside the node of that number."""
        host = self.nodes[number].host
        environment |= {
            "RAY_ADDRESS": self.gcs,
            "RAY_TMPDIR": "/tmp" if host else str(self.folder / f"ray-{self.kind}"),
        }
        return self.spawner.start(words, log, host and host.first, **{**self._environment(number), **environment})

    def _environment(self, number: int) -> dict[str, str]:
        seconds = self.clocks.get(number, 0)
        off = with_clock(self.library, seconds) if self.library and seconds else {}
        return {**self.environment, **off}


def _text(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else ""
