"""Instances as text: boxes with class names or texts as 4M writes detections, and masks as 16 codes in each box."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..labelers.instances import InstanceSet, Mask
from ..labelers.kinds import Instances, Kind
from .codebook import supported_codes
from .kmeans import kmeans, nearest, sample_rows
from .state import config_file, model_file, read_config, read_model
from .text import Group, StructuredTokenizer
from .tokenizer import TokenSpec
from .vocabulary import COORDINATE_BINS, Coordinate

MASK_SIDE, PATCH_SIDE = 64, 16
MASK_TOKENS = (MASK_SIDE // PATCH_SIDE) ** 2
MASK_CODES = 1024
_HALF = MASK_CODES // 2
_SAMPLE = 131_072
_ITERATIONS = 10
_LAST = COORDINATE_BINS - 1


class InstancesParams(BaseModel):
    """max_length: the most tokens of one sample; instances past it are left out whole. frame: side of the masks that
    `decode` paints, in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_length: int = Field(256, ge=32)
    frame: int = Field(224, ge=1)


class InstancesTokenizer(StructuredTokenizer):
    """Per instance "v0=<x0> v1=<y0> v2=<x1> v3=<y1> <words>", by the distance of the top left corner to the origin.

    Coordinates are shares of the frame times 999, rounded; an empty set is "none" (ml-4m's spelling of detections).
    The words are the instance's text where the kind has texts, else its class name. A kind with masks puts "polygon"
    before the box and 16 mask codes behind it (v0=<code>, or v1=<code - 512> from 512 on), as 4M's sam_instance does:
    the mask, stretched to its box at 64 x 64 pixels, in 16 patches, each the nearest of at most 1,024 fitted patches.

    Loss: scores and attributes; the order; boxes to 1/999; case and accents; instances past `max_length`; class names
    where there are texts (`decode` says "text"); what the patches can't show, stated in config.json as `pixel_error`,
    the share of wrong pixels in the sample's 64 x 64 masks.
    """

    kinds = (Instances,)
    Params: ClassVar[type[BaseModel]] = InstancesParams
    kind: Instances

    def __init__(self, kind: Kind, params: BaseModel | None = None) -> None:
        super().__init__(kind, params)
        self.facts: dict[str, Any] = {}
        self._patches: np.ndarray | None = None

    @property
    def needs_fit(self) -> bool:
        return self.kind.masks and self._patches is None

    def fit(self, labels: Iterable[InstanceSet], seed: int) -> None:
        """The codes always include those for an empty and for a full patch, so a sample without masks will do."""
        if not self.kind.masks:
            return
        plain = np.repeat(np.array([[0.0], [1.0]], np.float32), PATCH_SIDE**2, axis=1)
        masks = (mask_patches(mask, box) for label in labels for mask, box in _masks_and_boxes(label))
        rows = sample_rows(masks, _SAMPLE, seed)
        wrong = np.zeros(0, bool)
        self._patches = plain
        if len(rows):
            codes = supported_codes(MASK_CODES - len(plain), len(rows))
            self._patches = np.concatenate([plain, kmeans(rows, codes, seed, _ITERATIONS).centroids])
            wrong = (self._patches[nearest(rows, self._patches)] >= 0.5) != (rows >= 0.5)
        error = float(wrong.mean()) if wrong.size else 0.0
        self.facts = {"codes": len(self._patches), "sample": len(rows), "loss": {"pixel_error": error}}

    @property
    def spec(self) -> TokenSpec:
        self._check_fitted()
        return super().spec

    def to_files(self) -> dict[str, bytes]:
        model = model_file({"patches": self._check_fitted()}) if self.kind.masks else {}
        return {**super().to_files(), **config_file(self, fit=self.facts), **model}

    @classmethod
    def from_files(cls, kind: Kind, files: Mapping[str, bytes]) -> InstancesTokenizer:
        tokenizer = cast(InstancesTokenizer, super().from_files(kind, files))
        tokenizer.facts = read_config(cls, kind, files)["fit"]
        if tokenizer.kind.masks:
            tokenizer._patches = read_model(files)["patches"]
        return tokenizer

    def groups(self, label: InstanceSet) -> list[Group]:
        if len(label) == 0:
            return [["none"]]
        boxes = [box_coordinates(box) for box in label.boxes]
        order = sorted(range(len(label)), key=lambda place: boxes[place][0].value ** 2 + boxes[place][1].value ** 2)
        codes = self._mask_codes(label) if self.kind.masks else [[]] * len(label)
        words = label.texts if self.kind.texts and label.texts is not None else label.labels
        return [self._group(boxes[place], codes[place], words[place]) for place in order]

    def parse(self, ids: np.ndarray) -> tuple[InstanceSet, list[str]]:
        self._check_fitted()
        pieces, faults = self._read(ids), []
        starts = [at for at in range(len(pieces)) if _axes(pieces[at : at + 4]) == [0, 1, 2, 3]]
        bounds = [*starts, len(pieces)]
        opening = [self.vocabulary.word("polygon")] if self.kind.masks else []
        if pieces[: bounds[0]] != (opening if starts else [self.vocabulary.word("none")]):
            faults.append("the tokens begin neither with an instance nor are they `none`")
        found = [
            self._instance(pieces[start:stop], opening if stop < len(pieces) else [], faults)
            for start, stop in zip(starts, bounds[1:], strict=True)
        ]
        return self._label([instance for instance in found if instance is not None]), faults

    def _check_fitted(self) -> np.ndarray:
        """The fitted patches, float32 (codes, 256); none where the kind has no masks."""
        if self.needs_fit:
            raise RuntimeError("InstancesTokenizer isn't fitted to masks yet: call fit, or load it with from_files")
        return np.zeros((0, PATCH_SIDE**2), np.float32) if self._patches is None else self._patches

    def _group(self, box: list[Coordinate], codes: list[Coordinate], words: str) -> Group:
        fixed = [*(["polygon"] if self.kind.masks else []), *box, *codes]
        return [*fixed, *self.vocabulary.encode(words, self.max_length - len(fixed)).tolist()]

    def _mask_codes(self, label: InstanceSet) -> list[list[Coordinate]]:
        fitted = self._check_fitted()
        patches = np.concatenate([mask_patches(mask, box) for mask, box in _masks_and_boxes(label)])
        codes = nearest(patches, fitted).reshape(-1, MASK_TOKENS)
        return [[Coordinate(*divmod(int(code), _HALF)) for code in row] for row in codes]

    def _instance(
        self, pieces: list[int | Coordinate], next_opening: list[int], faults: list[str]
    ) -> tuple[list[int], list[int], str] | None:
        """Box, mask codes and words of one instance, whose tokens run to the next one's box."""
        box = [piece.value for piece in pieces[:4] if isinstance(piece, Coordinate)]
        if box[0] > box[2] or box[1] > box[3]:
            faults.append(f"the box {box} ends before it begins")
            return None
        length = MASK_TOKENS if self.kind.masks else 0
        codes, rest = pieces[4 : 4 + length], pieces[4 + length :]
        known = [code for code in map(_mask_code, codes) if 0 <= code < self.facts.get("codes", 0)]
        if len(known) < length:
            faults.append(f"the box {box} has {len(known)} mask codes, not {length}")
            return None
        if next_opening and rest[-1:] == next_opening:
            rest = rest[:-1]
        strays = sum(isinstance(piece, Coordinate) for piece in rest)
        if strays:
            faults.append(f"{strays} coordinates stand among the words of the box {box}")
        return box, known, self._words(rest, faults)

    def _label(self, found: list[tuple[list[int], list[int], str]]) -> InstanceSet:
        boxes = np.array([box for box, _, _ in found], np.float32).reshape(-1, 4) / np.float32(_LAST)
        words = [words for _, _, words in found]
        masks = None
        if self.kind.masks:
            fitted = self._check_fitted()
            masks = [paint_mask(fitted[codes], box, self.params.frame) for box, codes, _ in found]
        labels = ["text"] * len(found) if self.kind.texts else words
        return InstanceSet(boxes, labels, texts=words if self.kind.texts else None, masks=masks)


