"""Samples of batches as a person would look at them: kept patches over the picture, spans in the text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ...labelers.contract.kinds import Kind
from ...pipeline.dataset.tokenizers import load_tokenizer
from ...pipeline.preview.cells import VIEW, Pictures, readable
from ...pipeline.views.content import ContentReader
from ...pipeline.views.view_pixels import Seen, ViewFinder
from ...tokenizers.contract.tokenizer import Tokenizer
from ...tokenizers.text.base import VocabularyTokenizer
from ..data.batch import Batch
from ..data.masking import NOTHING, Masked
from ..data.mixture import PATCH
from ..data.opening import OpenData, OpenDataset
from ..data.ride_along import PIXELS

Json: TypeAlias = "dict[str, Any]"

_FADED = np.array([226, 224, 219], np.float32)
_LEFT = 0.1
"""How much is left of a picture where it is masked."""

_LONGEST_PIECE = 60


@dataclass(frozen=True)
class _Source:
    """A dataset with what showing it needs."""

    opened: OpenDataset
    tokenizers: Mapping[str, Tokenizer]
    finder: ViewFinder
    contents: ContentReader


class SampleMaker:
    """Makes a card for a sample: a dict with its dataset, key, view, position, picture, and a cell for each modality.

    A cell has `input` and `target`, each None where the sample gives none to that side, else {"count": tokens} with
    one of {"picture": path}, {"pieces": [texts]} and {"ids": [an id, or null where another place is kept]}. Of
    embeddings these are the places of the vectors, null for a span that is masked, "of" what there is in all.
    """

    def __init__(self, data: OpenData, pictures: Pictures) -> None:
        self._data, self._pictures = data, pictures
        self._sources = [_source(one) for one in data.datasets]

    def card(self, batch: Batch, row: int, number: int) -> Json:
        """Of one row of a batch. number: of the card."""
        ((place_of_source, places),) = self._data.mixture.places(batch.positions[row : row + 1])
        source = self._sources[place_of_source]
        unit, sample, view = (int(one[0]) for one in (places.unit, places.row, places.view))
        opened = source.opened
        found = opened.units[unit]
        keys = source.contents.keys(found)
        seen = source.finder.find(found, keys, [sample], source.contents)[sample, view]
        cells = {}
        for index, name in enumerate(batch.modalities):
            sides = [_of(side, row, index) for side in (batch.inputs, batch.targets)]
            if any(len(positions) for _, positions in sides):
                place = found, sample, view
                cells[name] = (
                    self._without_tokens(source, name, place, batch.arrays[name][row], sides, number)
                    if name in batch.arrays
                    else self._cell(source, name, place, seen, sides, number)
                )
        return {
            "dataset": opened.mixed.name,
            "key": readable(keys[sample], 500),
            "view": view,
            "position": int(batch.positions[row]),
            "image": self._pictures.add(seen.pixels, number, VIEW) if seen.origin else None,
            "text": opened.manifest.corpus.reading.get("text") is not None,
            "cells": cells,
        }

    def _cell(
        self,
        source: _Source,
        name: str,
        place: tuple[Any, int, int],
        seen: Seen,
        sides: Sequence[tuple[np.ndarray, np.ndarray]],
        number: int,
    ) -> Json:
        tokenizer = source.tokenizers[name]
        if tokenizer.spec.type == "text":
            shown = [_pieces(tokenizer, ids) for ids, _ in sides]
        else:
            unit, sample, view = place
            all_ids = source.opened.mixed.reader.columns.tokens(unit, name).value(sample, view)
            picture = _picture(tokenizer, source.opened.manifest.modalities[name].label_kind, all_ids, seen.pixels)
            shown = [
                self._patches(picture, tokenizer.spec.grid, positions, (number, f"{name}-{side}"))
                if picture is not None and tokenizer.spec.grid
                else {"ids": [int(one) if at in positions else None for at, one in enumerate(all_ids)]}
                for side, (_, positions) in zip(("input", "target"), sides, strict=True)
            ]
        told = [
            {"count": len(positions), **one} if len(positions) else None
            for one, (_, positions) in zip(shown, sides, strict=True)
        ]
        return dict(zip(("input", "target"), told, strict=True))

    def _without_tokens(
        self,
        source: _Source,
        name: str,
        place: tuple[Any, int, int],
        array: np.ndarray,
        sides: Sequence[tuple[np.ndarray, np.ndarray]],
        number: int,
    ) -> Json:
        """The cell of pixels, or of embeddings, which are inputs alone. array: as of `Batch.arrays`."""
        ids, positions = sides[0]
        if name == PIXELS:
            side = len(array) // PATCH
            shown = self._patches(array, (side, side), positions, (number, f"{name}-input"))
        else:
            unit, sample, view = place
            reader = source.opened.mixed.reader
            value = reader.columns.labels(unit, name).value(sample, view)
            length, dim = reader.cards[name].label_kind.decode(value).shape
            shown = {
                "ids": [None if one == NOTHING else int(one) for one in ids],
                "of": f"{length:,} vectors of {dim:,} numbers",
            }
        return {"input": {"count": len(positions), **shown}, "target": None}

    def _patches(
        self, picture: np.ndarray, grid: tuple[int, int], positions: np.ndarray, file: tuple[int, str]
    ) -> Json:
        return {"picture": self._pictures.add(kept_patches(picture, grid, positions), *file)} if len(positions) else {}


def kept_patches(picture: np.ndarray, grid: tuple[int, int], positions: np.ndarray) -> np.ndarray:
    """The picture, uint8 (height, width, 3), faded where none of the grid's (rows, columns) positions is kept."""
    kept = np.zeros(grid[0] * grid[1], bool)
    kept[positions] = True
    height, width = picture.shape[:2]
    rows, columns = np.arange(height) * grid[0] // height, np.arange(width) * grid[1] // width
    shown = kept.reshape(grid)[rows][:, columns, None]
    return np.where(shown, picture, picture * _LEFT + _FADED * (1 - _LEFT)).astype(np.uint8)


def _of(side: Masked, row: int, modality: int) -> tuple[np.ndarray, np.ndarray]:
    """The ids and positions of one modality in one sample."""
    here = side.modality[row] == modality
    return side.ids[row][here], side.position[row][here]


def _pieces(tokenizer: Tokenizer, ids: np.ndarray) -> Json:
    assert isinstance(tokenizer, VocabularyTokenizer)
    return {"pieces": [readable(tokenizer.vocabulary.token(int(one)), _LONGEST_PIECE) for one in ids]}


def _picture(tokenizer: Tokenizer, kind: Kind, ids: np.ndarray, pixels: np.ndarray) -> np.ndarray | None:
    """What the sample's tokens decode to, as a picture; None where that isn't one, or can't be had."""
    shown = _try(lambda: kind.show(tokenizer.decode([ids])[0], pixels))
    return shown if isinstance(shown, np.ndarray) else None


def _try(make: Callable[[], Any]) -> Any:
    """What `make` returns, or None: tokenizers and kinds may be a plugin's, and raise anything."""
    try:
        return make()
    except Exception:
        return None


def _source(opened: OpenDataset) -> _Source:
    reader, manifest = opened.mixed.reader, opened.manifest
    cards = {name: manifest.modalities[name] for name in opened.mixed.tokenised}
    tokenizers = {name: load_tokenizer(reader.store, name, card) for name, card in cards.items()}
    contents = ContentReader(reader.store, manifest, reader.listed)
    return _Source(opened, tokenizers, ViewFinder(manifest, tokenizers), contents)
