"""Caption embeddings: what a text encoder makes of the caption, as one vector and token by token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .checkpoint import seeded
from .contract.kinds import Embeddings, Vector
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .hub import CheckpointError, load_model, load_processor, read_config
from .registry import naming_extras

DEFAULT_WEIGHTS = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_DIM = 384
"""Width of the default weights, so that they needn't be fetched to plan a run."""

LETTERS = "abcdefghijklmnopqrstuvwxyz.,"
"""What tiny encoders can spell."""


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


class TextEncoder:
    """A text encoder of transformers and its tokenizer, from a checkpoint."""

    def __init__(self, weights: str, device: str) -> None:
        with naming_extras():
            from transformers import AutoModelForTextEncoding, AutoTokenizer
        self._device = device
        self._model = load_model(AutoModelForTextEncoding, weights, device, unused=("pooler.",))
        self._tokenizer = load_processor(AutoTokenizer, weights)

    def states(self, texts: Sequence[str], max_length: int) -> list[np.ndarray | None]:
        """The last states of each text's tokens, float32 (tokens, dim); None for a text that has no token.

        max_length: texts are cut after this many tokens. Texts of equal length go through the model together,
        unpadded: padding would change the last digits.
        """
        ids = self._tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
        places_of_length: dict[int, list[int]] = defaultdict(list)
        for place, tokens in enumerate(ids):
            places_of_length[len(tokens)].append(place)
        found: list[np.ndarray | None] = [None] * len(texts)
        for length, places in places_of_length.items():
            if length:
                for place, state in zip(places, self._forward([ids[place] for place in places]), strict=True):
                    found[place] = state
        return found

    def _forward(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Token ids, all of one length, to float32 (texts, tokens, dim)."""
        import torch

        tokens = torch.tensor(ids, device=self._device)
        with torch.inference_mode():
            output = self._model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
        return output.last_hidden_state.float().cpu().numpy()


def _pooled(states: np.ndarray) -> np.ndarray:
    mean = states.mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def embedding_dim(weights: str) -> int:
    """The width of a text encoder's states, by its config.json."""
    config = read_config(weights)
    dim = config.get("hidden_size") or config.get("d_model")
    if dim is None:
        raise CheckpointError(f"{weights}: config.json names no hidden_size; is it a text encoder?")
    return int(dim)
