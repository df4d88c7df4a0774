"""4M: an encoder-decoder that is given some tokens of any modalities, and says others.

Mizrahi et al. 2023, arXiv 2312.06647; Bachmann et al. 2024, arXiv 2406.09406. Names of parameters are those of the
published checkpoints. Only the tokens of a batch are embedded, modality by modality.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from .blocks import Cache, DecoderBlock, EncoderBlock, Norm, key_mask
from .config import ModelConfig
from .embeddings import InputEmbedding, TargetEmbedding
from .tokens import Labels, Sides, Tokens


@dataclass(frozen=True)
class Encoded:
    """What the encoder makes of n samples. output: (n, l, dim). emb: (n, l, dim), what says where and of which modality
    each token is. used: bool (n, l). Register tokens stand before the others."""

    output: torch.Tensor
    emb: torch.Tensor
    used: torch.Tensor


class FourM(nn.Module):
    """The network. `start.initialise` or `checkpoint.read_model` give it its weights, also where it was made on the
    meta device."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.encoder_embeddings = nn.ModuleDict({one.name: InputEmbedding(one, dim) for one in config.inputs})
        self.decoder_embeddings = nn.ModuleDict({one.name: TargetEmbedding(one, dim) for one in config.targets})
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        if config.num_register_tokens:
            self.register_tokens = nn.Parameter(torch.zeros(1, config.num_register_tokens, dim))
        self.encoder = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_depth))
        self.encoder_norm = Norm(dim)
        self.decoder_proj_context = nn.Linear(dim, dim)
        self.decoder = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_depth))
        self.decoder_norm = Norm(dim)
        self.tie()

    @classmethod
    def empty(cls, config: ModelConfig, device: torch.device | str = "cpu") -> FourM:
        """With whatever the memory holds as weights, which takes no time."""
        with torch.device("meta"):
            model = cls(config)
        return model.to_empty(device=device).tie()

    def tie(self) -> FourM:
        """Shares what is shared, as it must be anew where `to_empty` has given each name a tensor of its own."""
        for one in self.config.targets:
            own = self.target_embedding(one.name)
            if one.is_input:
                own.mod_emb = self.input_embedding(one.name).mod_emb
            if self.config.share_embedding:
                own.to_logits.weight = own.token_emb.weight
        return self

    def input_embedding(self, name: str) -> InputEmbedding:
        return cast(InputEmbedding, self.encoder_embeddings[name])

    def target_embedding(self, name: str) -> TargetEmbedding:
        return cast(TargetEmbedding, self.decoder_embeddings[name])

    def forward(self, sides: Sides) -> torch.Tensor:
        """float32 (targets,): of each target modality, in the order of `config.targets`, the sum of cross-entropies of
        what is to be said (see `losses.loss_weights`)."""
        encoded = self.encode(sides.inputs, sides.arrays)
        decoded = self.decode(sides.targets, self.context(encoded), encoded.used)
        said = self.logits(decoded, sides.labels)
        wanted = dict(zip(self.config.names, sides.labels.ids.split(sides.labels.counts), strict=True))
        sums = [functional.cross_entropy(rows.float(), wanted[name], reduction="sum") for name, rows in said]
        return torch.stack(sums)

    def encode(self, inputs: Tokens, arrays: Mapping[str, torch.Tensor]) -> Encoded:
        """arrays: pixels and embeddings by modality; see `InputEmbedding`."""
        tokens, emb = self.embed_inputs(inputs, arrays)
        used = inputs.used
        if self.config.num_register_tokens:
            registers = self.register_tokens.expand(len(used), -1, -1)
            tokens = torch.cat([registers, tokens], dim=1)
            emb = torch.cat([torch.zeros_like(registers), emb], dim=1)
            used = torch.cat([used.new_ones(registers.shape[:2]), used], dim=1)
        x, mask = tokens + emb, key_mask(used)
        for block in self.encoder:
            x = block(x, mask)
        return Encoded(self.encoder_norm(x), emb, used)

    def context(self, encoded: Encoded) -> torch.Tensor:
        """(n, l, dim): what the decoder's cross-attention is given."""
        return self.decoder_proj_context(encoded.output) + encoded.emb

    def decode(
        self, targets: Tokens, context: torch.Tensor, used: torch.Tensor, caches: Sequence[Cache] | None = None
    ) -> torch.Tensor:
        """(n, l, dim). used: of the context. caches: one for each block; the targets are then those that are new, and
        see all that the caches have."""
        tokens, emb = self.embed_targets(targets)
        x = tokens + emb
        mask = targets.self_attention_mask if caches is None else None
        for place, block in enumerate(self.decoder):
            x = block(x, context, mask, used, None if caches is None else caches[place])
        return self.decoder_norm(x)

    def logits(self, decoded: torch.Tensor, labels: Labels | Tokens) -> Iterator[tuple[str, torch.Tensor]]:
        """Of each target modality (rows, vocabulary), at the places that `labels` lists, in its order."""
        rows = decoded.flatten(0, 1)[labels.order].split(labels.counts)
        for one, own in zip(self.config.modalities, rows, strict=True):
            if one.is_target:
                yield one.name, self.target_embedding(one.name).to_logits(own)

    def embed_inputs(self, inputs: Tokens, arrays: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """What tokens are, and where they are: (n, l, dim) each, zeros where a place isn't used.

        Each modality is called, also for no tokens: on every rank the same parameters get a gradient.
        """
        row = inputs.order // inputs.ids.shape[1]
        parts = [one.split(inputs.counts) for one in (*_ordered(inputs), row)]
        made = [
            self.encoder_embeddings[one.name](*own, arrays.get(one.name))
            for one, *own in zip(self.config.modalities, *parts, strict=True)
            if one.is_input
        ]
        return self._put(inputs, made)

    def embed_targets(self, targets: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
        """As `embed_inputs`."""
        parts = [one.split(targets.counts) for one in _ordered(targets)]
        made = [
            self.decoder_embeddings[one.name](*own, self.mask_token)
            for one, *own in zip(self.config.modalities, *parts, strict=True)
            if one.is_target
        ]
        return self._put(targets, made)

    def _put(
        self, side: Tokens, made: Sequence[tuple[torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Each where it stands."""
        what, where = (torch.cat(one) for one in zip(*made, strict=True))
        return _spread(side, what), _spread(side, where)


def _spread(side: Tokens, rows: torch.Tensor) -> torch.Tensor:
    """(n, l, dim), by rows (k, dim) in the side's order."""
    flat = rows.new_zeros((side.ids.numel(), rows.shape[1])).index_copy(0, side.order, rows)
    return flat.view(*side.ids.shape, -1)


def _ordered(side: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    """ids and positions of the tokens that are used, modality by modality."""
    return side.ids.reshape(-1)[side.order], side.position.reshape(-1)[side.order]