def box_coordinates(box: np.ndarray) -> list[Coordinate]:
    """The tokens of a box in shares of the frame: round(share * 999) on the axes 0..3."""
    values = np.rint(box.astype(np.float64) * _LAST).clip(0, _LAST).astype(int)
    return [Coordinate(axis, value) for axis, value in enumerate(values.tolist())]


def mask_patches(mask: Mask, box: Sequence[int]) -> np.ndarray:
    """The mask's part in its box (0..999), at 64 x 64 pixels in 16 patches: 0 or 1, float32 (16, 256)."""
    import cv2

    rows, columns = _pixels(box, mask.height, mask.width)
    part = mask.to_array()[rows, columns].astype(np.float32)
    shrinks = part.shape[0] >= MASK_SIDE and part.shape[1] >= MASK_SIDE
    stretched = cv2.resize(part, (MASK_SIDE, MASK_SIDE), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    blocks = (stretched >= 0.5).reshape(MASK_SIDE // PATCH_SIDE, PATCH_SIDE, MASK_SIDE // PATCH_SIDE, PATCH_SIDE)
    return blocks.transpose(0, 2, 1, 3).reshape(MASK_TOKENS, -1).astype(np.float32)


def paint_mask(patches: np.ndarray, box: Sequence[int], side: int) -> Mask:
    """The inverse: 16 patches, float32 (16, 256), stretched into the box (0..999) of a frame of side x side pixels."""
    import cv2

    blocks = patches.reshape(MASK_SIDE // PATCH_SIDE, MASK_SIDE // PATCH_SIDE, PATCH_SIDE, PATCH_SIDE)
    square = np.ascontiguousarray(blocks.transpose(0, 2, 1, 3)).reshape(MASK_SIDE, MASK_SIDE)
    frame = np.zeros((side, side), bool)
    rows, columns = _pixels(box, side, side)
    width, height = columns.stop - columns.start, rows.stop - rows.start
    frame[rows, columns] = cv2.resize(square, (width, height), interpolation=cv2.INTER_LINEAR) >= 0.5
    return Mask.from_array(frame)


def _pixels(box: Sequence[int], height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns of a box (0..999): at least one of each."""
    left, top, right, bottom = (
        round(side / _LAST * length) for side, length in zip(box, (width, height) * 2, strict=True)
    )
    top, left = min(top, height - 1), min(left, width - 1)
    return slice(top, max(bottom, top + 1)), slice(left, max(right, left + 1))


def _masks_and_boxes(label: InstanceSet) -> Iterator[tuple[Mask, list[int]]]:
    if label.masks is None and len(label):
        raise ValueError("the instances have no masks, which their kind promises")
    for mask, box in zip(label.masks or (), label.boxes, strict=True):
        yield mask, [coordinate.value for coordinate in box_coordinates(box)]


def _axes(pieces: Sequence[int | Coordinate]) -> list[int]:
    return [piece.axis for piece in pieces if isinstance(piece, Coordinate)]


def _mask_code(piece: int | Coordinate) -> int:
    """The mask code that a token says; -1 when it says none."""
    if not isinstance(piece, Coordinate) or piece.axis > 1 or piece.value >= _HALF:
        return -1
    return piece.axis * _HALF + piece.value
