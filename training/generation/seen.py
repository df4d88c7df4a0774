"""What is given of samples, as the state that generation begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ...tokenizers.contract.special_tokens import EOS
from ..data.masking import NOTHING
from ..model.config import ModalityConfig, ModelConfig
from .state import Known, State


def seen(config: ModelConfig, samples: Sequence[Mapping[str, np.ndarray]]) -> State:
    """samples: of each what is given, by modality; they may have different ones.

    - of an image its ids, int (places,); of a text its ids, int (k,), without [EOS], which is put behind them
    - pixels, uint8 (height, width, 3); embeddings, floats (k, width)

    Of a longer sequence than the model has positions the first are taken. Raises ValueError for a modality that the
    model doesn't take, and for arrays of another shape than it does.
    """
    inputs = {one.name: one for one in config.inputs}
    names = list(dict.fromkeys(name for sample in samples for name in sample))
    if foreign := [name for name in names if name not in inputs]:
        raise ValueError(f"the model has no {foreign[0]} among its inputs")
    known: dict[str, Known] = {}
    arrays: dict[str, torch.Tensor] = {}
    for name in names:
        modality, given = inputs[name], [sample.get(name) for sample in samples]
        known[name] = _known(modality, given)
        if modality.form in ("pixels", "embeddings"):
            arrays[name] = _array(modality, given)
    return State(len(samples), known, arrays)


def _known(modality: ModalityConfig, given: Sequence[np.ndarray | None]) -> Known:
    if modality.form == "text":
        ids = [[] if one is None else [*one.tolist(), EOS][: modality.length] for one in given]
        return Known.texts(ids)
    if modality.form == "embeddings":
        return Known.texts([[] if one is None else range(min(len(one), modality.length)) for one in given])
    known = Known.nothing(len(given), modality.length)
    for row, one in enumerate(given):
        if one is None:
            continue
        if modality.form == "grid" and one.shape != (modality.length,):
            raise ValueError(f"{modality.name}: {one.shape} tokens, and the model takes {modality.length}")
        known.ids[row] = NOTHING if modality.form == "pixels" else torch.from_numpy(one.astype(np.int64))
        known.used[row] = True
    return known


def _array(modality: ModalityConfig, given: Sequence[np.ndarray | None]) -> torch.Tensor:
    """Zeros where a sample has none, and behind the vectors that it has."""
    some = next(one for one in given if one is not None)
    longest = max(len(one) for one in given if one is not None)
    shape = some.shape if modality.form == "pixels" else (min(longest, modality.length), modality.width)
    made = np.zeros((len(given), *shape), some.dtype)
    for row, one in enumerate(given):
        if one is None:
            continue
        if one.shape[1:] != shape[1:]:
            raise ValueError(f"{modality.name}: an array of {one.shape}, and the model takes {shape}")
        made[row, : len(one)] = one[: shape[0]]
    return torch.from_numpy(made)
