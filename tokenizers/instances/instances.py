"""Instances as text: boxes with class names or texts as 4M writes detections, and masks as 16 codes in each box."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

import numpy as np
from pydantic import BaseModel, Field

from ...labelers.contract.instances import InstanceSet
from ...labelers.contract.kinds import Kind
from ..codebooks.codebook import supported_codes
from ..codebooks.kmeans import kmeans, nearest, sample_rows
from ..contract.files import config_file, model_file, read_config, read_model
from ..contract.token_spec import TokenSpec
from ..networks.vq_config import VQConfig
from ..vq.base import NetworkParams, TrainedTextTokenizer, codebook_fields
from ..vq.input_contract import MASK_CONTRACT, MASK_SIDE, InputContract
from .instance_text import InstancesParams, InstancesText
from .mask_codes import (
    MASK_CODES,
    MASK_TOKENS,
    PATCH_SIDE,
    patch_squares,
    square_patches,
)

_SAMPLE = 131_072
_ITERATIONS = 10


class InstancesTokenizer(InstancesText):
    """Masks by k-means: each patch of 16 x 16 pixels is the nearest of at most 1,024 fitted patches.

    Loss, in config.json: `pixel_error`, the share of wrong pixels in the sample's 64 x 64 masks.
    """

    version = 3

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
        rows = sample_rows((square_patches(self._mask_squares(label)) for label in labels), _SAMPLE, seed)
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

    def _check_fitted(self) -> np.ndarray:
        """The fitted patches, float32 (codes, 256); none where the kind has no masks."""
        if self.needs_fit:
            raise RuntimeError("InstancesTokenizer isn't fitted to masks yet: call fit, or load it with from_files")
        return np.zeros((0, PATCH_SIDE**2), np.float32) if self._patches is None else self._patches

    @property
    def _known_codes(self) -> int:
        return len(self._check_fitted())

    def _codes(self, squares: np.ndarray) -> np.ndarray:
        return nearest(square_patches(squares), self._check_fitted()).reshape(-1, MASK_TOKENS)

    def _squares(self, codes: np.ndarray) -> np.ndarray:
        return patch_squares(self._check_fitted()[codes])


class InstancesVQParams(InstancesParams, NetworkParams):
    """codes: of each of the 16 tokens of a mask."""

    codes: int = Field(default=MASK_CODES, ge=2, le=MASK_CODES)


class InstancesVQTokenizer(TrainedTextTokenizer, InstancesText):
    """Masks by a network as 4M's: a ViT on 64 x 64 pixels whose 16 cells take the nearest code.

    Published weights: EPFL-VILAB/4M_tokenizers_sam-instance_1k_64.
    """

    version = 3
    Params: ClassVar[type[BaseModel]] = InstancesVQParams
    open_params = frozenset({"max_length", "frame"})

    def __init__(self, kind: Kind, params: BaseModel | None = None) -> None:
        super().__init__(kind, params)
        if not self.kind.masks:
            raise ValueError("instances without masks have nothing for a network: the tokenizer `instances` takes them")

    def examples(self, label: InstanceSet) -> np.ndarray:
        return self._mask_squares(label)

    def _contract_of_kind(self) -> InputContract:
        return MASK_CONTRACT

    def _contract_for(self, examples: np.ndarray) -> InputContract:
        return MASK_CONTRACT

    def _config_for(self, contract: InputContract) -> VQConfig:
        """Like the published network but for two things: no convolutions on the output, since layer norm over the one
        channel of masks leaves them a constant; and Euclidean codes, which learn small samples in fewer steps."""
        return VQConfig(
            n_channels=1,
            image_size=MASK_SIDE,
            patch_size=PATCH_SIDE,
            enc_type=self.params.encoder or "vit_t_enc",
            dec_type=self.params.decoder or "vit_t_dec",
            codebook_size=self.params.codes,
            latent_dim=16,
            norm_codes=False,
            **codebook_fields(cosine=False),
        )

    def _published_contract(self, config: VQConfig) -> InputContract:
        rows, columns = config.grid(MASK_SIDE, MASK_SIDE)
        count = config.tokens_per_cell * rows * columns
        if count != MASK_TOKENS or config.vocabulary > MASK_CODES:
            raise ValueError(
                f"the network gives {count} of {config.vocabulary} codes a mask; they are written as {MASK_TOKENS} of "
                f"at most {MASK_CODES}"
            )
        return MASK_CONTRACT

    @property
    def _known_codes(self) -> int:
        return self.network.config.vocabulary

    def _codes(self, squares: np.ndarray) -> np.ndarray:
        return self._tokenize(squares)

    def _squares(self, codes: np.ndarray) -> np.ndarray:
        return np.array(self._restore(codes), np.float32).reshape(-1, MASK_SIDE, MASK_SIDE)
