"""What there is to tell at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..corpus.refusals import how_many
from ..engine.tally import Tally
from ..plan.plan import Plan
from ..storage.store import redact
from .console import counted
from .dataset import broken_parts, empty_shards, null_everywhere, readable_size
from .printable import printable


def refused(tally: Tally) -> str:
    return how_many(tally.rejected - len(tally.broken), len(tally.broken))


def read_again(tally: Tally) -> Iterator[str]:
    if tally.again:
        yield f"{readable_size(tally.again)} of compressed files read again, to come to where there was something to do"


def without_samples(plan: Plan, empty: Sequence[str]) -> Iterator[str]:
    """empty: ids of the corpus shards that hold no sample."""
    if empty:
        paths = {shard.id: shard.path for shard in (*plan.growth.shards, *plan.growth.left)}
        yield empty_shards(sorted(paths.get(name, name) for name in empty))


def summary(plan: Plan, tally: Tally) -> Iterator[str]:
    """What there is to tell at the end of a run; last, what it came to."""
    url, whole = plan.request.url, tally.whole
    if tally.superseded:
        size = readable_size(tally.superseded)
        yield f"{size} superseded: `tokenloom gc {url}` deletes what nobody reads any more"
    yield from broken_parts(whole.broken)
    yield from map(printable, whole.first_notes)
    yield from map(null_everywhere, tally.null)
    yield from without_samples(plan, tally.empty)
    yield from read_again(tally)
    wrong = [f"{counted(whole.quarantined, 'label')} quarantined"] if whole.quarantined else []
    wrong += filter(None, [how_many(whole.refused, len(whole.broken))])
    if wrong or len(whole.notes) > len(whole.first_notes):
        yield f"`tokenloom quarantine {url}` tells why samples failed, and all that isn't taken"
    done = f"readers get {', '.join(plan.replacing)} as made anew" if plan.replacing else "nothing to do"
    if tally.units:
        units, names = counted(tally.units, "unit"), counted(len(tally.rows), "modality", "modalities")
        done = f"{counted(tally.samples, 'sample')} in {units}, {names}"
    output = redact(plan.recipe.output)
    end = f" -> {output}" if wrong or tally.units else f": {output} is complete"
    yield "; ".join([done, *wrong]) + end
