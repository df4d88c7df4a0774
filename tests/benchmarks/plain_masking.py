"""Masking sample by sample, with lists and torch's tensors, as ml-4m does it.

Written anew after what its masking.py (`UnifiedMasking`) and its model's forward pass do to one sample: budgets from
torch's Dirichlet distributions, the rest of them by further draws; for each modality a tensor of ids with an input
mask, a target mask and a decoder attention mask, of images by a random permutation, of texts by lists of spans that
are drawn again until they fit, padded to twice the longest text. Then all modalities are joined one behind the other,
sorted by their masks, and as many are kept as the budgets allow.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.distributions import Dirichlet
from training_sets import GRIDS, TEXTS

PAD, EOS, FIRST_SENTINEL, FIRST_CHUNK = 0, 3, 4, 1204
IGNORED = -100
TRIES = 100


@dataclass(frozen=True)
class Alphas:
    """One scheme: alphas by modality, and what share of a text stays."""

    inputs: Dirichlet
    targets: Dirichlet
    keep: Mapping[str, str]

    @classmethod
    def of(
        cls, names: Sequence[str], inputs: Mapping[str, float], targets: Mapping[str, float], keep: Mapping[str, str]
    ) -> Alphas:
        sides = [torch.tensor([max(side.get(name, 0.0), 1e-9) for name in names]) for side in (inputs, targets)]
        return cls(Dirichlet(sides[0]), Dirichlet(sides[1]), keep)


Tensors = dict[str, torch.Tensor]


class PlainMasking:
    """masked: a sample's tensors, by modality. selected: those of them that the budgets let through, side by side."""

    def __init__(self, names: Sequence[str], schemes: Sequence[Alphas], weights: Sequence[float], budget: int) -> None:
        self._names, self._schemes, self._budget = names, schemes, budget
        self._weights = torch.tensor(weights)
        self._most = torch.tensor([GRIDS[name] if name in GRIDS else TEXTS[name] + 1 for name in names])
        self._is_grid = torch.tensor([name in GRIDS for name in names])

    def masked(self, sample: Mapping[str, np.ndarray]) -> dict[str, Tensors]:
        scheme = self._schemes[int(torch.multinomial(self._weights, 1).item())]
        inputs = self._share_out(scheme.inputs, self._most)
        targets = self._share_out(
            scheme.targets, torch.where(self._is_grid, self._most - torch.tensor(inputs), self._most)
        )
        made = {}
        for name, seen, said in zip(self._names, inputs, targets, strict=True):
            if name in GRIDS:
                made[name] = mask_image(torch.from_numpy(sample[name].astype(np.int64)), seen, said)
                continue
            ids = [*sample[name].tolist(), EOS]
            chunks = in_chunks(ids) if name == "metadata" else [[one] for one in ids]
            made[name] = mask_text(chunks, TEXTS[name] + 1, scheme.keep.get(name, "random"), seen, said)
        return made

    def selected(self, masked: Mapping[str, Tensors]) -> Tensors:
        """ids, modality and position of the input, and the same and labels of the target, (budget,) each."""
        found = {}
        for side in ("input", "target"):
            ids, modality, position, mask, labels = [], [], [], [], []
            for place, (name, tensors) in enumerate(masked.items()):
                own = tensors[f"{side}_mask"]
                ids.append(tensors["tensor"])
                modality.append(torch.full_like(tensors["tensor"], place))
                at = torch.arange(len(own)) if name in GRIDS else ((~own).cumsum(0) - 1).clamp(min=0)
                position.append(at)
                mask.append(own)
                if side == "target":
                    labels.append(tensors["tensor"] if name in GRIDS else following(tensors["tensor"], own))
            joined = torch.cat(mask)
            order = torch.argsort(joined.to(torch.uint8), stable=True)[: self._budget]
            used = ~joined[order]
            found[f"{side}_used"] = used
            parts = {"ids": ids, "modality": modality, "position": position} | ({"labels": labels} if labels else {})
            for what, several in parts.items():
                found[f"{side}_{what}"] = torch.cat(several)[order].masked_fill(~used, IGNORED)
        return found

    def _share_out(self, alphas: Dirichlet, most: torch.Tensor) -> list[int]:
        counts = (alphas.sample() * self._budget).floor().int()
        left = int(self._budget - counts.sum())
        counts += torch.bincount(alphas.sample((left,)).argmax(dim=-1), minlength=len(counts))
        return torch.minimum(counts, most).tolist()


