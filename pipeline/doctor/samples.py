"""The corpus, looked at from a machine: some samples of some of its shards, read and decoded as a run does it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from ...labelers.contract.images import BadImage, decode_image
from ..corpus.corpus import Corpus, CorpusError, CorpusSettings, Shard
from ..corpus.listing import Choice
from ..corpus.samples import Sample, UnitLimits
from ..corpus.units import spread
from .finding import Finding, failed, failed_by, ok, warning

CORPUS, SAMPLES = "corpus", "samples"

_URLS = 4
"""Listed URLs of which shards are read; three of each, so a dozen in all."""
_LIMITS = UnitLimits(samples=4, bytes=16 * 2**20)
"""What is read of a shard's beginning."""
_SECONDS = 30.0
"""After which no further shard is begun."""


def look_at_corpus(settings: CorpusSettings) -> tuple[list[Finding], tuple[Shard, ...]]:
    """Lists it, as a run does; and the shards whose first samples are to be read."""
    try:
        shards = Corpus(settings).shards()
    except (CorpusError, OSError) as error:
        return [failed_by(CORPUS, error)], ()
    size = sum(shard.size for shard in shards)
    count = f"{len(shards):,} shard" + "s" * (len(shards) != 1)
    return [ok(CORPUS, f"listed: {count}, {size / 2**20:,.1f} MiB")], tuple(chosen(shards, settings))


def chosen(shards: Sequence[Shard], settings: CorpusSettings) -> list[Shard]:
    """The first, the last and one between of what each URL stands for, of at most four URLs."""
    found, reach = dict[str, Shard](), Corpus(settings).reach
    for url in spread(settings.urls, _URLS):
        choice = Choice([url], reach)
        own = [one for one in shards if choice.meets(f"{one.root}/{one.path}".rstrip("/"))]
        found |= {one.id: one for one in (own[:1] + own[len(own) // 2 : len(own) // 2 + 1] + own[-1:])}
    return list(found.values())


def look_at_samples(settings: CorpusSettings, shards: Sequence[Shard], decode: bool, most: float) -> Finding:
    """Reads the first samples of the shards. decode: whether the recipe looks at images; most: the share that may
    fail in a run. A shard without samples is none that failed, as long as others hold some."""
    good, bad, looked, began = 0, list[str](), 0, time.monotonic()
    for shard in shards:
        if looked and time.monotonic() - began > _SECONDS:
            break
        try:
            for problem in _problems(settings, shard, decode):
                good += problem is None
                bad += [problem] if problem else []
        except (CorpusError, OSError) as error:
            return failed_by(SAMPLES, error)
        looked += 1
    where = f"{looked} shards" if looked > 1 else shards[0].url
    if not good and not bad:
        said = f"{where}: there are no samples at the beginning"
        return warning(SAMPLES, said, "`tokenloom run` says what is left out of it, and why")
    if not bad:
        return ok(SAMPLES, f"{_count(good)} of {where} read" + " and decoded" * decode)
    said = f"of {_count(good + len(bad))} of {where} {len(bad)} can't be used: {bad[0]}"
    way_out = "Mend them, or leave them out of `corpus.url`"
    if not good:
        return failed(SAMPLES, said, way_out)
    if len(bad) > most * (good + len(bad)):  # of these; what a run judges is the whole
        return warning(
            SAMPLES, f"{said}; where that is so of the whole, a run stops (max_failures = {most:g})", way_out
        )
    return warning(SAMPLES, said, "A run goes on without them, and `tokenloom quarantine` names them")


def _count(samples: int) -> str:
    return f"{samples} sample" + "s" * (samples != 1)


def _problems(settings: CorpusSettings, shard: Shard, decode: bool) -> Iterator[str | None]:
    """Why each of a shard's first samples can't be used; None for one that can."""
    unit = next(Corpus(settings).read(shard, limits=_LIMITS))
    for sample in unit.samples:
        why = _undecodable(sample) if decode else None
        yield f"{sample.key} of {shard.url}: {why}" if why else None
    for one in unit.rejected:
        if not one.is_note:
            yield f"{one.key} of {shard.url}: {one.reason}" if one.key else f"{shard.url}: {one.reason}"


def _undecodable(sample: Sample) -> str | None:
    try:
        decode_image(sample.image or b"")
    except BadImage as error:
        return str(error)
    return None
