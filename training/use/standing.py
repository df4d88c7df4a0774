"""What of an export stands: the pieces that have receipts, and whose files are as these say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...pipeline.storage.read_ahead import in_order
from ...pipeline.storage.store import Store
from .pieces import Piece, Receipt, Written

RECEIPTS = "receipts"


@dataclass(frozen=True)
class Standing:
    """receipts: of the pieces that stand, by number. damaged: of the others that have one, what is wrong, by path."""

    receipts: dict[int, Receipt]
    damaged: dict[str, str]


def receipt_path(number: int) -> str:
    return f"{RECEIPTS}/{number:05d}.json"


def standing(target: Store, pieces: Sequence[Piece], verify: bool) -> Standing:
    """By a listing of names and sizes; verify: by the SHA-256 of all files, too. What is wrong is deleted with its
    receipt, so that it can be made anew."""
    sizes = {entry.name: entry.size for entry in target.list()}
    found = read_receipts(target, [one.number for one in pieces if receipt_path(one.number) in sizes])
    files = {path: one for receipt in found.values() for path, one in receipt.files.items()}
    wrong = dict(_wrong_sizes(files, sizes))
    if verify:
        wrong |= _wrong_sums(target, {path: one for path, one in files.items() if path not in wrong})
    broken = [number for number, receipt in found.items() if not wrong.keys().isdisjoint(receipt.files)]
    for number in broken:
        target.delete(receipt_path(number))  # first: a kill from here on leaves a piece without one
    for path in wrong:
        target.delete(path)
    return Standing({number: one for number, one in found.items() if number not in broken}, wrong)


def read_receipts(target: Store, numbers: Sequence[int]) -> dict[int, Receipt]:
    """Those of these pieces. Raises ExportError for one that is none."""
    paths = [receipt_path(number) for number in numbers]
    found = zip(numbers, paths, in_order(target.read, paths), strict=True)
    return {number: Receipt.from_bytes(data, f"{target.url}/{path}") for number, path, data in found}


def _wrong_sizes(files: Mapping[str, Written], sizes: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    for path, one in files.items():
        if path not in sizes:
            yield path, "it was gone"
        elif sizes[path] != one.size:
            yield path, f"it had {sizes[path]:,} bytes, not {one.size:,}"


def _wrong_sums(target: Store, files: Mapping[str, Written]) -> dict[str, str]:
    sums = in_order(lambda path: hashlib.sha256(target.read(path)).hexdigest(), files)
    return {
        path: "its bytes had another SHA-256"
        for (path, one), found in zip(files.items(), sums, strict=True)
        if found != one.sha256
    }
