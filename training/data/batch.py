"""A batch: samples as a model takes them, in the form that was made, and in that of ml-4m's own model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from .masking import NOTHING, Form, Masked


@dataclass(frozen=True)
class Batch:
    """n samples of m modalities, cut to their budgets.

    positions: int64 (n,), in the run's order. modalities: m names, in whose order `Masked.modality` counts. inputs,
    targets: what the model sees and what it is to say, (n, most input tokens) and (n, most target tokens); see Masked.
    skipped: bool (n, m), what a sample lacks since it couldn't be read, as `broken: skip` has it.

    forms, most: of each modality, how it is masked, and as many tokens as one sample can have. arrays: what is seen and
    isn't tokens, by modality; a sample that lacks it has zeros there, and no input that points to them:

    - of pixels uint8 (n, size, size, 3), RGB; `inputs.position` counts patches, row by row;
    - of embeddings float16 (n, most, dim); where `inputs.ids` isn't NOTHING, it is the vector's place.
    """

    positions: np.ndarray
    modalities: tuple[str, ...]
    inputs: Masked
    targets: Masked
    skipped: np.ndarray
    forms: tuple[Form, ...] = ()
    most: tuple[int, ...] = ()
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def rows(self, chosen: slice) -> Batch:
        """Those of some samples."""
        sides = self.inputs.rows(chosen), self.targets.rows(chosen)
        arrays = {name: array[chosen] for name, array in self.arrays.items()}
        own = {"positions": self.positions[chosen], "skipped": self.skipped[chosen], "arrays": arrays}
        return replace(self, inputs=sides[0], targets=sides[1], **own)

    def by_modality(self) -> dict[str, ModalityTensors]:
        """What ml-4m's model takes of each modality, under ml-4m's names."""
        return {name: self._tensors(place) for place, name in enumerate(self.modalities)}

    def _tensors(self, place: int) -> ModalityTensors:
        form, most, array = self.forms[place], self.most[place], self.arrays.get(self.modalities[place])
        if form == "text":
            return self._text(place, most)
        if form == "embeddings":
            return self._embeddings(place, most, array)
        seen, said = (self._where(side, place) for side in (self.inputs, self.targets))
        made = ModalityTensors.empty(len(self.positions), most)
        for side, (row, column), mask in ((self.inputs, seen, made.input_mask), (self.targets, said, made.target_mask)):
            mask[row, side.position[row, column]] = False
        if form == "pixels":
            return made if array is None else ModalityTensors(array, *made.masks)
        assert self.targets.labels is not None
        made.tensor[seen[0], self.inputs.position[seen]] = self.inputs.ids[seen]
        made.tensor[said[0], self.targets.position[said]] = self.targets.labels[said]
        counts = (~made.target_mask).sum(axis=1)
        rows = np.flatnonzero(counts)
        made.decoder_attention_mask[rows, (~made.target_mask[rows]).argmax(axis=1)] = counts[rows]
        return made

    def _text(self, place: int, most: int) -> ModalityTensors:
        """The input from the left, the target behind it."""
        made = ModalityTensors.empty(len(self.positions), 2 * (most + 1))
        seen, said = (self._where(side, place) for side in (self.inputs, self.targets))
        shown = np.bincount(seen[0], minlength=len(self.positions))
        at, behind = self.inputs.position[seen], self.targets.position[said] + shown[said[0]]
        made.tensor[seen[0], at], made.input_mask[seen[0], at] = self.inputs.ids[seen], False
        made.tensor[said[0], behind], made.target_mask[said[0], behind] = self.targets.ids[said], False
        made.decoder_attention_mask[said[0], behind] = 1
        return made

    def _embeddings(self, place: int, most: int, array: np.ndarray | None) -> ModalityTensors:
        """The vectors that are seen, a zero vector for each span that isn't."""
        made = ModalityTensors.empty(len(self.positions), most)
        row, column = self._where(self.inputs, place)
        at, ids = self.inputs.position[row, column], self.inputs.ids[row, column]
        made.input_mask[row, at] = False
        tensor = np.zeros((*made.tensor.shape, 0 if array is None else array.shape[2]), np.float32)
        if array is not None:
            known = ids != NOTHING
            tensor[row[known], at[known]] = array[row[known], ids[known]]
        return ModalityTensors(tensor, *made.masks)

    @staticmethod
    def _where(side: Masked, place: int) -> tuple[np.ndarray, np.ndarray]:
        row, column = np.nonzero(side.modality == place)
        return row, column


@dataclass(frozen=True)
class ModalityTensors:
    """One modality as ml-4m's model takes it: `UnifiedMasking`'s four tensors, as arrays of n samples.

    tensor: of grids int64 (n, tokens), whose ids are there where a mask says so, else 0; of texts int64 (n,
    2 * (most + 1)), the input and behind it the target, padded with 0; of pixels uint8 (n, size, size, 3), which
    ml-4m wants as normalised float32 (n, 3, size, size); of embeddings float32 (n, most, dim). input_mask, target_mask:
    bool (n, tokens), true where there is nothing. decoder_attention_mask: int32 (n, tokens), of a grid the number of
    its targets at the first of them, of a text 1 at each.
    """

    tensor: np.ndarray
    input_mask: np.ndarray
    target_mask: np.ndarray
    decoder_attention_mask: np.ndarray

    @classmethod
    def empty(cls, count: int, tokens: int) -> ModalityTensors:
        shape = (count, tokens)
        return cls(np.zeros(shape, np.int64), np.ones(shape, bool), np.ones(shape, bool), np.zeros(shape, np.int32))

    @property
    def masks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.input_mask, self.target_mask, self.decoder_attention_mask
