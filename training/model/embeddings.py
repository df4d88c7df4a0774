"""What a modality adds to a model: embeddings of what is seen, and of what is to be said, with the logits of that."""

from __future__ import annotations

import torch
from torch import nn

from ..data.masking import NOTHING
from ..data.mixture import PATCH
from .config import ModalityConfig

_TABLE = 512
"""Positions that the published checkpoints hold of a sequence, however long it is (ml-4m, encoder_embeddings.py)."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of pixels in [0, 1], by channel: ImageNet's."""


class _Embedding(nn.Module):
    """mod_emb: says which modality it is. pos_emb: says where, by learned vectors or by sines and cosines."""

    pos_emb: torch.Tensor

    def __init__(self, modality: ModalityConfig, dim: int) -> None:
        super().__init__()
        self.modality = modality
        self.mod_emb = nn.Parameter(torch.zeros(1, 1, dim))
        if modality.positions == "learned":
            self.pos_emb = nn.Parameter(torch.zeros(1, modality.length, dim))
        else:
            sequence = modality.positions == "sequence"
            places = max(_TABLE, modality.length) if sequence else modality.length
            self.register_buffer("pos_emb", torch.empty(1, places, dim))
            if not self.pos_emb.is_meta:
                self.fill_sines()

    def fill_sines(self) -> None:
        """Gives positions that aren't learned what they are."""
        if not isinstance(self.pos_emb, nn.Parameter):
            places, dim = self.pos_emb.shape[1:]
            self.pos_emb.copy_(sines(self.modality.grid, places, dim))

    def _place(self, position: torch.Tensor) -> torch.Tensor:
        """(k, dim), by positions (k,)."""
        if self.modality.positions == "sequence":
            position = torch.where(position < self.modality.length, position, 0)
        return self.pos_emb[0, position] + self.mod_emb[0]


class InputEmbedding(_Embedding):
    def __init__(self, modality: ModalityConfig, dim: int) -> None:
        super().__init__(modality, dim)
        if modality.form == "pixels":
            self.proj = nn.Linear(3 * PATCH**2, dim, bias=False)
        elif modality.form == "embeddings":
            self.emb_proj = nn.Linear(modality.width, dim)
        else:
            self.token_emb = nn.Embedding(modality.vocabulary, dim)

    def forward(
        self, ids: torch.Tensor, position: torch.Tensor, row: torch.Tensor, array: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of k tokens what they are and where they are, (k, dim) each.

        ids, position, row: int64 (k,), of Tokens; row of the array, which pixels and embeddings need: uint8 (n, size,
        size, 3), or floats that are normalised already; floats (n, most, width).
        """
        return self._content(ids, position, row, array), self._place(position)

    def _content(
        self, ids: torch.Tensor, position: torch.Tensor, row: torch.Tensor, array: torch.Tensor | None
    ) -> torch.Tensor:
        if self.modality.form in ("grid", "text"):
            return self.token_emb(ids)
        if array is None:  # a batch in which nobody sees any
            array = torch.zeros(self._nothing, device=ids.device)
        if self.modality.form == "pixels":
            return self.proj(patches(array, row, position).to(self.proj.weight.dtype))
        vectors = array[row, ids.clamp(min=0)].to(self.emb_proj.weight.dtype)
        return self.emb_proj(vectors * (ids != NOTHING)[:, None])

    @property
    def _nothing(self) -> tuple[int, ...]:
        """The shape of an array of no samples."""
        if self.modality.grid is None:
            return 0, 1, self.modality.width
        rows, columns = self.modality.grid
        return 0, PATCH * rows, PATCH * columns, 3


class TargetEmbedding(_Embedding):
    """token_emb: what a text's tokens are, once they are said; of images it is stored beside the logits, unused."""

    def __init__(self, modality: ModalityConfig, dim: int) -> None:
        super().__init__(modality, dim)
        self.token_emb = nn.Embedding(modality.vocabulary, dim)
        self.to_logits = nn.Linear(dim, modality.vocabulary, bias=False)

    def forward(
        self, ids: torch.Tensor, position: torch.Tensor, mask_token: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As of InputEmbedding. mask_token: (1, 1, dim), what stands for a token of an image that is to be said."""
        what = self.token_emb(ids) if self.modality.form == "text" else mask_token[0].expand(len(ids), -1)
        return what, self._place(position)


def patches(pixels: torch.Tensor, row: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """(k, 3 * PATCH^2): patches of samples, flattened as (row, column, channel) and normalised where they are uint8.

    pixels: (n, height, width, 3). row, position: int64 (k,), of the sample, and of the patch in it, row by row.
    """
    across = pixels.shape[2] // PATCH
    tiles = pixels.unflatten(2, (across, PATCH)).unflatten(1, (-1, PATCH))  # n, down, PATCH, across, PATCH, 3
    found = tiles[row, position // across, :, position % across]
    if pixels.dtype == torch.uint8:
        mean, std = (torch.tensor(one, device=pixels.device) for one in (_MEAN, _STD))
        found = (found / 255 - mean) / std
    return found.flatten(1)


def sines(grid: tuple[int, int] | None, places: int, dim: int) -> torch.Tensor:
    """float32 (1, places, dim): sines and cosines of row and column in a grid, or else of the count (MoCo v3)."""
    counted = torch.arange(places)
    if grid is None:
        return _waves(counted, dim)[None]
    return torch.cat([_waves(counted // grid[1], dim // 2), _waves(counted % grid[1], dim // 2)], dim=1)[None]


def _waves(positions: torch.Tensor, dim: int) -> torch.Tensor:
    """(k, dim): sines and cosines at dim / 2 frequencies."""
    frequencies = 1.0 / 10_000.0 ** (torch.arange(dim // 2, dtype=torch.float32) / (dim // 2))
    angles = torch.outer(positions.float(), frequencies)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
