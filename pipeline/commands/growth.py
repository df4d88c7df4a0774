"""What the commands say of a corpus that isn't as a dataset took it up."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

from ..corpus.names import clean_key
from ..corpus.unit_sets import by_shard
from ..dataset.finished import list_finished
from ..plan.plan import Plan
from ..storage.store import Store
from .console import counted
from .printable import printable

_FEW = 3
"""Files that are named where there are many."""


def print_growth(console: Console, plan: Plan) -> None:
    """What of the corpus is new, what has changed or is gone, and what becomes of that."""
    growth, takes = plan.growth, plan.request.take_changes
    seen, now = plan.request.seen, plan.request.corpus
    if seen and seen.root != now.root:
        text = f"\nthe corpus is taken from {printable(now.root)} from now on; it was {printable(seen.root)}"
        console.print(text, soft_wrap=True)
    news = growth.new if seen else ()
    for what, paths in (("new", news), ("changed", growth.changed), ("gone", growth.gone)):
        if paths:
            console.print(f"\n{what} in the corpus: {_few(paths)}", soft_wrap=True)
    if growth.left:
        text = f"{counted(len(growth.left), 'shard')} with such files left as it was taken up: --take-changes"
        console.print(f"{text} makes anew what has changed, and drops what is gone", soft_wrap=True)
    elif takes and (growth.changed or growth.gone):
        console.print("taken up as it is now: what is made of it takes the old one's place")
        _print_losses(console, plan)


def _print_losses(console: Console, plan: Plan) -> None:
    """What readers get of modalities that the run makes nothing of: less, where a part of the corpus is retired."""
    seen, made = plan.request.seen, plan.graph.cards
    before = frozenset(seen.retired if seen else ())
    retired = frozenset(plan.request.corpus.retired) - before
    held = plan.manifest.modalities
    losing = {name: card for name, card in held.items() if name not in made or name in plan.replacing}
    store = Store(plan.recipe.output, plan.recipe.storage_options)
    for name, found in list_finished(store, losing if retired else {}, before).items():
        lost = sum(one.samples for one in by_shard(found.units) if one.shard in retired)
        if lost:
            other = "" if name in made else ", which this recipe doesn't make,"
            until = "it is made anew" if name in made else "a recipe that has it is run"
            text = f"{name}{other} loses {lost:,} of its {counted(found.samples, 'sample')} until {until}"
            console.print(text, soft_wrap=True)


def _few(paths: Iterable[str]) -> str:
    """How many files there are, and the first of them."""
    names = sorted(paths)
    first = ", ".join(clean_key(name) for name in names[:_FEW])
    return f"{counted(len(names), 'file')}, {first}{', ...' if len(names) > _FEW else ''}"
