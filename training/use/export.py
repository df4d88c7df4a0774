"""Exports: a dataset in the formats of other trainers, piece by piece, through the engine.

    export.json         what is exported, and how; it is written first
    receipts/           one for each piece that is there: it was read back, and these are its checksums
    ...                 the format's own files

A piece is a pure function of the dataset. So an export that was killed goes on with the pieces that have no receipt:
what a kill left of one is either the same bytes, or not there. Pieces that have one are looked at in every call, and
those whose files are gone or of another size are made anew; nothing else is overwritten.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...pipeline.checks.status import estimate_total
from ...pipeline.corpus.unit_sets import UnitSet
from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.manifest import Manifest, require_manifest, stale, ways_on
from ...pipeline.dataset.reader import DatasetReader
from ...pipeline.engine.tasks import run_tasks
from ...pipeline.storage.store import Store
from .pieces import ExportError, Format, Piece, Receipt, Source, cut_pieces
from .standing import read_receipts, receipt_path, standing

PLAN = "export.json"
_MOST_TEXT = 256 * 2**20
"""Bytes of a piece's texts."""


@dataclass(frozen=True)
class Exported:
    """What lies in the output. made: pieces that this call made. damaged: what was wrong with files that it made anew,
    by path. verified: whether it read the others, too. left_out, told: rows, by reason. refused: why modalities aren't
    exported, by name. notes: on how to read it."""

    pieces: int
    made: int
    damaged: dict[str, str]
    verified: bool
    files: int
    bytes: int
    rows: int
    left_out: dict[str, int]
    told: dict[str, int]
    modalities: tuple[str, ...]
    refused: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class PieceWriter:
    """Makes a piece, writes it, reads it back and writes its receipt. May be pickled."""

    source: Source
    target: Store
    format: Format

    def write(self, piece: Piece) -> dict[str, Any]:
        made = self.format.make(self.source, piece)
        found = {path: self._written(path, data) for path, data in made.files.items()}
        rows = self.format.count(found)
        if rows != made.rows:
            raise ExportError(f"{self.target.url}/{next(iter(found))}: {rows} rows were read back, not {made.rows}")
        self.target.create(receipt_path(piece.number), Receipt.of(made).to_bytes())
        return {"number": piece.number}

    def _written(self, path: str, data: bytes) -> bytes:
        """The file as it is read back."""
        self.target.create(path, data)
        found = self.target.read(path)
        if found != data:
            raise ExportError(f"{self.target.url}/{path}: it isn't what was exported: delete it and run this again")
        return found


