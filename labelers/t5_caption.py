"""The caption through T5's encoder, token by token: what 4M takes in place of words where it is given them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.kinds import Embeddings
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .networks.extras import naming_extras
from .networks.hub import CheckpointError, read_config
from .networks.state_dicts import seeded
from .networks.text_encoder import LETTERS, TextEncoder, embedding_dim

DEFAULT_WEIGHTS = "google/flan-t5-xxl"
DEFAULT_DIM = 4096
"""Width of the default weights, so that they needn't be fetched to plan a run."""


class T5CaptionParams(BaseModel):
    """max_length: captions are cut after this many tokens, the end token among them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_length: int = Field(default=77, ge=2, le=512)


class T5Caption(Labeler):
    """The caption's token states from the encoder of a T5 (Raffel et al. 2020, arXiv 1910.10683).

    `t5_caption`: float16 (tokens, dim), at most 77 of them, the last one the end token; there is no padding in it.
    4M (arXiv 2312.06647) used T5-XXL. The default is FLAN-T5-XXL, of the same shape and further trained, because it is
    published as safetensors; google/t5-v1_1-xxl is published as pickled files only, which aren't read, but serves as a
    local folder once transformers has saved it anew. A T5 overflows in float16, and so it is computed in bfloat16 or
    float32; its last norm brings the states back into float16's range.
    """

    on = "nothing"
    requires = ("caption",)
    weights = Weights(
        DEFAULT_WEIGHTS,
        "Apache-2.0",
        "https://huggingface.co/google/flan-t5-xxl",
        others={"google/flan-t5-*": "Apache-2.0", "google/t5-v1_1-*": "Apache-2.0", "google-t5/t5-*": "Apache-2.0"},
    )
    resources = Resources(cpus=1.0, gpus=1.0, memory=20 * 2**30)  # estimated: 4.76 B parameters of 4 bytes
    batch_size = 64
    autocast = "bfloat16"
    Params: ClassVar[type[BaseModel]] = T5CaptionParams

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        self._source = self.weights_path or DEFAULT_WEIGHTS
        dim = DEFAULT_DIM
        if self._source != DEFAULT_WEIGHTS:
            found = read_config(self._source).get("model_type")
            if found != "t5":
                raise CheckpointError(f"{self._source}: a checkpoint of {found!r}, not of a T5")
            dim = embedding_dim(self._source)
        self.makes = (Modality("t5_caption", Embeddings(dim, self.params.max_length)),)

    def load(self, device: str) -> None:
        self._encoder = TextEncoder(self._source, device)

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        states = self._encoder.states(batch.labels["caption"], self.params.max_length)
        return {"t5_caption": [None if state is None else state.astype(np.float16) for state in states]}

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        """A whole T5, decoder and all, as on the hub; it knows letters and takes all else for unknown."""
        with naming_extras():
            from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer
        pieces = ["<pad>", "</s>", "<unk>", "\u2581", *LETTERS, *(f"\u2581{letter}" for letter in LETTERS)]
        tokenizer: Any = T5Tokenizer(vocab=[(piece, -1.0) for piece in pieces], extra_ids=0)
        tokenizer.save_pretrained(folder)
        config = T5Config(
            vocab_size=len(tokenizer),
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
        with seeded():
            T5ForConditionalGeneration(config).save_pretrained(folder)
        return folder
