"""Where time goes: what a worker's seconds were spent on, so measured that the parts add up to the whole."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from dataclasses import dataclass, field

READING = "read"
"""In the place of a stage's name: the tasks that read the corpus."""

READ, LOAD, DECODE, MODEL, TOKENISE, WRITE, SEARCH, OTHER, IDLE = ACTIVITIES = (
    "read",
    "load",
    "decode",
    "model",
    "tokenise",
    "write",
    "search",
    "other",
    "idle",
)
"""read: the corpus, or labels that the dataset has. load: labelers and tokenizers. decode: waiting for pixels, which
are decoded while models run; what that hides costs nothing. model: labelers. tokenise: tokens, and labels encoded.
write: shards, and the marks of units that are begun. search: for samples that kill their process. other: taking units
from Ray and handing them on. idle: of a stage, waiting for units; of the reading, for stages that have room."""

_SLOWEST = 3


@dataclass(frozen=True)
class Spent:
    """What one unit took of a worker. seconds: by activity; idle is what the worker waited before. models: those of
    MODEL, by labeler."""

    stage: str
    seconds: dict[str, float]
    models: dict[str, float]

    @property
    def worked(self) -> float:
        """Seconds on the unit itself: neither idle, nor loading what later units have, too."""
        return sum(seconds for name, seconds in self.seconds.items() if name not in (IDLE, LOAD))

    @property
    def most(self) -> str:
        """What took the longest: an activity, or a labeler."""
        parts = {name: self.seconds[name] for name in self.seconds if name not in (IDLE, LOAD, MODEL)} | self.models
        return max(parts, key=lambda name: parts[name], default=OTHER)


class Watch:
    """Splits the time since it was made into parts: every reading of the clock ends one and begins the next."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}
        self.models: dict[str, float] = {}

    def lap(self, activity: str, labeler: str = "") -> None:
        """What went by since the last lap was spent on `activity`."""
        now = time.perf_counter()
        spent, self._last = now - self._last, now
        self.seconds[activity] = self.seconds.get(activity, 0.0) + spent
        if labeler:
            self.models[labeler] = self.models.get(labeler, 0.0) + spent

    def take(self, stage: str) -> Spent:
        """The parts since they were taken last."""
        spent = Spent(stage, self.seconds, self.models)
        self.seconds, self.models = {}, {}
        return spent


@dataclass(frozen=True, order=True)
class Straggler:
    """A unit that took long. seconds: of work; most: what took the longest of it."""

    seconds: float
    unit: str
    samples: int
    most: str


@dataclass
class StageTimes:
    """What the workers of a stage did so far, all together: seconds by activity, and of models by labeler; the slowest
    units, slowest first."""

    units: int = 0
    samples: int = 0
    seconds: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    stragglers: list[Straggler] = field(default_factory=list)

    def add(self, spent: Spent, unit: str, samples: int) -> None:
        self.units += 1
        self.samples += samples
        self.seconds.update(spent.seconds)
        self.models.update(spent.models)
        self.stragglers = heapq.nlargest(
            _SLOWEST, [*self.stragglers, Straggler(spent.worked, unit, samples, spent.most)]
        )

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def worked(self) -> float:
        return self.total - self.seconds[IDLE] - self.seconds[LOAD]