def export(
    dataset: Store,
    target: Store,
    format: Format,
    modalities: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, of: None,
    verify: bool = False,
) -> Exported:
    """Makes what the output lacks of the dataset in that format.

    modalities: by default all that the format takes. verify: reads all files that are there, which is else done where
    they are made. progress: told how many pieces are there, and of how many.
    Raises ExportError and DatasetError for what can't be exported as it is, EngineError and StorageError where it can't
    go on; what has a receipt by then isn't made again.
    """
    _refuse_within(dataset, target)
    manifest = require_manifest(dataset)
    reader = DatasetReader(dataset, manifest)
    chosen = reader.chosen(list(modalities) or None)
    refused = {name: why for name in chosen if (why := format.refuses(name, manifest.modalities[name]))}
    names = tuple(name for name in manifest.modalities if name in chosen and name not in refused)
    if refused and (modalities or not names):
        name = next(iter(refused))
        way = "; or leave it out" if names else ""
        raise ExportError(f"{dataset.url}: {name} can't be exported to {format.name}: {refused[name]}{way}")
    units = _finished_units(dataset.url, manifest, reader, names)
    source = Source(reader.columns, manifest, names)
    format.check(source)
    pieces = cut_pieces(units, format.most_rows // reader.views, _most_units(manifest))
    if not pieces:
        raise ExportError(f"{dataset.url}: there is nothing to export: no unit of it has a sample")
    _begin(target, _plan(source, format, units, len(pieces)))
    stands = standing(target, pieces, verify)
    todo = [piece for piece in pieces if piece.number not in stands.receipts]
    format.prepare(source, todo)
    progress(len(pieces) - len(todo), len(pieces))
    if todo:
        paths = [store.address for store in (dataset, target) if store.is_local]
        done = run_tasks(PieceWriter(source, target, format).write, todo, paths)
        for number, _ in enumerate(done, len(pieces) - len(todo) + 1):
            progress(number, len(pieces))
    made = read_receipts(target, [piece.number for piece in todo])
    receipts = [receipt for _, receipt in sorted({**stands.receipts, **made}.items())]
    for path, data in format.closing(source, receipts).items():
        target.replace(path, data)
    target.remove_stale_temporaries()
    return Exported(
        pieces=len(pieces),
        made=len(todo),
        damaged=stands.damaged,
        verified=verify,
        files=sum(len(one.files) for one in receipts),
        bytes=sum(one.bytes for one in receipts),
        rows=sum(one.rows for one in receipts),
        left_out=dict(sum((Counter(one.left_out) for one in receipts), Counter())),
        told=dict(sum((Counter(one.told) for one in receipts), Counter())),
        modalities=names,
        refused=refused,
        notes=format.notes(source, len(pieces)),
    )


def _refuse_within(dataset: Store, target: Store) -> None:
    if f"{target.url}/".startswith(f"{dataset.url}/"):
        raise ExportError(
            f"{target.url}: the output would be foreign to the dataset that it lies in: name another folder"
        )


def _finished_units(url: str, manifest: Manifest, reader: DatasetReader, names: Sequence[str]) -> list[Unit]:
    """The dataset's units, if these modalities are complete. Raises ExportError."""
    alone = "export those that are complete alone, by --modality"
    pending = [name for name in names if name in manifest.pending]
    if pending:
        raise ExportError(f"{url}: {pending[0]} is being made anew: {ways_on(pending)}; or {alone}")
    for name, reasons in stale(manifest).items():
        if name in names:
            raise ExportError(f"{url}: {name} is stale: {reasons[0]}. Run its recipe with --replace {name}, or {alone}")
    units = UnitSet.union(reader.finished.values())
    complete, _ = estimate_total(units, manifest.corpus.shards)
    if complete < manifest.corpus.shards:
        raise ExportError(
            f"{url}: it isn't finished, {complete} of {manifest.corpus.shards} shards of the corpus are complete: run "
            f"its recipe again, and export it then"
        )
    for name in names:
        if reader.finished[name] != units:
            raise ExportError(
                f"{url}: {name} isn't finished, it has {len(reader.finished[name])} of {len(units)} units: run its "
                f"recipe again, or {alone}"
            )
    return sorted(units)


def _most_units(manifest: Manifest) -> int:
    """Of a piece, which is held in memory: texts may be of any length, and their units bound their bytes alone."""
    has_texts = manifest.corpus.reading.get("text") is not None
    return max(1, _MOST_TEXT // manifest.units["bytes"]) if has_texts else sys.maxsize


def _plan(source: Source, format: Format, units: Sequence[Unit], pieces: int) -> dict[str, Any]:
    reader = source.reader
    names = [[unit.name, *(reader.revision(unit, name) for name in source.modalities)] for unit in units]
    return {
        "format": "tokenloom export",
        "to": format.name,
        "dataset": reader.store.url,
        "modalities": [[name, reader.cards[name].generation] for name in source.modalities],  # their order counts
        "views": source.views,
        "units": hashlib.sha256(json.dumps(names).encode()).hexdigest(),
        "pieces": pieces,
        **format.settings(source),
    }


def _begin(target: Store, plan: Mapping[str, Any]) -> None:
    """Writes down what the output is to be. Raises ExportError where it is something else."""
    if not target.exists(PLAN):
        there = target.children()
        if there:
            raise ExportError(f"{target.url}: it holds something else already ({there[0]}): name another folder")
        target.create(PLAN, (json.dumps(plan, indent=2) + "\n").encode())
    try:
        found = json.loads(target.read(PLAN))
        known = {**found, "dataset": plan["dataset"]}  # which may have been moved
    except (ValueError, TypeError):
        raise ExportError(f"{target.url}/{PLAN}: it isn't an export's: name another folder") from None
    differing = [name for name in {**known, **plan} if known.get(name) != plan.get(name)]
    if differing:
        raise ExportError(
            f"{target.url}: it holds another export, whose {', '.join(differing)} differ from what is asked for: name "
            f"another folder"
        )
