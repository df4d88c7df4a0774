"""Caption embeddings: what a text encoder makes of the caption, as one vector and token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.kinds import Embeddings, Vector
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .networks.extras import naming_extras
from .networks.state_dicts import seeded
from .networks.text_encoder import LETTERS, TextEncoder, embedding_dim

DEFAULT_WEIGHTS = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_DIM = 384
"""Width of the default weights, so that they needn't be fetched to plan a run."""


class CaptionEmbeddingParams(BaseModel):
    """max_length: captions are cut after this many tokens, the model's special tokens among them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_length: int = Field(default=77, ge=2, le=4096)


class CaptionEmbedding(Labeler):
    """The caption through a text encoder: BERT and its kin, sentence-transformers, the encoder of a T5.

    `caption_embedding`: float32 (dim,), the mean of the token states, scaled to length 1 (as sentence-transformers
    does for all-MiniLM, Reimers & Gurevych 2019, arXiv 1908.10084). `caption_sequence`: float16 (tokens, dim), the
    encoder's last token states.
    """

    on = "nothing"
    requires = ("caption",)
    weights = Weights(
        DEFAULT_WEIGHTS,
        "Apache-2.0",
        "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
    )
    resources = Resources(cpus=1.0, memory=1 * 2**30)
    batch_size = 64
    Params: ClassVar[type[BaseModel]] = CaptionEmbeddingParams

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        self._source = self.weights_path or DEFAULT_WEIGHTS
        dim = DEFAULT_DIM if self._source == DEFAULT_WEIGHTS else embedding_dim(self._source)
        self.makes = (
            Modality("caption_embedding", Vector(dim)),
            Modality("caption_sequence", Embeddings(dim, self.params.max_length)),
        )

    def load(self, device: str) -> None:
        self._encoder = TextEncoder(self._source, device)

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        states = self._encoder.states(batch.labels["caption"], self.params.max_length)
        return {
            "caption_embedding": [None if state is None else _pooled(state) for state in states],
            "caption_sequence": [None if state is None else state.astype(np.float16) for state in states],
        }

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        """A BERT that knows letters and takes all else for unknown."""
        with naming_extras():
            from transformers import BertConfig, BertModel, BertTokenizer
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
        BertTokenizer(vocab={piece: index for index, piece in enumerate(pieces)}).save_pretrained(folder)
        config = BertConfig(
            vocab_size=len(pieces),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            initializer_range=0.2,
        )
        with seeded():
            BertModel(config).save_pretrained(folder)
        return folder


def _pooled(states: np.ndarray) -> np.ndarray:
    mean = states.mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)
