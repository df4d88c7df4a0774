"""The fitting sample: units from all over the corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..corpus.corpus import Corpus, Shard, UnitLimits
from ..corpus.units import Unit, spread
from ..storage.read_ahead import in_order
from .worklist import Kept, Work, kept_of

_LOOKED_AT = 4096
"""Samples that are looked at for each unit that is taken, where a shard gives several: all of most shards. So much is
read, and nothing decoded."""


def sample_works(
    corpus: Corpus, shards: Sequence[Shard], units: int, limits: UnitLimits, kept: Mapping[str, Kept]
) -> list[Work]:
    """At most `units` units, one piece of work each, spread evenly over the corpus: over its bytes the shards that they
    are of, and over all units of such a shard where it gives several. `todo` is empty. Depends on the corpus alone."""
    few = len(shards) <= units
    wanted = Counter({shard.id: units for shard in shards}) if few else _shares(shards, units)
    together = len(shards) if few else 1

    def look(shard: Shard) -> list[tuple[Shard, Unit]]:
        count = wanted[shard.id]
        samples = 1 if count == 1 else count * _LOOKED_AT // together
        return [(shard, unit) for unit in spread(list(_first(corpus, shard, limits, samples)), None if few else count)]

    found = [one for some in in_order(look, [shard for shard in shards if wanted[shard.id]]) for one in some]
    others = spread([shard for shard in shards if not wanted[shard.id]], max(0, units - len(found)))
    wanted.update(shard.id for shard in others)  # a large shard may have few units
    found += [one for some in in_order(look, others) for one in some]
    places = {shard.id: place for place, shard in enumerate(shards)}
    found.sort(key=lambda one: places[one[0].id])
    return [Work(shard, unit.start, unit.stop, (), *kept_of(unit, kept)) for shard, unit in spread(found, units)]


def _shares(shards: Sequence[Shard], units: int) -> Counter[str]:
    """How many units are taken of each shard, by its id: as many as evenly spread places in all bytes lie there."""
    ends = np.cumsum([shard.size + 1 for shard in shards])
    places = np.searchsorted(ends, (np.arange(units) + 0.5) / units * ends[-1], side="right")
    return Counter(shards[place].id for place in places)


def _first(corpus: Corpus, shard: Shard, limits: UnitLimits, samples: int) -> Iterator[Unit]:
    """The units of a shard until they hold so many samples."""
    count = 0
    for found in corpus.read(shard, limits=limits):
        yield found.unit
        count += found.unit.count
        if count >= samples:
            return
