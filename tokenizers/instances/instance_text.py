"""The text of instances: boxes, names and mask codes as words of the vocabulary."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ...labelers.contract.instances import InstanceSet
from ...labelers.contract.kinds import Instances
from ..contract.grammar import END, Choice, Grammar, Part, sequence
from ..contract.special_tokens import COORDINATE_BINS, EOS
from ..contract.vocabulary import Coordinate, Vocabulary
from ..text.base import Group, StructuredTokenizer
from ..vq.input_contract import MASK_SIDE
from .mask_codes import MASK_TOKENS, code_coordinate, code_of, mask_square, paint_mask

_LAST = COORDINATE_BINS - 1
_NO_MASKS = np.zeros((0, MASK_SIDE, MASK_SIDE), np.uint8)


class InstancesParams(BaseModel):
    """max_length: the most tokens of one sample; instances past it are left out whole. frame: side of the masks that
    `decode` paints, in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_length: int = Field(default=256, ge=32)
    frame: int = Field(default=224, ge=1)


class InstancesText(StructuredTokenizer):
    """Per instance "v0=<x0> v1=<y0> v2=<x1> v3=<y1> <words>", by the distance of the top left corner to the origin.

    Coordinates are shares of the frame times 999, rounded; an empty set is "none" (ml-4m's spelling of detections).
    The words are the instance's text where the kind has texts, else its class name. A kind with masks puts "polygon"
    before the box and 16 mask codes behind it (v0=<code>, or v1=<code - 512> from 512 on), as 4M's sam_instance does:
    of the mask, stretched to its box at 64 x 64 pixels.

    Loss: scores and attributes; the order; boxes to 1/999; case and accents; instances past `max_length`; class names
    where there are texts (`decode` says "text"); what the codes can't show.
    """

    kinds = (Instances,)
    Params: ClassVar[type[BaseModel]] = InstancesParams
    kind: Instances

    @abstractmethod
    def _codes(self, squares: np.ndarray) -> np.ndarray:
        """int64 (n, 16) of masks, uint8 (n, 64, 64)."""

    @abstractmethod
    def _squares(self, codes: np.ndarray) -> np.ndarray:
        """The inverse: float32 (n, 64, 64), at 0.5 and above where the masks are."""

    @property
    @abstractmethod
    def _known_codes(self) -> int:
        """How many mask codes there are. Raises RuntimeError before the tokenizer is fitted."""

    def encode(self, labels: Sequence[InstanceSet]) -> list[np.ndarray]:
        if not self.kind.masks:
            return super().encode(labels)
        squares = [self._mask_squares(label) for label in labels]
        codes = self._codes(np.concatenate([*squares, _NO_MASKS]))
        parts = np.split(codes, np.cumsum([len(part) for part in squares])[:-1]) if len(labels) else []
        return [self._write(self._things(label, part.tolist())) for label, part in zip(labels, parts, strict=True)]

    def codes(self, label: InstanceSet) -> np.ndarray:
        """int64 (n, 16): the codes of each mask, in the label's order, also of instances past `max_length`."""
        return self._codes(self._mask_squares(label))

    def groups(self, label: InstanceSet) -> list[Group]:
        codes = self.codes(label).tolist() if self.kind.masks else [[]] * len(label)
        return self._things(label, codes)

    def grammar(self) -> Grammar:
        """`none`, or instances with a box, all of their mask codes, and words; a class name has at least one."""
        vocabulary, least = self.vocabulary, 0 if self.kind.texts else 1
        codes = [code_tokens(vocabulary, self._known_codes)] * MASK_TOKENS if self.kind.masks else []
        begin = Choice(vocabulary.coordinates(0, 0, COORDINATE_BINS), 3 + least)
        if self.kind.masks:
            begin = Choice.of([vocabulary.word("polygon")], 4 + MASK_TOKENS + least)
        token = yield [Choice.of([vocabulary.word("none")]), begin]
        if token not in begin.ids:
            token = yield [END]
        while token != EOS:
            after = len(codes) + least
            yield from box_grammar(vocabulary, after, None if self.kind.masks else token)
            yield from sequence(*codes, after=least)
            token = yield from self.said_words(begin, END, least=least)

    def parse(self, ids: np.ndarray) -> tuple[InstanceSet, list[str]]:
        known, faults = self._known_codes, list[str]()
        pieces = self._read(ids)
        starts = [at for at in range(len(pieces)) if _axes(pieces[at : at + 4]) == [0, 1, 2, 3]]
        bounds = [*starts, len(pieces)]
        opening = [self.vocabulary.word("polygon")] if self.kind.masks else []
        if pieces[: bounds[0]] != (opening if starts else [self.vocabulary.word("none")]):
            faults.append("the tokens begin neither with an instance nor are they `none`")
        found = [
            self._instance(pieces[start:stop], opening if stop < len(pieces) else [], known, faults)
            for start, stop in zip(starts, bounds[1:], strict=True)
        ]
        return self._label([instance for instance in found if instance is not None]), faults

    def _mask_squares(self, label: InstanceSet) -> np.ndarray:
        """uint8 (n, 64, 64): each mask in its box."""
        if label.masks is None and len(label):
            raise ValueError("the instances have no masks, which their kind promises")
        boxes = ([coordinate.value for coordinate in box_coordinates(box)] for box in label.boxes)
        squares = [mask_square(mask, box) for mask, box in zip(label.masks or (), boxes, strict=True)]
        return np.stack([*squares]) if squares else _NO_MASKS

    def _things(self, label: InstanceSet, codes: Sequence[Sequence[int]]) -> list[Group]:
        """codes: of each mask; none where the kind has no masks."""
        if len(label) == 0:
            return [["none"]]
        boxes = [box_coordinates(box) for box in label.boxes]
        order = sorted(range(len(label)), key=lambda place: boxes[place][0].value ** 2 + boxes[place][1].value ** 2)
        words = label.texts if self.kind.texts and label.texts is not None else label.labels
        return [self._thing(boxes[place], codes[place], words[place]) for place in order]

    def _thing(self, box: list[Coordinate], codes: Sequence[int], words: str) -> Group:
        fixed = [*(["polygon"] if self.kind.masks else []), *box, *map(code_coordinate, codes)]
        return [*fixed, *self.vocabulary.encode(words, self.max_length - len(fixed)).tolist()]

    def _instance(
        self, pieces: list[int | Coordinate], next_opening: list[int], known: int, faults: list[str]
    ) -> tuple[list[int], list[int], str] | None:
        """Box, mask codes and words of one instance, whose tokens run to the next one's box."""
        box = [piece.value for piece in pieces[:4] if isinstance(piece, Coordinate)]
        if box[0] > box[2] or box[1] > box[3]:
            faults.append(f"the box {box} ends before it begins")
            return None
        length = MASK_TOKENS if self.kind.masks else 0
        codes, rest = [code_of(piece) for piece in pieces[4 : 4 + length]], pieces[4 + length :]
        whole = [code for code in codes if 0 <= code < known]
        if len(whole) < length:
            faults.append(f"the box {box} has {len(whole)} mask codes, not {length}")
            return None
        if next_opening and rest[-1:] == next_opening:
            rest = rest[:-1]
        strays = sum(isinstance(piece, Coordinate) for piece in rest)
        if strays:
            faults.append(f"{strays} coordinates stand among the words of the box {box}")
        return box, codes, self._words(rest, faults)

    def _label(self, found: list[tuple[list[int], list[int], str]]) -> InstanceSet:
        boxes = np.array([box for box, _, _ in found], np.float32).reshape(-1, 4) / np.float32(_LAST)
        words = [words for _, _, words in found]
        masks = None
        if self.kind.masks:
            squares = self._squares(np.array([codes for _, codes, _ in found], np.int64).reshape(-1, MASK_TOKENS))
            frame = self.params.frame
            masks = [paint_mask(square, box, frame) for square, (box, _, _) in zip(squares, found, strict=True)]
        labels = ["text"] * len(found) if self.kind.texts else words
        return InstanceSet(boxes, labels, texts=words if self.kind.texts else None, masks=masks)


