"""Caption embeddings: what a text encoder makes of the caption, as one vector and token by token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .hub import CheckpointError, load_model, read_config
from .kinds import Embeddings, Vector
from .labeler import Batch, Labeler, Modality, Resources, Weights
from .registry import naming_extras

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
        dim = DEFAULT_DIM if self._source == DEFAULT_WEIGHTS else _dim(self._source)
        self.makes = (
            Modality("caption_embedding", Vector(dim)),
            Modality("caption_sequence", Embeddings(dim, self.params.max_length)),
        )

    def load(self, device: str) -> None:
        with naming_extras():
            from transformers import AutoModelForTextEncoding, AutoTokenizer
        self._device = device
        self._model = load_model(AutoModelForTextEncoding, self._source, device, unused=("pooler.",))
        self._tokenizer = AutoTokenizer.from_pretrained(self._source)

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        """Captions of equal length go through the model together, unpadded: padding would change the last digits."""
        encoded = self._tokenizer(list(batch.labels["caption"]), truncation=True, max_length=self.params.max_length)
        places_of_length: dict[int, list[int]] = defaultdict(list)
        for place, ids in enumerate(encoded["input_ids"]):
            places_of_length[len(ids)].append(place)
        vectors: list[np.ndarray | None] = [None] * len(batch)
        sequences: list[np.ndarray | None] = [None] * len(batch)
        for length, places in places_of_length.items():
            if length == 0:
                continue  # an empty caption, where the tokenizer adds no special tokens
            states = self._states([encoded["input_ids"][place] for place in places])
            means = states.mean(axis=1)
            for place, mean, sequence in zip(places, means, states, strict=True):
                vectors[place] = mean / max(float(np.linalg.norm(mean)), 1e-12)
                sequences[place] = sequence.astype(np.float16)
        return {"caption_embedding": vectors, "caption_sequence": sequences}

    def _states(self, ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Token ids, all of one length, to float32 (captions, tokens, dim)."""
        import torch

        tokens = torch.tensor(ids, device=self._device)
        with torch.inference_mode():
            output = self._model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
        return output.last_hidden_state.float().cpu().numpy()


def _dim(weights: str) -> int:
    config = read_config(weights)
    dim = config.get("hidden_size") or config.get("d_model")
    if dim is None:
        raise CheckpointError(f"{weights}: config.json names no hidden_size; is it a text encoder?")
    return int(dim)
