"""4M as one would write it down: all tokens of all modalities are embedded, then those that a sample uses are selected,
and attention makes its scores. It computes with the weights of a FourM, on what ml-4m's loader would give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tokenloom.training.data.batch import Batch
from tokenloom.training.data.mixture import PATCH
from tokenloom.training.model.blocks import CrossAttention, SelfAttention
from torch.nn import functional

Tensors = Mapping[str, torch.Tensor]

_MEAN, _STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def as_tensors(batch: Batch) -> dict[str, dict[str, torch.Tensor]]:
    """The four tensors of each modality, pixels as normalised floats."""
    made = {}
    for name, one in batch.by_modality().items():
        tensor = torch.from_numpy(one.tensor)
        masks = {"input_mask": one.input_mask, "target_mask": one.target_mask, "reach": one.decoder_attention_mask}
        made[name] = {"tensor": tensor, **{key: torch.from_numpy(mask) for key, mask in masks.items()}}
        if tensor.dtype == torch.uint8:
            made[name]["tensor"] = (tensor / 255 - _MEAN) / _STD
    return made


def plain_loss(model: Any, given: Mapping[str, Tensors], lengths: tuple[int, int]) -> torch.Tensor:
    """The mean over targets of mean cross-entropies. lengths: of the inputs and the targets that are selected."""
    seen, emb, unseen = _selected([_input(model, name, given[name]) for name in model.encoder_embeddings], lengths[0])
    blocked = unseen[:, None]
    x = seen + emb
    for block in model.encoder:
        x = x + _self_attention(block.attn, block.norm1(x), blocked)
        x = x + block.mlp(block.norm2(x))
    context = model.decoder_proj_context(model.encoder_norm(x)) + emb
    numbers = {name: number for number, name in enumerate(model.decoder_embeddings)}
    parts = [_target(model, name, given[name], number) for name, number in numbers.items()]
    asked, place, unused, labels, modality, reach = _selected(parts, lengths[1])
    behind = torch.arange(lengths[1]) >= reach.cumsum(dim=1)[:, :, None]
    apart = behind | (modality[:, None] != modality[:, :, None])
    x = asked + place
    for block in model.decoder:
        x = x + _self_attention(block.self_attn, block.norm1(x), apart | unused[:, None])
        x = x + _cross_attention(block.cross_attn, block.query_norm(x), block.context_norm(context), blocked)
        x = x + block.mlp(block.norm2(x))
    x = model.decoder_norm(x)
    losses = []
    for name, number in numbers.items():
        own = (modality == number) & ~unused
        logits = model.decoder_embeddings[name].to_logits(x[own])
        losses.append(functional.cross_entropy(logits, labels[own]) if own.any() else logits.sum())
    return torch.stack(losses).mean()


def _input(model: Any, name: str, one: Tensors) -> tuple[torch.Tensor, ...]:
    """Every token of a modality, where it is, and whether it isn't used."""
    own, tensor, mask = model.encoder_embeddings[name], one["tensor"], one["input_mask"]
    if own.modality.form == "pixels":
        tiles = tensor.unflatten(2, (-1, PATCH)).unflatten(1, (-1, PATCH)).transpose(2, 3)
        x = own.proj(tiles.flatten(3).flatten(1, 2))
    elif own.modality.form == "embeddings":
        x = own.emb_proj(tensor)
    else:
        x = own.token_emb(tensor)
    return x, _places(own, mask) + own.mod_emb, mask


def _target(model: Any, name: str, one: Tensors, number: int) -> tuple[torch.Tensor, ...]:
    own, tensor, mask = model.decoder_embeddings[name], one["tensor"], one["target_mask"]
    place, labels = _places(own, mask) + own.mod_emb, tensor
    if own.modality.form == "text":
        x, labels = own.token_emb(tensor), tensor.roll(-1, dims=1)
        mask = mask | functional.pad(mask[:, 1:], (0, 1), value=True)
    else:
        x = model.mask_token.expand(*tensor.shape, -1)
    reach = one["reach"].masked_fill(mask, 0)
    return x, place, mask, labels, torch.full_like(tensor, number), reach


def _places(own: Any, mask: torch.Tensor) -> torch.Tensor:
    """Where each token is: in an image, or counted among those that are used."""
    if own.modality.positions != "sequence":
        return own.pos_emb.expand(len(mask), -1, -1)
    return own.pos_emb[0][((~mask).cumsum(dim=1) - 1).clamp(min=0)]


def _selected(parts: list[tuple[torch.Tensor, ...]], length: int) -> list[torch.Tensor]:
    """Those that are used of all modalities, from the left, and zeros behind them. The third of a part is its mask."""
    joined = [torch.cat(one, dim=1) for one in zip(*parts, strict=True)]
    kept = torch.argsort(joined[2].to(torch.int8), dim=1, stable=True)[:, :length]
    found = [one.gather(1, kept[:, :, None].expand(-1, -1, one.shape[2]) if one.ndim == 3 else kept) for one in joined]
    return [one.masked_fill(found[2][:, :, None], 0) if one.ndim == 3 else one for one in found]


def _self_attention(own: SelfAttention, x: torch.Tensor, blocked: torch.Tensor) -> torch.Tensor:
    query, key, value = own.qkv(x).unflatten(2, (3, own.heads, -1)).permute(2, 0, 3, 1, 4)
    return own.proj(_attention(query, key, value, blocked))


def _cross_attention(
    own: CrossAttention, x: torch.Tensor, context: torch.Tensor, blocked: torch.Tensor
) -> torch.Tensor:
    query = own.q(x).unflatten(2, (own.heads, -1)).transpose(1, 2)
    key, value = own.kv(context).unflatten(2, (2, own.heads, -1)).permute(2, 0, 3, 1, 4)
    return own.proj(_attention(query, key, value, blocked))


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, blocked: torch.Tensor) -> torch.Tensor:
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    shares = scores.masked_fill(blocked[:, None], torch.finfo(scores.dtype).min).softmax(dim=-1)
    return (shares @ value).transpose(1, 2).flatten(2)
