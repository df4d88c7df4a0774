"""Text encoders of transformers, from texts to embeddings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from .extras import naming_extras
from .hub import CheckpointError, load_model, load_processor, read_config

LETTERS = "abcdefghijklmnopqrstuvwxyz.,"
"""What tiny encoders can spell."""


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


def embedding_dim(weights: str) -> int:
    """The width of a text encoder's states, by its config.json."""
    config = read_config(weights)
    dim = config.get("hidden_size") or config.get("d_model")
    if dim is None:
        raise CheckpointError(f"{weights}: config.json names no hidden_size; is it a text encoder?")
    return int(dim)