def mask_image(ids: torch.Tensor, inputs: int, targets: int) -> Tensors:
    length = len(ids)
    shuffled = torch.argsort(torch.rand(length))
    input_mask, target_mask = torch.ones(length, dtype=torch.bool), torch.ones(length, dtype=torch.bool)
    input_mask[shuffled[:inputs]] = False
    target_mask[shuffled[inputs : inputs + targets]] = False
    attention = torch.zeros(length, dtype=torch.int)
    if targets:
        attention[torch.argmin(target_mask + torch.arange(length) * 1e-6)] = targets
    return {"tensor": ids, "input_mask": input_mask, "target_mask": target_mask, "decoder_attention_mask": attention}


def mask_text(chunks: Sequence[Sequence[int]], longest: int, keep: str, inputs: int, targets: int) -> Tensors:
    share = {"all": 1.0, "binary": float(random.random() < 0.5)}.get(keep, random.random()) if inputs else 0.0
    while True:
        shown, hidden, number = spans(chunks, share)
        if len(shown) <= inputs or not inputs:
            break
        share *= 0.9
    if not inputs:
        shown = []
    if len(hidden) > targets:
        hidden = cut(hidden, number, targets)
    size = 2 * (longest + 1)
    tensor = torch.full((size,), PAD, dtype=torch.int)
    input_mask, target_mask = torch.ones(size, dtype=torch.bool), torch.ones(size, dtype=torch.bool)
    attention = torch.zeros(size, dtype=torch.int)
    tensor[: len(shown)] = torch.tensor(shown, dtype=torch.int)
    input_mask[: len(shown)] = False
    tensor[inputs : inputs + len(hidden)] = torch.tensor(hidden, dtype=torch.int)
    target_mask[inputs : inputs + len(hidden)] = False
    attention[inputs : inputs + len(hidden)] = 1
    return {"tensor": tensor, "input_mask": input_mask, "target_mask": target_mask, "decoder_attention_mask": attention}


def spans(chunks: Sequence[Sequence[int]], share: float) -> tuple[list[int], list[int], int]:
    """Input, target, and how many sentinels the target has."""
    shown, hidden, number, before = [], [], 0, True
    for chunk, drawn in zip(chunks, np.random.rand(len(chunks)), strict=True):
        kept = drawn < share
        if kept:
            shown.extend(chunk)
        else:
            if before:
                number += 1
                shown.append(FIRST_SENTINEL + number)
                hidden.append(FIRST_SENTINEL + number)
            hidden.extend(chunk)
        before = kept
    hidden.append(FIRST_SENTINEL + number + 1)
    return shown, hidden, number + 1


def cut(hidden: list[int], sentinels: int, budget: int) -> list[int]:
    """A part of a target that is too long, from a sentinel on."""
    if not budget:
        return []
    starts = [at for at, token in enumerate(hidden) if FIRST_SENTINEL < token <= FIRST_SENTINEL + sentinels]
    start = random.choice(starts[:-1] or starts)
    if len(hidden) - start < budget:
        start = next(at for at in starts if len(hidden) - at <= budget)
    return hidden[start : start + budget]


def in_chunks(ids: Sequence[int]) -> list[list[int]]:
    """Pairs of a record, each of which begins with v1=."""
    chunks: list[list[int]] = []
    for token in ids:
        if not chunks or FIRST_CHUNK <= token < FIRST_CHUNK + 1000 or token == EOS:
            chunks.append([])
        chunks[-1].append(token)
    return chunks


def following(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The token behind each that is used, IGNORED behind the last."""
    labels = torch.full_like(ids, IGNORED)
    (at,) = torch.nonzero(~mask, as_tuple=True)
    labels[at[:-1]] = ids[at[1:]]
    return labels
