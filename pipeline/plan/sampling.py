"""The fitting sample: units from all over the corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from ..corpus.corpus import Corpus, Shard, UnitLimits
from ..corpus.units import Unit, spread
from ..storage.read_ahead import in_order
from .worklist import Kept, Work, kept_of

_LOOKED_AT = 16
"""Units of a corpus of few shards that are looked at for each one that is taken: all of most such corpora. So much is
read of it, and nothing decoded."""


def sample_works(
    corpus: Corpus, shards: Sequence[Shard], units: int, limits: UnitLimits, kept: Mapping[str, Kept]
) -> list[Work]:
    """At most `units` units, one piece of work each, spread evenly over the corpus: the first ones of shards, or where
    there are fewer of these, units from all over each. `todo` is empty. Depends on the corpus alone."""
    chosen = spread(shards, units)
    each = 1 if len(chosen) == units else -(-units * _LOOKED_AT // max(1, len(chosen)))

    def begin(shard: Shard) -> list[tuple[Shard, Unit]]:
        return [(shard, found.unit) for found in islice(corpus.read(shard, limits=limits), each)]

    found = [one for some in in_order(begin, chosen) for one in some]
    return [Work(shard, unit.start, unit.stop, (), *kept_of(unit, kept)) for shard, unit in spread(found, units)]
