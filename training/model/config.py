"""What a 4M model is made of: its sizes, and the modalities that it takes and says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..data.masking import Form

Positions = Literal["grid", "learned", "sequence"]


@dataclass(frozen=True)
class Size:
    """dim: numbers per token. encoder_depth, decoder_depth: blocks. num_heads: of each attention."""

    dim: int
    encoder_depth: int
    decoder_depth: int
    num_heads: int


SIZES = {
    "tiny": Size(384, 6, 6, 6),
    "small": Size(512, 8, 8, 8),
    "B": Size(768, 12, 12, 12),
    "L": Size(1024, 24, 24, 16),
    "XL": Size(2048, 24, 24, 32),
}
"""As 4M has them (ml-4m, fourm/models/fm.py)."""


@dataclass(frozen=True)
class ModalityConfig:
    """One modality. form: as in masking, which also says how it is embedded:

    - grid: ids below `vocabulary` at `length` places, which lie in `grid` (rows, columns), or have no order;
    - pixels: squares of mixture.PATCH pixels on a side, RGB, in `grid`;
    - text: ids below `vocabulary`, at positions counted from 0;
    - embeddings: vectors of `width` numbers, likewise.

    length: places; of sequences, positions that differ: those behind are as the first (ml-4m). is_input, is_target:
    which sides it has embeddings for. Pixels and embeddings are inputs alone. tokenizer: the digest of what gives the
    ids their meaning, "" where it isn't known.

    Raises ValueError, naming the field, for what can't be.
    """

    name: str
    form: Form
    length: int
    vocabulary: int = 0
    width: int = 0
    grid: tuple[int, int] | None = None
    is_input: bool = True
    is_target: bool = True
    tokenizer: str = ""

    def __post_init__(self) -> None:
        if self.is_target and self.form in ("pixels", "embeddings"):
            raise ValueError(f"{self.name}: is_target: {self.form} are never a target")
        if not (self.is_input or self.is_target):
            raise ValueError(f"{self.name}: is_input: a modality is an input or a target")
        if self.length < 1:
            raise ValueError(f"{self.name}: length: {self.length}, and there must be a place for a token")
        if self.form in ("grid", "text") and self.vocabulary < 1:
            raise ValueError(f"{self.name}: vocabulary: {self.vocabulary}, and there must be an id")
        if self.form == "embeddings" and self.width < 1:
            raise ValueError(f"{self.name}: width: {self.width}, and a vector has at least 1 number")
        if self.grid is not None and (
            self.form in ("text", "embeddings") or self.grid[0] * self.grid[1] != self.length
        ):
            raise ValueError(f"{self.name}: grid: {self.grid} aren't the {self.length} places of {self.form}")
        if self.form == "pixels" and self.grid is None:
            raise ValueError(f"{self.name}: grid: pixels lie in one")

    @property
    def positions(self) -> Positions:
        """How places are told apart: by sines and cosines of row and column, by learned vectors, by sines and cosines
        of the count."""
        if self.form in ("text", "embeddings"):
            return "sequence"
        return "learned" if self.grid is None else "grid"


@dataclass(frozen=True)
class ModelConfig:
    """An encoder-decoder over modalities. Fields are called as in the published checkpoints' config.json.

    mlp_ratio: the inner width of the MLPs, of which SwiGLU takes two thirds, by dim. qk_norm: queries and keys are
    normalised, head by head. num_register_tokens: learned tokens that stand before each row of inputs.
    share_embedding: a target's logits are by its tokens' embeddings. image_size: of views, in pixels on a side, for
    whoever reads the configuration.

    Raises ValueError, naming the field, for what can't be.
    """

    modalities: tuple[ModalityConfig, ...]
    dim: int
    encoder_depth: int
    decoder_depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    qk_norm: bool = False
    num_register_tokens: int = 0
    share_embedding: bool = True
    image_size: int = 224

    def __post_init__(self) -> None:
        names = [one.name for one in self.modalities]
        if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
            raise ValueError(f"modalities: {twice} is there twice")
        if dotted := next((name for name in names if "." in name), None):
            raise ValueError(f"modalities: {dotted!r} has a dot in it, which separates parts of a tensor's name")
        if self.num_heads < 1 or self.dim % self.num_heads:
            raise ValueError(f"num_heads: {self.num_heads} don't divide dim {self.dim}")
        if self.dim % 4:
            raise ValueError(f"dim: {self.dim} isn't a multiple of 4, as sines and cosines of two axes need it")

    @classmethod
    def of_size(cls, size: str, modalities: Sequence[ModalityConfig], **more: bool | int) -> ModelConfig:
        """A size by name, one of SIZES. more: further fields."""
        one = SIZES[size]
        return cls(tuple(modalities), one.dim, one.encoder_depth, one.decoder_depth, one.num_heads, **more)  # type: ignore[arg-type]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self.modalities)

    @property
    def inputs(self) -> tuple[ModalityConfig, ...]:
        return tuple(one for one in self.modalities if one.is_input)

    @property
    def targets(self) -> tuple[ModalityConfig, ...]:
        return tuple(one for one in self.modalities if one.is_target)

    @property
    def mlp_width(self) -> int:
        return int(2 * int(self.dim * self.mlp_ratio) / 3)
