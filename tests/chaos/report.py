"""What schedules of faults came to: told as they end, kept in a file, and added up."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SUMS = ("runs", "requests", "lost", "duplicated")


@dataclass
class Played:
    """What came of a schedule. runs: how many it took. requests: to S3 that went wrong. lost, duplicated: labels and
    tokens. stops: the errors with which runs ended. failure: how it failed, "" where it didn't."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    requests: int = 0
    stops: list[str] = field(default_factory=list)
    lost: int = 0
    duplicated: int = 0
    seconds: float = 0.0
    failure: str = ""

    def __str__(self) -> str:
        befell = ", ".join(f"{count} x {name}" for name, count in self.faults.items()) or "nothing befell it"
        runs = "1 run" if self.runs == 1 else f"{self.runs} runs"
        end = f"FAILED: {self.failure}" if self.failure else f"identical after {runs}"
        return f"{befell}; {end}, {self.seconds:.0f} s"


class Report:
    """What all schedules came to. file: a line of JSON for each that was played, those of earlier calls too."""

    def __init__(self, file: Path | None, seeds: Collection[int]) -> None:
        self._file = file
        self._played: dict[int, Played] = {}
        self._seeds = seeds
        self._lock = threading.Lock()
        for line in file.read_text().splitlines() if file and file.exists() else ():
            known = json.loads(line)
            if known["seed"] in {*seeds}:
                self._played[known["seed"]] = Played(**{**known, "faults": Counter(known["faults"])})

    @property
    def left(self) -> list[int]:
        """The seeds of the schedules that are still to be played: those that failed are played again."""
        return [seed for seed in self._seeds if seed not in self._played or self._played[seed].failure]

    @property
    def failed(self) -> list[int]:
        return sorted(seed for seed, played in self._played.items() if played.failure)

    @property
    def faults(self) -> Counter[str]:
        return sum((played.faults for played in self._played.values()), Counter())

    def add(self, schedule: object, played: Played) -> None:
        with self._lock:
            self._played[played.seed] = played
            if self._file:
                with self._file.open("a") as file:
                    print(json.dumps(vars(played)), file=file)
            done = len(self._seeds) - len(self.left)
            print(f"{time.strftime('%T')} {done}/{len(self._seeds)} {schedule}: {played}", flush=True)
            for stop in played.stops:
                print(f"    stopped: {stop[:300]}", flush=True)

    def result(self) -> dict[str, Any]:
        """All of them in figures."""
        every = list(self._played.values())
        sums = {name: sum(getattr(played, name) for played in every) for name in _SUMS}
        stops = sum(len(played.stops) for played in every)
        return {"schedules": len(every), "faults": self.faults.total(), **sums, "stops": stops, "left": len(self.left)}

    def table(self) -> str:
        rows = [f"| {name} | {times} |" for name, times in sorted(self.faults.items())]
        return "\n".join(("| fault | times |", "|---|---|", *rows))
