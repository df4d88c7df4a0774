"""The output, looked at from a machine: what may be done there, and what time it is."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..dataset.layout import DOCTORS
from ..storage.store import Store
from .finding import Finding, failed, failed_by, ok, warning

OUTPUT = "output"

_OLD = 3600.0
"""Seconds after which a mark is nobody's: no doctor takes so long."""
_LATE, _TOO_LATE = 5.0, 300.0
"""Seconds by which a clock may differ."""


@dataclass(frozen=True)
class Mark:
    """An object in the output by which its other visitors know the place."""

    name: str
    content: bytes


def new_mark() -> Mark:
    return Mark(f"{DOCTORS}{secrets.token_hex(8)}", secrets.token_bytes(8))


def sweep(output: Store) -> list[Finding]:
    """Deletes the marks of doctors that were killed, or could delete nothing."""
    swept = 0
    with suppress(OSError):  # whether one may do so is `look_at_output`'s to tell
        for entry in output.list(recursive=False):
            if entry.name.startswith(DOCTORS) and time.time() - entry.modified > _OLD:
                output.delete(entry.name)
                swept += 1
    return [ok(OUTPUT, f"{output.url}: what earlier doctors had left there is deleted ({swept})")] if swept else []


@contextmanager
def marked(output: Store) -> Iterator[Mark | None]:
    """A mark lies in the output while the block runs; None where none can be made, or deleted again. A folder that
    wasn't there isn't there afterwards, either."""
    mark = new_mark()
    made = _lacking(output)
    try:
        try:
            output.delete(mark.name)
            output.create(mark.name, mark.content)
        except OSError:
            yield None
            return
        yield mark
    finally:
        with suppress(OSError):
            output.delete(mark.name)
        _remove(made)


def left_behind(output: Store, mark: Mark | None) -> list[Finding]:
    """What is to be said of a mark that couldn't be deleted."""
    with suppress(OSError):
        if mark is None or not output.exists(mark.name):
            return []
    return [failed(OUTPUT, f"{output.url}: {_left(mark.name)}", _DELETE)] if mark else []


_DELETE = f"Delete it; the next `tokenloom doctor` that may delete does so, {_OLD / 3600:g} hour later"


def _left(name: str) -> str:
    return f"{name} is left there"


def _lacking(store: Store) -> list[Path]:
    """The folders that would have to be made first, the deepest first."""
    if not store.is_local:
        return []
    path = Path(store.address)
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
    probe = new_mark()
    name, first = probe.name, probe.content
    created = False
    try:
        output.list(recursive=False)
        if mark and not (output.exists(mark.name) and output.read(mark.name) == mark.content):
            said = f"{output.url}: isn't the place that it is on the machine where this was started"
            return [failed(OUTPUT, said, "Give a URL of object storage and one endpoint, or a folder that all mount")]
        output.delete(name)  # it isn't there: who may not delete is told so before there is anything to be left
        began = time.time()
        created = output.create(name, first)
        ended = time.time()
        if output.create(name, secrets.token_bytes(8)) or output.read(name) != first:
            found = failed(
                OUTPUT,
                f"{output.url}: an object that was there was overwritten, which was to be created if absent",
                "A store is needed that knows If-None-Match (S3, Ceph, MinIO, R2), or a disk",
            )
            return [_without(output, name, found)]
        modified = output.stat(name).modified
        output.delete(name)
        if output.exists(name):
            return [failed(OUTPUT, f"{output.url}: an object that was deleted is still there: {name}")]
    except OSError as error:
        found = failed_by(OUTPUT, error)
        return [_without(output, name, found) if created else found]
    done = "may be listed, and objects created, not overwritten, read and deleted"
    findings = [ok(OUTPUT, f"{output.url}: {done}")]
    if modified:
        findings.append(clock(skew(modified, began, ended), OUTPUT, "the output's"))
    return findings


def _without(output: Store, name: str, found: Finding) -> Finding:
    """The finding, once the probe is deleted; which says so where it can't be."""
    try:
        output.delete(name)
    except OSError:
        return replace(found, said=f"{found.said}; {_left(name)}", way_out=f"{found.way_out}. {_DELETE}".lstrip(". "))
    return found


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
