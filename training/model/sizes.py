"""Sizes on paper: what a model and its training need, before there is any of it.

Parameters and operations are those of the code itself, run on the meta device, where tensors have shapes alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ..data.masking import NOTHING
from .config import SIZES, ModalityConfig, ModelConfig
from .fourm import FourM
from .tokens import Sides

Sharding = Literal["full_shard", "shard_grad_op", "no_shard"]
"""As PyTorch calls them. full_shard: weights, gradients and moments lie in parts on all GPUs, and blocks are gathered
one by one; shard_grad_op: the weights stay gathered from the forward to the backward pass; no_shard: all of it is on
each."""

H100 = 989.4e12
"""Operations a second in bf16, dense (NVIDIA's data sheet of the H100 SXM)."""

_STATE, _HALF = 16, 2
"""Bytes of a parameter: float32 of itself, its gradient and AdamW's two moments; and of a number in bf16."""


@dataclass(frozen=True)
class Step:
    """What one GPU works on at a time. checkpointing: blocks are computed again in the backward pass."""

    batch_size: int
    input_tokens: int
    target_tokens: int
    checkpointing: bool = False

    @property
    def tokens(self) -> int:
        return self.batch_size * (self.input_tokens + self.target_tokens)


@dataclass(frozen=True)
class Paper:
    """parameters: of which `embeddings` belong to modalities: their tables, logits and projections. largest_block: its
    parameters. flops_per_token: of a training step, forward and backward, by input and target token. activations: bytes
    of a step on one GPU, in bf16."""

    parameters: int
    embeddings: int
    largest_block: int
    flops_per_token: float
    activations: int

    @property
    def network(self) -> int:
        """Parameters without embeddings, which is what 4M's sizes are named by."""
        return self.parameters - self.embeddings

    def tokens_per_second(self, utilisation: float = 0.5, peak: float = H100) -> float:
        """Of one GPU that reaches this share of its peak (MFU)."""
        return utilisation * peak / self.flops_per_token

    def memory(self, sharding: Sharding, world_size: int) -> int:
        """Bytes of one GPU. What FSDP2 gathers is in bf16, weights and gradients: embeddings, and two blocks."""
        if sharding == "no_shard" or world_size == 1:
            return (_STATE + _HALF) * self.parameters + self.activations
        gathered = 2 * _HALF * (self.embeddings + 2 * self.largest_block)
        if sharding == "shard_grad_op":
            gathered += _HALF * (self.network - 2 * self.largest_block)
        return _STATE * self.parameters // world_size + gathered + self.activations


def on_paper(config: ModelConfig, step: Step) -> Paper:
    """What `config` needs for such steps."""
    model = _on_meta(config)
    return Paper(
        parameters=_count(model.parameters()),
        embeddings=_count({*model.encoder_embeddings.parameters(), *model.decoder_embeddings.parameters()}),
        largest_block=max(_count(block.parameters()) for block in (model.encoder[0], model.decoder[0])),
        flops_per_token=_flops(config, step) / (step.input_tokens + step.target_tokens),
        activations=step.batch_size * activations(config, step),
    )


def _on_meta(config: ModelConfig) -> FourM:
    with torch.device("meta"):
        return FourM(config)


def _count(parameters: Iterable[torch.Tensor]) -> int:
    return sum(one.numel() for one in parameters)


def of_all_sizes(modalities: Sequence[ModalityConfig], step: Step, **more: bool | int) -> dict[str, Paper]:
    """Every size with these modalities. more: further fields of ModelConfig."""
    return {size: on_paper(ModelConfig.of_size(size, modalities, **more), step) for size in SIZES}


def _flops(config: ModelConfig, step: Step) -> int:
    """Of a training step with one sample: the backward pass does twice what the forward pass does. Each further block
    does as much as the one before."""

    def counted(encoder: int, decoder: int) -> int:
        model = _on_meta(replace(config, encoder_depth=encoder, decoder_depth=decoder))
        with FlopCounterMode(display=False) as counter:
            model.requires_grad_(False)(sides)
        return counter.get_total_flops()

    sides = evenly(config, step).to("meta")
    least = counted(1, 1)
    encoders, decoders = ((depth - 1) for depth in (config.encoder_depth, config.decoder_depth))
    return 3 * (least + encoders * (counted(2, 1) - least) + decoders * (counted(1, 2) - least))


def evenly(config: ModelConfig, step: Step) -> Sides:
    """A sample whose tokens are shared out evenly among the modalities, none having more than it has places."""
    made: dict[str, dict[str, torch.Tensor]] = {}
    budgets = (("inputs", config.inputs, step.input_tokens), ("targets", config.targets, step.target_tokens))
    for side, own, tokens in budgets:
        counts = _shares([one.length for one in own], tokens)
        numbers = np.repeat([config.names.index(one.name) for one in own], counts)
        places = np.concatenate([np.arange(count) for count in counts])
        ids = [NOTHING if config.modalities[number].form in ("pixels", "embeddings") else 0 for number in numbers]
        arrays = {"modality": numbers, "position": places, "ids": np.array(ids), "labels": 0 * places}
        made[side] = {name: torch.from_numpy(one)[None] for name, one in arrays.items()}
    return Sides.of(config, made, config.names)


def _shares(most: Sequence[int], total: int) -> list[int]:
    counts = [0] * len(most)
    for others, place in zip(range(len(most) - 1, -1, -1), np.argsort(most, kind="stable").tolist(), strict=True):
        counts[place] = min(most[place], (total - sum(counts)) // (others + 1))
    return counts


def activations(config: ModelConfig, step: Step) -> int:
    """Bytes that a sample leaves for the backward pass, in bf16, with attention that keeps no scores: what each layer
    was given, and logits with their float32 and its gradient."""
    dim, inner = config.dim, 4 * config.mlp_width  # of SwiGLU: both halves, the gate after silu, and their product
    normed = 2 * dim if config.qk_norm else 0  # queries and keys before their norm
    encoder = (8 * dim + inner + normed) * (step.input_tokens + config.num_register_tokens)
    context = (3 * dim + normed // 2) * (step.input_tokens + config.num_register_tokens)  # normed, its keys and values
    decoder = (14 * dim + inner + normed + normed // 2) * step.target_tokens + context
    blocks = encoder * config.encoder_depth + decoder * config.decoder_depth
    if step.checkpointing:  # what each block was given, and all of one
        given = step.input_tokens * config.encoder_depth + step.target_tokens * config.decoder_depth
        blocks = dim * given + max(encoder, decoder)
    counts = _shares([one.length for one in config.targets], step.target_tokens)
    logits = sum(one.vocabulary * count for one, count in zip(config.targets, counts, strict=True))
    return _HALF * blocks + (_HALF + 4 + 4) * logits


def table(papers: Mapping[str, Paper], worlds: Sequence[int] = (8, 64)) -> tuple[list[str], list[list[str]]]:
    """Headings and rows, for a table of the terminal. worlds: numbers of GPUs."""
    shardings: tuple[Sharding, ...] = ("shard_grad_op", "full_shard")
    columns: list[tuple[Sharding, int]] = [("no_shard", 1), *((one, world) for world in worlds for one in shardings)]
    memory = ["1 GPU" if world == 1 else f"{world} GPUs, {one}" for one, world in columns]
    headings = ["size", "parameters", "without embeddings", "GFLOPs a token", *memory, "tokens/s of an H100"]
    return headings, [list(_cells(name, one, columns)) for name, one in papers.items()]


def _cells(name: str, paper: Paper, columns: Sequence[tuple[Sharding, int]]) -> Iterator[str]:
    yield name
    yield f"{paper.parameters / 1e6:,.0f} M"
    yield f"{paper.network / 1e6:,.0f} M"
    yield f"{paper.flops_per_token / 1e9:,.2f}"
    for sharding, world in columns:
        yield f"{paper.memory(sharding, world) / 2**30:,.1f} GiB"
    yield f"{paper.tokens_per_second():,.0f}"
