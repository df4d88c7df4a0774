"""Exports for Hugging Face: Parquet with features, and a dataset card; `datasets.load_dataset(OUT)` reads it.

README.md                            the card, with the features and where the files lie
data/train-00000-of-00012.parquet    key, view, and a list of ids for each modality, null where the sample lacks it
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...pipeline.dataset.cards import ModalityCard
from .dataset_card import dataset_card
from .pieces import Format, Made, Piece, Receipt, Source, read_parquet

_ZSTD_LEVEL = 3
_ROWS_OF_A_GROUP = 1024


class HuggingFace(Format):
    name = "hf"
    most_rows = 8192

    def make(self, source: Source, piece: Piece) -> Made:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.concat_tables([source.reader.joined(unit, source.modalities) for unit in piece.units])
        told = json.dumps({"info": {"features": features(source)}})
        table = table.replace_schema_metadata({"huggingface": told})
        buffer = io.BytesIO()
        pq.write_table(
            table, buffer, compression="zstd", compression_level=_ZSTD_LEVEL, row_group_size=_ROWS_OF_A_GROUP
        )
        path = f"data/train-{piece.number:05d}-of-{piece.count:05d}.parquet"
        return Made({path: buffer.getvalue()}, table.num_rows)

    def count(self, files: Mapping[str, bytes]) -> int:
        return sum(read_parquet(data).num_rows for data in files.values())

    def closing(self, source: Source, receipts: Sequence[Receipt]) -> dict[str, bytes]:
        return {"README.md": dataset_card(source, features(source), receipts)}


def features(source: Source) -> dict[str, Any]:
    """What `datasets` calls the features of the columns, in its own words. Sequence, which became List, is read by its
    older versions, too."""
    lists = {name: _list(card) for name, card in source.cards.items()}
    return {"key": _value("string"), "view": _value("uint8"), **lists}


def _list(card: ModalityCard) -> dict[str, Any]:
    assert card.tokens is not None
    assert card.tokens.spec is not None
    spec = card.tokens.spec
    length = {} if spec.length is None else {"length": spec.length}
    return {"feature": _value(str(spec.dtype)), **length, "_type": "Sequence"}


def _value(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "_type": "Value"}
