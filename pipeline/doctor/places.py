"""The corpus and the output, looked at from a machine: what may be done there, and what time it is."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..corpus.corpus import Corpus, CorpusError, CorpusSettings, Shard
from ..corpus.samples import UnitLimits
from ..storage.store import Store
from .finding import Finding, failed, failed_by, ok, warning

CORPUS, SAMPLE, OUTPUT = "corpus", "sample", "output"

_PROBE = ".tokenloom-doctor-"
"""How the names of objects begin that are written to learn whether they may be. Nobody takes a dot for a dataset's."""
_LATE, _TOO_LATE = 5.0, 300.0
"""Seconds by which a clock may differ."""


def look_at_corpus(settings: CorpusSettings) -> tuple[list[Finding], Shard | None]:
    """Lists it, as a run does; and the shard whose first sample nodes are to read."""
    try:
        shards = Corpus(settings).shards()
    except (CorpusError, OSError) as error:
        return [failed_by(CORPUS, error)], None
    size = sum(shard.size for shard in shards)
    count = f"{len(shards):,} shard" + "s" * (len(shards) != 1)
    return [ok(CORPUS, f"listed: {count}, {size / 2**20:,.1f} MiB")], shards[0] if shards else None


def look_at_sample(settings: CorpusSettings, shard: Shard) -> Finding:
    """Reads the shard's beginning, until there is a sample."""
    try:
        for unit in Corpus(settings).read(shard, limits=UnitLimits(samples=1)):
            if unit.samples:
                return ok(SAMPLE, f"{unit.samples[0].key}, the first of {shard.url}, was read")
    except (CorpusError, OSError) as error:
        return failed_by(SAMPLE, error)
    return failed(SAMPLE, f"{shard.url}: holds no usable sample", "`tokenloom run` says what is refused of it, and why")


@dataclass(frozen=True)
class Mark:
    """An object in the output by which its other visitors know the place."""

    name: str
    content: bytes


@contextmanager
def marked(output: Store) -> Iterator[Mark | None]:
    """A mark lies in the output while the block runs; None where none can be made. A folder that wasn't there isn't
    there afterwards, either."""
    mark = Mark(f"{_PROBE}{secrets.token_hex(8)}", secrets.token_bytes(8))
    made = _lacking(output)
    try:
        try:
            output.create(mark.name, mark.content)
        except OSError:
            yield None
            return
        yield mark
    finally:
        with suppress(OSError):
            output.delete(mark.name)
        _remove(made)


def _lacking(store: Store) -> list[Path]:
    """The folders that would have to be made first, the deepest first."""
    if not store.is_local:
        return []
    path = Path(store.url)
    return [one for one in (path, *path.parents) if not one.exists()]


def _remove(folders: list[Path]) -> None:
    """Those that are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def look_at_output(output: Store, mark: Mark | None = None) -> list[Finding]:
    """Does all that a run does there, on an object of its own, which is deleted again; and compares the store's clock
    with this machine's. mark: which has to be there."""
    made = [] if mark else _lacking(output)
    try:
        return _tried(output, mark)
    finally:
        _remove(made)


def _tried(output: Store, mark: Mark | None) -> list[Finding]:
    name, first = f"{_PROBE}{secrets.token_hex(8)}", secrets.token_bytes(8)
    created = False
    try:
        output.list(recursive=False)
        if mark and not (output.exists(mark.name) and output.read(mark.name) == mark.content):
            said = f"{output.url}: isn't the place that it is on the machine where this was started"
            return [failed(OUTPUT, said, "Give a URL of object storage and one endpoint, or a folder that all mount")]
        began = time.time()
        created = output.create(name, first)
        ended = time.time()
        if output.create(name, secrets.token_bytes(8)) or output.read(name) != first:
            return [
                failed(
                    OUTPUT,
                    f"{output.url}: an object that was there was overwritten, which was to be created if absent",
                    "A store is needed that knows If-None-Match (S3, Ceph, MinIO, R2), or a disk",
                )
            ]
        modified = output.stat(name).modified
        output.delete(name)
        created = False
        if output.exists(name):
            return [failed(OUTPUT, f"{output.url}: an object that was deleted is still there")]
    except OSError as error:
        return [failed_by(OUTPUT, error)]
    finally:
        if created:
            with suppress(OSError):
                output.delete(name)
    done = "may be listed, and objects created, not overwritten, read and deleted"
    findings = [ok(OUTPUT, f"{output.url}: {done}")]
    if modified:
        findings.append(clock(skew(modified, began, ended), OUTPUT, "the output's"))
    return findings


def skew(theirs: float, began: float, ended: float) -> float:
    """Seconds by which this machine's clock is ahead, at least, of one that said `theirs` between two times here.
    Theirs may have been cut to whole seconds. 0 where they may agree."""
    if began > theirs + 1:
        return began - theirs - 1
    return min(0.0, ended - theirs)


def clock(ahead: float, by: str, whose: str) -> Finding:
    """ahead: seconds. by: the check by which that was found. whose: clock this one was compared with."""
    check = f"clock ({by})"
    side = "ahead of" if ahead > 0 else "behind"
    said = f"{abs(ahead):.0f} s {side} {whose}" if abs(ahead) >= 1 else f"agrees with {whose}"
    way_out = "Set the clock, by NTP: S3 refuses requests from 15 minutes on, and certificates and tokens fail before"
    if abs(ahead) >= _TOO_LATE:
        return failed(check, said, way_out, -abs(ahead))
    if abs(ahead) >= _LATE:
        return warning(check, said, way_out, -abs(ahead))
    return ok(check, said, -abs(ahead))
