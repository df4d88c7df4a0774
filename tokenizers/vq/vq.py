"""Maps, feature maps and vectors by a VQ network: an autoencoder whose middle is codes (arXiv 1711.00937)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, Field

from ...labelers.contract.kinds import FeatureMap, Image, Vector
from ..contract.token_spec import TokenSpec
from ..networks.vq_config import MLPSize, UNetSize, VQConfig, network_size
from .base import NetworkParams, TrainedTokenizer, codebook_fields
from .input_contract import InputContract, contract_for, with_statistics

FSQ_LEVELS: dict[int, tuple[int, ...]] = {
    256: (8, 6, 5),
    1024: (8, 5, 5, 5),
    4096: (7, 5, 5, 5, 5),
    16384: (8, 8, 8, 6, 5),
    65536: (8, 8, 8, 5, 5, 5),
}
"""Levels for about so many codes, from Mentzer et al. 2023 (arXiv 2309.15505), table 1."""

_SMALLEST_PUBLISHED = 224


class VQParams(NetworkParams):
    """decoder: also unet_s or unet_patched for images, which decode by diffusion.

    quantizer: `cosine` or `euclidean` (a codebook that follows the latents' moving average), `memcodes` (learnt codes
    for each of `tokens` parts of a latent), `fsq` (each number of a latent rounded to one of its `levels`) or
    `residual` (`tokens` codebooks, each for what those before it leave); None: memcodes for vectors, else cosine.
    tokens: of each cell; None: 16 for memcodes, 4 for residual, and 1, which the others always have. levels: of fsq,
    in place of `codes`; None takes what its paper gives for 256, 1024, 4096, 16384 or 65536. latent: numbers per cell
    that are quantised; None: 32, of vectors 256.

    patch_size: side of the square of an image that is one cell, in pixels. image_size: side of the labels in pixels,
    for published weights that take several; None: 224, or their only one. A sample says it by itself. objective: the
    loss; None: the one that 4M has for such labels.
    """

    quantizer: Literal["cosine", "euclidean", "memcodes", "fsq", "residual"] | None = None
    tokens: int | None = Field(default=None, ge=1)
    levels: tuple[int, ...] | None = None
    latent: int | None = Field(default=None, ge=1)
    patch_size: int = Field(default=16, ge=1)
    image_size: int | None = Field(default=None, ge=1)
    objective: Literal["mse", "l1", "smooth_l1", "cosine", "cross_entropy"] | None = None


class VQTokenizer(TrainedTokenizer):
    """One token per cell (`VQParams.tokens` where the quantizer has several, codebook by codebook).

    A cell is a square of pixels of an image, a vector of a feature map, or a whole vector. All images must have the
    size that the contract fixes. Loss: whatever the codes can't hold, beside which colours and edges are rounded; the
    scale and shift of depth, which is decoded standardised; lengths of normals.
    """

    kinds = (Image, FeatureMap, Vector)
    Params: ClassVar[type[BaseModel]] = VQParams

    @property
    def objective(self) -> str:
        return self.params.objective or super().objective

    def check_settings(self) -> None:
        kind, decoder = self.kind, self.params.decoder or "vit_t_dec"
        if not (isinstance(kind, Image) and kind.content == "colour" and kind.channels == 3):
            super().check_settings()
        elif self.settings.perceptual is not None and isinstance(network_size(decoder, "dec"), UNetSize):
            raise ValueError(
                f"perceptual: the decoder {decoder} learns to denoise, from however much noise, so that there is no "
                f"picture to be seen: leave it out, or take a ViT (decoder: vit_t_dec)"
            )

    @property
    def spec(self) -> TokenSpec:
        vocabulary, tokens = self.network.config.vocabulary, self._tokens
        if isinstance(self.kind, Vector):
            return TokenSpec("vector", vocabulary, tokens, tokens)
        return TokenSpec("grid", vocabulary, tokens, tokens, self._grid)

    def examples(self, label: Any) -> np.ndarray:
        label = self.kind.check(label)
        if self._contract is None:
            height, width = label.shape[:2] if isinstance(self.kind, Image) else (1, 1)
            return contract_for(self.kind, height, width).example(label)[None]
        return self._contract.example(label)[None]

    def encode(self, labels: Sequence[Any]) -> list[np.ndarray]:
        dtype = self.spec.dtype
        if not labels:
            return []
        return list(self._tokenize(np.concatenate([self.examples(label) for label in labels])).astype(dtype))

    def decode(self, tokens: Sequence[np.ndarray]) -> list[Any]:
        return self._restore(np.stack([self._check_ids(ids) for ids in tokens])) if len(tokens) else []

    def _check_ids(self, ids: np.ndarray) -> np.ndarray:
        """The ids as int64. Raises ValueError for a wrong number of them or for one out of range."""
        spec = self.spec
        ids = np.asarray(ids).astype(np.int64).ravel()
        if len(ids) != spec.length:
            raise ValueError(f"this tokenizer takes {spec.length} tokens, not {len(ids)}")
        if not 0 <= ids.min() <= ids.max() < spec.vocabulary:
            raise ValueError(f"token ids {ids.min()}..{ids.max()} leave the vocabulary 0..{spec.vocabulary - 1}")
        return ids

    def _contract_of_kind(self) -> InputContract:
        side = 16 * self.params.patch_size
        return contract_for(self.kind, side, side)

    def _contract_for(self, examples: np.ndarray) -> InputContract:
        height, width = examples.shape[1:3] if isinstance(self.kind, Image) else (1, 1)
        return with_statistics(contract_for(self.kind, height, width), examples)

    def _config_for(self, contract: InputContract) -> VQConfig:
        of_vectors = contract.form == "vector"
        plain = "BottleneckMLP/B_4-Wi_256" if of_vectors else "vit_t"
        is_map = isinstance(self.kind, FeatureMap) or of_vectors
        patch = 1 if is_map else self.params.patch_size
        if contract.height % patch or contract.width % patch:
            raise ValueError(
                f"labels of {contract.height}x{contract.width} can't be cut into patches of {patch} pixels: choose "
                f"another patch_size"
            )
        embedding = {"n_labels": contract.classes + 1, "n_channels": 64} if contract.classes else {}
        return VQConfig.model_validate(
            {
                "n_channels": contract.channels,
                **embedding,
                "image_size": max(contract.height, contract.width),
                "patch_size": patch,
                "patch_proj": not is_map,
                "enc_type": self.params.encoder or (plain if of_vectors else f"{plain}_enc"),
                "dec_type": self.params.decoder or (plain if of_vectors else f"{plain}_dec"),
                "post_mlp": not of_vectors,
                **_quantizer(self.params, of_vectors),
            }
        )

    def _published_contract(self, config: VQConfig) -> InputContract:
        pointwise = isinstance(network_size(config.enc_type, "enc"), MLPSize)
        wanted = Vector if pointwise else Image if config.patch_proj else FeatureMap
        if not isinstance(self.kind, wanted):
            raise ValueError(
                f"a network of enc_type {config.enc_type} and patch_proj {config.patch_proj} is for labels of the kind "
                f"{wanted.name!r}, not {self.kind.name!r}"
            )
        size = self._published_size(config) if isinstance(self.kind, Image) else 1
        return contract_for(self.kind, size, size)

    def _published_size(self, config: VQConfig) -> int:
        """The side of the images. 4M trained its tokenizers on all multiples of the patch from 224 to `image_size`."""
        most = config.image_size
        least = min(_SMALLEST_PUBLISHED, most)
        size = self.params.image_size or least
        if size % config.patch_size or not least <= size <= most:
            raise ValueError(
                f"the network takes images of {least} to {most} pixels a side, in steps of {config.patch_size}; "
                f"image_size = {size} isn't among them"
            )
        return size


def _quantizer(params: VQParams, of_vectors: bool) -> dict[str, Any]:
    """The fields of VQConfig that say how latents are quantised."""
    name = params.quantizer or ("memcodes" if of_vectors else "cosine")
    latent = params.latent or (256 if of_vectors else 32)
    if params.levels is not None and name != "fsq":
        raise ValueError(f"levels are for the quantizer fsq, not for {name}")
    if params.tokens not in (None, 1) and name not in ("memcodes", "residual"):
        raise ValueError(f"tokens = {params.tokens}: the quantizer {name} gives one per cell")
    codes = {"codebook_size": params.codes, "latent_dim": latent}
    match name:
        case "fsq":
            levels = params.levels or FSQ_LEVELS.get(params.codes)
            if levels is None:
                raise ValueError(f"codes = {params.codes}: give fsq its levels, or one of {sorted(FSQ_LEVELS)} codes")
            codes = {"codebook_size": math.prod(levels), "latent_dim": len(levels)}
            return {"quant_type": "fsq", "levels": levels, **codes}
        case "memcodes":
            return {"quant_type": "memcodes", "num_codebooks": params.tokens or 16, **codes}
        case "residual":
            return {"quant_type": "residual", "num_codebooks": params.tokens or 4, **codebook_fields(False), **codes}
    cosine = name == "cosine"
    return {"quant_type": "lucid", "norm_codes": cosine, **codebook_fields(cosine), **codes}
