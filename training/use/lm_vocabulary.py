"""One vocabulary for all modalities of a dataset, in the manner of Unified-IO and Chameleon.

0 is padding, 1 ends a document; then two markers for each modality, which begin and end it; then blocks of ids: one for
each text vocabulary, which its modalities share, and one for each other modality. A token is its own id plus the offset
of its modality's block.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...pipeline.commands.console import counted
from ...pipeline.dataset.cards import ModalityCard
from .pieces import ExportError

PAD, END_OF_DOCUMENT = 0, 1
_FIRST_MARKER = 2
_NO_ID = 2**63
"""From here on nothing holds it as an id."""

_CUT = (
    "a document longer than a sequence goes on in the next rows: its ids are those of its parts, one behind the other, "
    "each of `lengths`; `starts` says where in its document a part begins, 0 but for one that goes on"
)

_LEAST_INT32 = 65_500
"""Of a vocabulary: from here on Megatron holds ids as int32 (its DType.optimal_dtype)."""


@dataclass(frozen=True)
class Place:
    """Where a modality is in the vocabulary. begin, end: its markers. offset: of its block of `size` ids. length: of
    tokens, where all labels have as many."""

    begin: int
    end: int
    offset: int
    size: int
    length: int | None


@dataclass(frozen=True)
class Segment:
    """One modality in a sequence. document: the how many-th it is in. ids: the modality's own, int64 (length,).
    problem: why they are no label's, "" where they may be. modality: "" for ids outside of any, as they stand."""

    document: int
    modality: str
    ids: np.ndarray
    problem: str = ""


@dataclass(frozen=True)
class LmVocabulary:
    """places: by modality. size: of the vocabulary. dataset: where the tokenizers lie; generations: of its tokens."""

    places: dict[str, Place]
    size: int
    dataset: str
    generations: dict[str, str]

    @classmethod
    def of(cls, url: str, cards: Mapping[str, ModalityCard]) -> LmVocabulary:
        """cards: of modalities with tokens; their order decides about that of the blocks."""
        blocks: dict[str, tuple[int, int]] = {}  # offset and size
        at = _FIRST_MARKER + 2 * len(cards)
        for name, card in sorted(cards.items(), key=lambda item: _text_vocabulary(item[1]) is None):
            block = _text_vocabulary(card) or name
            if block not in blocks:
                blocks[block] = (at, _size(card))
                at += _size(card)
        places = {}
        for number, (name, card) in enumerate(cards.items()):
            begin = _FIRST_MARKER + 2 * number
            assert card.tokens is not None
            assert card.tokens.spec is not None
            places[name] = Place(begin, begin + 1, *blocks[_text_vocabulary(card) or name], card.tokens.spec.length)
        return cls(places, at, url, {name: card.tokens_generation for name, card in cards.items()})

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint16 if self.size < _LEAST_INT32 else np.int32)

    def to_bytes(self) -> bytes:
        special = {"pad": PAD, "end_of_document": END_OF_DOCUMENT}
        told = {"special": special, "dtype": str(self.dtype), **asdict(self), "sequences": _CUT}
        return (json.dumps(told, indent=2) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> LmVocabulary:
        """Raises ExportError for anything but what `to_bytes` gave."""
        try:
            raw: dict[str, Any] = json.loads(data)
            places = {name: Place(**place) for name, place in raw["places"].items()}
            return cls(places, raw["size"], raw["dataset"], raw["generations"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExportError(f"{source}: it isn't the vocabulary of an export ({error!r})") from None

    def document(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Modalities with their tokens, in that order, between their markers, and the document's end behind them."""
        parts = []
        for name, ids in values.items():
            place = self.places[name]
            parts += [[place.begin], ids.astype(np.int64) + place.offset, [place.end]]
        return np.concatenate([*parts, [END_OF_DOCUMENT]]).astype(self.dtype)

    def parse(self, ids: Sequence[int] | np.ndarray) -> list[Segment]:
        """The modalities in a sequence, which a model may have made: whatever ids these are, none is passed over but
        padding. Raises ExportError for a number that no id can be."""
        numbers = [int(index) for index in ids]
        wrong = next((index for index in numbers if not 0 <= index < _NO_ID), None)
        if wrong is not None:
            raise ExportError(f"{wrong} is no id: the vocabulary has {self.size}, from 0 on")
        return list(self._segments(numbers))

    def _segments(self, ids: Sequence[int]) -> Iterator[Segment]:
        begins = {place.begin: name for name, place in self.places.items()}
        controls = {PAD, END_OF_DOCUMENT, *begins}
        document = at = 0
        while at < len(ids):
            name = begins.get(ids[at], "")
            start = at = at + bool(name)
            stops = controls | {self.places[name].end} if name else controls
            while at < len(ids) and ids[at] not in stops:
                at += 1
            if name:
                ended = at < len(ids) and ids[at] == self.places[name].end
                yield self._segment(document, name, ids[start:at], ended)
                at += ended
            elif at > start:
                yield Segment(document, "", np.array(ids[start:at]), "it stands in no modality")
            if at < len(ids) and ids[at] in (PAD, END_OF_DOCUMENT):
                document += ids[at] == END_OF_DOCUMENT
                at += 1

    def _segment(self, document: int, name: str, ids: Sequence[int], ended: bool) -> Segment:
        place = self.places[name]
        own = np.array(ids, dtype=np.int64) - place.offset
        foreign = [index for index, one in zip(ids, own, strict=True) if not 0 <= one < place.size]
        problem = ""
        if foreign:
            problem = f"{foreign[0]} is no id of it: those are {place.offset} to {place.offset + place.size - 1}"
        elif not ended:
            problem = f"its end marker, {place.end}, is missing"
        elif place.length not in (None, len(own)):
            problem = f"it has {counted(len(own), 'token')}, and not {place.length}"
        return Segment(document, name, own, problem)


def _text_vocabulary(card: ModalityCard) -> str | None:
    """The digest of the text vocabulary that the tokens are ids of; no modality's name is one."""
    assert card.tokens is not None
    return card.tokens.vocabulary.digest if card.tokens.vocabulary else None


def _size(card: ModalityCard) -> int:
    assert card.tokens is not None
    assert card.tokens.spec is not None
    return card.tokens.spec.vocabulary
