"""One schedule played: its runs started, its faults done to them, and what is left compared with a run in peace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from faulty_s3 import Fault as S3Fault
from faulty_s3 import FaultyS3, Kind, passing_faults
from ground import Ground
from machines import Cluster, Node
from report import Played
from runs import ChaosError, Run, count_objects
from schedules import LASTING, Fault, Schedule
from signals import slowed, stopped
from spawner import Spawned

_LONGEST = 300.0
"""Seconds within which a run has to be over, whatever befalls it."""
_DEAD = 15.0
"""Seconds for which a node doesn't answer until it counts as dead: more than ENVIRONMENT's health checks take, which is
three times a period and a time-out."""
_MOST_MEMORY = 500 * 2**20
"""Bytes at which a worker is killed, as the kernel does where there are no more."""
_LEAST_OFF, _MOST_OFF = 60, 600
"""Seconds by which a clock is off that is; S3 wants less than a quarter of an hour."""
_DELAY = 0.02
"""Seconds that what a host sends takes longer, for each that another fault would last."""
_PASSES = 0.5
"""Seconds that a fault of S3 lasts which lasts."""


class Job(Run):
    """A run on a cluster that others use, too: abandoned, its driver alone is killed."""

    def ask_where(self) -> None:
        assert isinstance(self.driver, Spawned)
        self.driver.ask_where()

    def abandon(self) -> None:
        self.driver.kill()
        self.driver.wait()


@dataclass
class Player:
    """Plays one schedule on a cluster."""

    schedule: Schedule
    cluster: Cluster
    ground: Ground
    stack: ExitStack
    played: Played = field(init=False)

    def __post_init__(self) -> None:
        self.played = Played(self.schedule.seed)

    def play(self) -> None:
        """Raises ChaosError when the output differs in the end, or a run hangs, or ends without a word."""
        self.output = self.ground.output(self.schedule)
        self.expected = self.ground.reference(self.schedule.recipe, self.schedule.storage)
        self._waiting = [fault for fault in self.schedule.faults if fault.name not in LASTING]
        self.cluster.clocks = self._clocks()
        self.cluster.up()
        self._begin_lasting()
        self.recipe = self._write_recipe()
        if self.schedule.recipe == "leak":
            self.stack.enter_context(self._little_memory())
        for _ in range(len(self.schedule.faults) + 3):
            if self._run():
                break
        else:
            raise ChaosError(f"{self.output}: it doesn't go on: {self.played.stops[-1]}")
        self._compare()

    def _clocks(self) -> dict[int, int]:
        """How many seconds each node's is ahead, where it is off: one as far as another is behind."""
        for fault in self.schedule.faults:
            if fault.name == "clocks":
                seconds = round(_LEAST_OFF + (_MOST_OFF - _LEAST_OFF) * fault.choice)
                return {1: seconds, 2: -seconds}
        return {}

    def _begin_lasting(self) -> None:
        """What is there from the beginning, and the proxy by which it reaches S3."""
        faults = {fault.name: fault for fault in self.schedule.faults if fault.name in LASTING}
        for fault in faults.values():
            self.played.faults[fault.name] += 1
        if loss := faults.get("loss"):
            self._host(loss).lose(3)
        if narrow := faults.get("narrow"):
            self._host(narrow).narrow("4mbit")
        if delay := faults.get("delay"):
            self._host(delay).delay(_DELAY * delay.seconds)
        if self.schedule.storage == "s3":
            share = 0.1 * ("S3 10%" in faults) + 0.01 * ("S3 1%" in faults)
            bad = passing_faults(share, _PASSES) if share else []
            upstream, host = self.ground.s3, self.cluster.address
            self.proxy = self.stack.enter_context(FaultyS3(upstream, bad, self.schedule.seed, host))
        self._second = 1 if "two jobs" in faults else 0

    def _write_recipe(self) -> Path:
        options = None
        if self.schedule.storage == "s3":
            options = {"endpoint_url": self.proxy.endpoint, "config_kwargs": {"read_timeout": 5.0}}
        path = self.ground.folder / f"recipes/{self.schedule.seed}.yaml"
        path.write_text(yaml.safe_dump(self.ground.content(self.schedule, self.output, options), sort_keys=False))
        return path

    def _run(self) -> bool:
        """Starts the command, or two at once, and has faults strike it; whether the dataset is finished."""
        self.cluster.up()
        jobs = [self._start(self.schedule.on)]
        if self._second:
            jobs.append(self._start((self.schedule.on + 1) % self.cluster.size))
        with ExitStack() as self._meanwhile:
            for job in jobs:
                self._meanwhile.callback(job.abandon)
            while self._waiting and self._comes(self._waiting[0], jobs):
                fault = self._waiting.pop(0)
                if self._strike(fault, jobs):
                    self.played.faults[fault.name] += 1
            for job in jobs:
                job.wait_for(lambda: False)
        return min([self._judge(job) for job in jobs])

    def _start(self, number: int) -> Job:
        self.played.runs += 1
        log = self.ground.folder / f"logs/{self.schedule.seed}-{self.played.runs}.log"
        driver = self.cluster.command(["tokenloom", "run", str(self.recipe)], log, number)
        return Job(self.output, log, driver, frozenset(), longest=_LONGEST)

    def _comes(self, fault: Fault, jobs: Sequence[Job]) -> bool:
        """Waits for the fault's moment; False when all was over before."""
        least = max(1, fault.share * len(self.expected.objects))
        while count_objects(self.output) < least:
            if all(job.is_over for job in jobs):
                return False
            if jobs[0].seconds > _LONGEST:
                jobs[0].ask_where()
                raise jobs[0].misbehaved(f"it still wasn't over after {_LONGEST:.0f} s")
            time.sleep(0.05)
        time.sleep(fault.pause)
        return not any(job.is_over or job.is_done for job in jobs)

    def _judge(self, job: Job) -> bool:
        """Whether it ended well. ChaosError where it ended badly without a message, or with a traceback."""
        code = job.driver.returncode
        if code == 0:
            return True
        if code == -9:
            return False
        said = [line for line in job.text.splitlines() if line.startswith("tokenloom: ")]
        if not said and job.phase == 0:  # Ray's native code ends a driver that is just connecting; no work is lost
            said = ["without a word, when it was about to connect"]
        if not said or "Traceback" in job.text:
            raise job.misbehaved(f"it ended with exit code {code}, and without a clear word")
        self.played.stops.append(said[-1])
        return False

    # --- faults ------------------------------------------------------------------------------------------------------

    def _strike(self, fault: Fault, jobs: Sequence[Job]) -> bool:
        """Does it; whether there was anything to do it to."""
        strike: dict[str, Callable[[], Any]] = {
            "worker": lambda: self._kill_worker(fault),
            "raylet": lambda: self._kill_raylet(fault),
            "node": lambda: self._victim(fault).kill(),
            "driver": lambda: jobs[0].driver.kill(),
            "head": lambda: self.cluster.nodes[0].kill(),
            "frozen": lambda: stopped(self._victim(fault), fault.seconds),
            "lost": lambda: stopped(self._victim(fault), _DEAD),
            "slow": lambda: slowed(self._victim(fault), 2 * fault.seconds),
            "store full": lambda: self._fill_store(fault),
            "partition": lambda: self._partition(fault),
            "partition for good": lambda: self._partition_for_good(fault),
            "disk full": lambda: self._fill_disk(jobs),
            "credentials": lambda: self._expire(jobs),
        }
        return strike[fault.name]() is not False

    def _victim(self, fault: Fault) -> Node:
        """A node, but the head."""
        able = [node for number, node in sorted(self.cluster.nodes.items()) if number]
        return able[int(fault.choice * len(able))]

    def _host(self, fault: Fault):
        host = self._victim(fault).host
        assert host is not None
        self.stack.callback(lambda: host.is_up and host.clear())
        return host

    def _kill_worker(self, fault: Fault) -> bool:
        workers = [process for node in self.cluster.nodes.values() for process in node.workers]
        return bool(workers) and workers[int(fault.choice * len(workers))].kill()

    def _kill_raylet(self, fault: Fault) -> bool:
        return any(process.kill() for process in self._victim(fault).find("raylet/raylet "))

    def _partition(self, fault: Fault) -> bool:
        if not self._victim(fault).is_up:
            return False
        host = self._host(fault)
        host.cut()
        time.sleep(fault.seconds)
        host.heal()
        return True

    def _partition_for_good(self, fault: Fault) -> bool:
        node = self._victim(fault)
        if not node.is_up:
            return False
        self._host(fault).cut()
        self._meanwhile.callback(node.kill)
        return True

    def _fill_store(self, fault: Fault) -> None:
        """Puts more into a node's object store than it holds, for as long as the run lasts."""
        number = self._victim(fault).number
        log = self.ground.folder / f"logs/{self.schedule.seed}-fill.log"
        filling = self.cluster.command(["fill"], log, number)
        self._meanwhile.callback(filling.kill)
        while "full" not in (log.read_text() if log.exists() else "") and filling.poll() is None:
            time.sleep(0.05)

    def _fill_disk(self, jobs: Sequence[Job]) -> None:
        with self.ground.full_disk(self.schedule.kind):
            for job in jobs:
                job.wait_for(lambda: False)

    def _expire(self, jobs: Sequence[Job]) -> None:
        with self.proxy.having(S3Fault(Kind.ERROR, status=400, code="ExpiredToken")):
            for job in jobs:
                job.wait_for(lambda: False)

    @contextmanager
    def _little_memory(self) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.1):
                for node in list(self.cluster.nodes.values()):
                    for process in node.workers:
                        if process.memory > _MOST_MEMORY and process.kill():
                            self.played.faults["memory"] += 1

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _compare(self) -> None:
        if self.schedule.storage == "s3":
            self.played.requests = sum(one.fault is not None for one in self.proxy.requests)
        keys = self.ground.keys(self.output)
        self.played.lost = (self.expected.keys - keys).total()
        self.played.duplicated = (keys - self.expected.keys).total()
        self.ground.check(self.output, self.expected)
