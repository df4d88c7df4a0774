"""Exports as WebDataset: a tar for each unit, with all modalities of a row side by side.

photos/0001.json            {"key": "photos/0001", "view": 0}
photos/0001.rgb.npy         the ids of a modality, 1-d; not there where the sample lacks it
photos/0001%v1.json         further views are samples of their own
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping

from ...labelers.contract.codecs import to_npy
from .pieces import Format, Made, Piece, Source

_STEM = re.compile(r"(?:.*/|)[^.]+")
"""What WebDataset takes for the key of a member's sample."""


class WebDataset(Format):
    name = "webdataset"
    most_rows = 1  # a unit, whatever it holds

    def make(self, source: Source, piece: Piece) -> Made:
        members: dict[str, bytes] = {}
        rows = 0
        for unit in piece.units:
            for key, view, values in source.rows(unit):
                stem, rows = stem_of(key, view), rows + 1
                members[f"{stem}.json"] = json.dumps({"key": key, "view": view}).encode()
                members.update({f"{stem}.{name}.npy": to_npy(ids) for name, ids in values.items() if ids is not None})
        return Made({f"shard-{piece.number:05d}.tar": tar_of(members)}, rows)

    def count(self, files: Mapping[str, bytes]) -> int:
        rows = set()
        for data in files.values():
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
                rows.update(_STEM.match(name)[0] for name in tar.getnames())  # type: ignore[index] - each has one
        return len(rows)


def stem_of(key: str, view: int) -> str:
    """What names a row's members up to their first dot; no two rows have the same."""
    escaped = key.replace("%", "%25").replace(".", "%2E")
    return f"{escaped}%v{view}" if view else escaped


def tar_of(members: Mapping[str, bytes]) -> bytes:
    """A tar of these files: the same bytes for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()
