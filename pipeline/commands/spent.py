"""Where a run's time went, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from ..engine.spent import ACTIVITIES, StageTimes
from .console import counted
from .progress import duration

LEAST = 10.0
"""Seconds that a run has to take for anybody to ask where they went."""

_FEW_MODELS = 5
_SLOW = 2.0
"""Times the mean of its stage, from which on a unit is told of as slow."""


def print_spent(console: Console, phases: Sequence[tuple[str, float]], times: Mapping[str, StageTimes]) -> None:
    """phases: what the run did, one after another, and the seconds that each took."""
    told = ", ".join(f"{name} {duration(seconds)}" for name, seconds in phases if round(seconds))
    console.print(f"\ntook {duration(sum(seconds for _, seconds in phases))}: {told}", soft_wrap=True)
    if not times:
        return
    shown = [name for name in ACTIVITIES if any(stage.seconds[name] >= 0.005 * stage.total for stage in times.values())]
    table = Table(box=None, pad_edge=False)
    for heading in ("workers of", "units", "seconds", *shown):
        table.add_column(heading, justify="left" if heading == "workers of" else "right")
    for name, stage in times.items():
        parts = [f"{stage.seconds[part] / stage.total:.0%}" if stage.seconds[part] else "-" for part in shown]
        table.add_row(name, f"{stage.units:,}", f"{stage.total:,.1f}", *parts)
    console.print(table)
    for name, stage in times.items():
        for line in details(name, stage):
            console.print(line, soft_wrap=True)


def details(name: str, stage: StageTimes) -> Iterator[str]:
    """What there is to tell of a stage beside its figures: its labelers, and units that took long."""
    if len(stage.models) > 1:
        total = sum(stage.models.values())
        shares = [f"{model} {spent / total:.0%}" for model, spent in stage.models.most_common(_FEW_MODELS)]
        more = len(stage.models) - len(shares)
        shares += [counted(more, "other")] if more else []
        yield f"models of {name}: {', '.join(shares)}"
    mean = stage.worked / stage.units
    slow = [one for one in stage.stragglers if one.seconds >= max(1.0, _SLOW * mean)]
    if slow:
        units = ", ".join(f"{one.unit} {one.seconds:,.1f} s, mostly {one.most}" for one in slow)
        yield f"slow units of {name}, where {mean:,.1f} s is the mean: {units}"
