"""Samples of a corpus, from all over it: that to which tokenizers are fitted, and the few that `plan` tries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from ..corpus.corpus import Corpus, Rejection, Sample, Shard, UnitLimits
from ..corpus.left_out import Account
from ..corpus.units import Unit, spread
from ..storage.read_ahead import in_order
from .worklist import Kept, Work, kept_of

_LOOKED_AT = 16
"""Units of a corpus of few shards that are looked at for each one that is taken: all of most such corpora. So much is
read of it, and nothing decoded."""

_PLACES = 8
"""Places at which `plan` looks, unless there is too little at them: each may cost requests."""


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


@dataclass
class Tried:
    """Samples that are tried before a run. refused: those that the reader refused, and parts of shards that can't be
    read. left_out: what isn't taken. shards: the ids of those that they are from."""

    samples: list[Sample] = field(default_factory=list)
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
    pieces = [piece for work in works for piece in _pieces(corpus, work, -(-_PLACES // len(works)))]
    first = spread(range(len(pieces)), min(_PLACES, count))
    for turn, index in enumerate(dict.fromkeys([*first, *spread(range(len(pieces)), count)])):
        share = -(-(count - tried.count) // max(1, len(first) - turn))
        if share <= 0:
            break
        piece = pieces[index]
        unit = next(corpus.read(piece.shard, piece.start, piece.stop, UnitLimits(samples=share)))
        tried.samples += unit.samples
        tried.refused += [one for one in unit.rejected if not one.is_note]
        tried.left_out.include(unit.left_out)
        tried.shards.add(piece.shard.id)
    return tried


def _pieces(corpus: Corpus, work: Work, count: int) -> list[Work]:
    """The work in at most `count` pieces."""
    if count == 1:
        return [work]
    begins = corpus.begins(work.shard, work.start, work.stop, count)
    return [replace(work, start=start, stop=stop) for start, stop in zip(begins, [*begins[1:], work.stop], strict=True)]
