"""Schedules of faults: what is run where, and what befalls it when. Each is drawn from its seed, and nothing else."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from random import Random
from typing import Any

KINDS = ("raylets", "hosts")
STORAGES = ("folder", "s3")

EVERYWHERE = ("worker", "raylet", "node", "driver", "head", "frozen", "lost", "slow", "store full", "two jobs")
ON_HOSTS = ("partition", "partition for good", "loss", "narrow", "delay", "clocks")
"""Those of nodes with a network between them and clocks of their own."""
ON_FOLDER = ("disk full",)
ON_S3 = ("S3 1%", "S3 10%", "credentials")

LASTING = ("loss", "narrow", "delay", "clocks", "S3 1%", "S3 10%", "two jobs")
"""Those that are there from the beginning."""

_MOST_FAULTS = 3


@dataclass(frozen=True)
class Fault:
    """share: of all objects that are there when it strikes. pause: seconds until it does. choice: of its victim, from 0
    to 1. seconds: that it lasts, where it passes by itself."""

    name: str
    share: float
    pause: float
    choice: float
    seconds: float

    def __str__(self) -> str:
        return self.name if self.name in LASTING else f"{self.name} at {self.share:.0%}"


@dataclass(frozen=True)
class Schedule:
    """faults: in the order in which they strike. on: the number of the node beside which the driver runs."""

    seed: int
    recipe: str
    kind: str
    storage: str
    on: int
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        where = f"{self.recipe}, {self.kind}, {self.storage}, driver on {self.on}"
        return f"{self.seed} ({where}; {', '.join(map(str, self.faults)) or 'nothing'})"


def draw(seed: int, kinds: Collection[str], lacking: Collection[str] = ()) -> Schedule:
    """The schedule of a seed. kinds: of clusters that can be made here. lacking: faults that can't."""
    random = Random(f"chaos {seed}")
    kind, storage = KINDS[seed % 2], random.choice(STORAGES)
    if kind not in kinds:
        kind = KINDS[0]
    recipe = random.choices(tuple(RECIPES), _WEIGHTS)[0]
    able = [*EVERYWHERE, *(ON_HOSTS if kind == "hosts" else ()), *(ON_S3 if storage == "s3" else ON_FOLDER)]
    names = random.sample([name for name in able if name not in lacking], random.randint(1, _MOST_FAULTS))
    # One that lasts is noticed all along; what stops a run for lack of something, only once.
    if {"S3 1%", "S3 10%", "credentials"} <= {*names}:
        names.remove("S3 1%")
    faults = [
        Fault(name, random.uniform(0, 0.9), random.uniform(0, 0.3), random.random(), random.uniform(1, 3))
        for name in names
    ]
    on = random.choice((0, 1)) if kind == "hosts" else 0
    return Schedule(seed, recipe, kind, storage, on, tuple(sorted(faults, key=lambda fault: fault.share)))


_COLOUR = {"labeler": "slow_labelers:Colour", "keep": "labels"}

_PARTS = {"name": "product_codebook", "params": {"parts": 3, "size": 4}}

RECIPES: dict[str, dict[str, Any]] = {
    "one stage": {
        "modalities": {"colour": _COLOUR, "canny_edge": {"keep": "labels"}},
    },
    "fitted": {
        "modalities": {
            "colour": {"labeler": "slow_labelers:Colour", "tokenizer": _PARTS},
            "caption": {"keep": "both"},
        },
        "fit": {"units": 4},
    },
    "two stages": {
        "modalities": {
            "colour": _COLOUR,
            "spread": {"labeler": "slow_labelers:Spread", "keep": "labels"},
            "contrast": {"labeler": "slow_labelers:Contrast", "keep": "labels"},
        },
    },
    "leak": {
        "modalities": {"leaky": {"labeler": "slow_labelers:Leaky", "keep": "labels"}, "caption": {"keep": "labels"}},
    },
    "texts": {
        "corpus": {"text": "text"},
        "modalities": {"text": {}},
        "fit": {"units": 2},
    },
}
"""What is run, less corpus and output; `views`, `units` and `resources` are the same for all."""

_WEIGHTS = (3, 1, 3, 2, 2)
"""How often each is drawn: the second takes three times as long as others."""


def content(recipe: str, place: str, output: str, options: dict[str, Any] | None) -> dict[str, Any]:
    """The recipe written out. place: of the corpora. options: how both are reached."""
    given = RECIPES[recipe]
    corpus = {"url": f"{place}/{'texts' if recipe == 'texts' else 'photographs'}", **given.get("corpus", {})}
    fixed = {"units": {"samples": 2}, "resources": {"workers": 2}, "views": {"size": 64}}
    reached = {"storage_options": options} if options else {}
    return {**fixed, **given, "corpus": {**corpus, **reached}, "output": output, **reached}
