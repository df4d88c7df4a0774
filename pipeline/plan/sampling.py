"""Samples of a corpus, from all over it: that to which tokenizers are fitted, and the few that `plan` tries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..corpus.corpus import Corpus, Rejection, Sample, Shard, UnitLimits
from ..corpus.left_out import Account
from ..corpus.units import Unit, spread
from ..storage.read_ahead import in_order
from .worklist import Kept, Work, kept_of

_LOOKED_AT = 4096
"""Samples that are looked at for each unit that is taken, where a shard gives several: all of most shards. So much is
read, and nothing decoded."""

_PLACES = 8
"""Places at which `plan` looks, unless there is too little at them: each may cost requests."""


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


@dataclass
class Tried:
    """Samples that are tried before a run. works: that which each of them is of. refused: those that the reader
    refused, and parts of shards that can't be read. left_out: what isn't taken. shards: the ids of those that they are
    from."""

    samples: list[Sample] = field(default_factory=list)
    works: list[Work] = field(default_factory=list)
    refused: list[Rejection] = field(default_factory=list)
    left_out: Account = field(default_factory=Account)
    shards: set[str] = field(default_factory=set)

    @property
    def count(self) -> int:
        """Of samples, with those that were refused."""
        return len(self.samples) + sum(not one.is_of_shard for one in self.refused)


def try_samples(corpus: Corpus, works: Sequence[Work], count: int) -> Tried:
    """At most `count` samples of the works, spread over them, and over each folder's images."""
    tried = Tried()
    cuts = -(-_PLACES // len(works))
    pieces = works if cuts == 1 else [piece for work in works for piece in _pieces(corpus, work, cuts)]
    first = spread(range(len(pieces)), min(_PLACES, count))
    for turn, index in enumerate(dict.fromkeys([*first, *spread(range(len(pieces)), count)])):
        share = -(-(count - tried.count) // max(1, len(first) - turn))
        if share <= 0:
            break
        piece = pieces[index]
        unit = next(corpus.read(piece.shard, piece.start, piece.stop, UnitLimits(samples=share)))
        tried.samples += unit.samples
        tried.works += [piece] * len(unit.samples)
        tried.refused += [one for one in unit.rejected if not one.is_note]
        tried.left_out.include(unit.left_out)
        tried.shards.add(piece.shard.id)
    return tried


def _pieces(corpus: Corpus, work: Work, count: int) -> list[Work]:
    """The work in at most `count` pieces."""
    begins = corpus.begins(work.shard, work.start, work.stop, count)
    return [replace(work, start=start, stop=stop) for start, stop in zip(begins, [*begins[1:], work.stop], strict=True)]