def box_coordinates(box: np.ndarray) -> list[Coordinate]:
    """The tokens of a box in shares of the frame: round(share * 999) on the axes 0..3."""
    values = np.rint(box.astype(np.float64) * _LAST).clip(0, _LAST).astype(int)
    return [Coordinate(axis, value) for axis, value in enumerate(values.tolist())]


def box_grammar(vocabulary: Vocabulary, after: int, first: int | None = None) -> Part:
    """The four tokens of a box that ends where it begins or behind that. after: tokens that have to follow it. first:
    the first of the four, where it is said already."""
    begun = [] if first is None else [first]
    while len(begun) < 4:
        place = len(begun)
        least = (vocabulary.coordinate_of(begun[place - 2]) or (0, 0))[1] if place >= 2 else 0
        begun.append((yield [Choice(vocabulary.coordinates(place, least, COORDINATE_BINS), 3 - place + after)]))
    return begun[3]


def code_tokens(vocabulary: Vocabulary, known: int) -> np.ndarray:
    """int64 (k,): the tokens of the codes 0 up to `known`, of masks and poses."""
    return np.array([vocabulary.coordinate(*code_coordinate(code)) for code in range(known)], np.int64)


def _axes(pieces: Sequence[int | Coordinate]) -> list[int]:
    return [piece.axis for piece in pieces if isinstance(piece, Coordinate)]
