"""How a tokenizer's network is trained: few numbers, each with a default that suits a tiny one on a small machine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PerceptualSettings(BaseModel):
    """Of a loss that is added to the reconstruction's, where labels are images of colour and the decoder is a ViT.

    weights: of the frozen vision transformer whose features are compared: a folder, hub id or URL of a checkpoint of
        transformers (DINOv2, DINOv3, CLIP, SigLIP, ViT); `tiny` is a DINOv2 of random numbers, to try a recipe.
    weight: what the mean distance of the features is multiplied by.
    blocks: after which of the transformer's blocks, counted from 0; None: at each quarter of its depth, of 12 blocks
        2, 5, 8 and 11, as 4M has it.
    sha256: of the weights' files. The pipeline notes it when it first sees them, and refuses others from then on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    weights: str
    weight: float = Field(default=1.0, gt=0)
    blocks: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, min_length=1)
    sha256: str | None = None


class FitSettings(BaseModel):
    """Of AdamW with a cosine schedule; everything but `checkpoint_every` and `report_every` changes what comes out.

    steps: optimiser steps.
    batch_size: examples of one step, over all workers together; each takes an equal part.
    learning_rate: the largest, at the end of the warm-up; from there it falls along a half cosine to 1 % of itself. The
        narrower the network, the larger it may be: 5e-3 suits vit_xt, 1e-4 what is as large as vit_b.
    warmup: the share of the steps over which it rises, from 0 to 1.
    weight_decay: of matrices; biases, norms, embeddings and codes have none.
    clip: the largest norm of the gradient of all weights together; longer ones are shortened to it.
    ema: decay of the moving average of the weights, which is what training gives out; 0 gives out the last weights.
        In the beginning the decay is smaller: (1 + step) / (10 + step). 4M takes 0.99, with diffusion decoders, which
        train for long, 0.9999.
    precision: of the networks' arithmetic: float32, bfloat16 (weights and quantiser stay float32), or auto: bfloat16
        on a GPU that has it, else float32.
    checkpoint_every: steps from one checkpoint to the next; a fit that was interrupted goes on from the latest.
    report_every: steps from one line of metrics.jsonl to the next.
    workers: processes that train together, each with a GPU where the cluster has as many; more need not be faster
        without GPUs.
    perceptual: a loss to be added, for images of colour; None adds none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    steps: int = Field(default=2000, ge=1)
    batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.05, ge=0, le=1)
    weight_decay: float = Field(default=0.05, ge=0)
    clip: float = Field(default=1.0, gt=0)
    ema: float = Field(default=0.99, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_every: int = Field(default=500, ge=1)
    report_every: int = Field(default=10, ge=1)
    workers: int = Field(default=1, ge=1)
    perceptual: PerceptualSettings | None = None

    @model_validator(mode="after")
    def _equal_parts(self) -> FitSettings:
        if self.batch_size % self.workers:
            raise ValueError(
                f"batch_size = {self.batch_size} can't be dealt out evenly to workers = {self.workers}: make it a "
                f"multiple"
            )
        return self
