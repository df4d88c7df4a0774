"""SAM's mask decoder in two phases, for many prompts on one image (Kirillov et al. 2023, arXiv 2304.02643, appendix A).

Phase one, `look`, runs the two-way transformer and tells how good each mask would be. Phase two, `draw`, makes the
masks that are still wanted. The modules and weights are those of the package that read the checkpoint; the arithmetic
is arranged for one image under many prompts, and equals the package's up to rounding:

- Before the first layer every prompt sees the same image, which is projected once and never copied.
- A prompt has 7 or 8 tokens and the image 4096 places. Where one attends to the other, it is the tokens that are taken
  through the image side's projection, q . (W x) = (W' q) . x, so no projection runs over the 4096 places of a prompt.
- A transposed convolution of size and stride 2 is a linear layer followed by a rearrangement, and the rearrangement can
  wait until after the last one. Parts of the image that are padding aren't upscaled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, scaled_dot_product_attention


@dataclass(frozen=True)
class Projections:
    """The linear layers of one attention between tokens and image, and its number of heads."""

    q: Any
    k: Any
    v: Any
    out: Any
    heads: int

    def per_head(self, layer: Any) -> Tensor:
        """The weight of q, k or v as (heads, head width, channels)."""
        return layer.weight.view(self.heads, -1, layer.weight.shape[1])

    def split(self, x: Tensor) -> Tensor:
        """(..., n, heads * width) to (..., heads, n, width)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    @property
    def scale(self) -> float:
        return (self.q.out_features // self.heads) ** -0.5


@dataclass(frozen=True)
class Layer:
    """One layer of the two-way transformer. self_attention: (q, k, v) to the attended. norms: in the order of use."""

    self_attention: Callable[[Tensor, Tensor, Tensor], Tensor]
    to_image: Projections
    to_tokens: Projections
    mlp: Any
    norms: Sequence[Any]
    is_first: bool


@dataclass(frozen=True)
class Upscaler:
    """Two transposed convolutions of size and stride 2, the first followed by a norm over channels, both by a GELU.

    first, second: weight (4 * channels out, channels in) and bias, see `as_linear`. norm: weight, bias and epsilon.
    """

    first: tuple[Tensor, Tensor]
    norm: tuple[Tensor, Tensor, float]
    second: tuple[Tensor, Tensor]
    activation: Any

    def __call__(self, x: Tensor, middle: Tensor | None, fine: Tensor | None) -> Tensor:
        """(prompts, height, width, channels) to (prompts, height * width * 16, channels / 8).

        The 16 are (a, b, c, d) of row 4 y + 2 a + c and column 4 x + 2 b + d. middle, fine: SAM 2's features of 2 and 4
        times the resolution, (channels, height, width) each, added before the activations.
        """
        prompts, height, width, _ = x.shape
        x = linear(x, *self.first).view(prompts, height, width, 2, 2, -1)
        if middle is not None:
            x = x + _tiles(middle, 2)[:height, :width]
        x = self.activation(layer_norm(x, x.shape[-1:], *self.norm))
        x = linear(x, *self.second).view(prompts, height, width, 2, 2, 2, 2, -1)
        if fine is not None:
            x = x + _tiles(fine, 4).unflatten(2, (2, 2)).unflatten(4, (2, 2)).transpose(3, 4)[:height, :width]
        return self.activation(x).flatten(1, -2)


@dataclass(frozen=True)
class Seen:
    """The image as every prompt finds it. x, position: (places, channels). k, v of the first layer's tokens to image,
    q of its image to tokens: (heads, places, head width). middle, fine: see Upscaler."""

    x: Tensor
    position: Tensor
    k: Tensor
    v: Tensor
    q: Tensor
    height: int
    width: int
    middle: Tensor | None
    fine: Tensor | None


@dataclass(frozen=True)
class Look:
    """Phase one. quality: predicted IoU, (prompts, masks). tokens: (prompts, masks, channels). image: the image as each
    prompt has changed it, (prompts, places, channels)."""

    quality: Tensor
    tokens: Tensor
    image: Tensor


@dataclass(frozen=True)
class Decoder:
    """output_tokens: (tokens, channels), before those of the prompt. quality_token: place of the token that the masks'
    quality is read from; the masks' tokens follow it. The first mask is for unambiguous prompts and left out here;
    mask_heads are those of the others."""

    output_tokens: Tensor
    quality_token: int
    layers: Sequence[Layer]
    last: Projections
    last_norm: Any
    quality_head: Any
    mask_heads: Sequence[Any]
    upscaler: Upscaler

    def prepare(
        self, image: Tensor, position: Tensor, middle: Tensor | None = None, fine: Tensor | None = None
    ) -> Seen:
        """image, position: (channels, height, width), the embedding with that of the absent mask prompt added."""
        x = image.flatten(1).T.contiguous()
        place = position.flatten(1).T.contiguous()
        with_position = x + place
        to_image, to_tokens = self.layers[0].to_image, self.layers[0].to_tokens
        return Seen(
            x,
            place,
            k=to_image.split(to_image.k(with_position)).contiguous(),
            v=to_image.split(to_image.v(x)).contiguous(),
            q=to_tokens.split(to_tokens.q(with_position)).contiguous(),
            height=image.shape[1],
            width=image.shape[2],
            middle=middle,
            fine=fine,
        )

    def look(self, seen: Seen, prompts: Tensor) -> Look:
        """prompts: the embedded prompts, (prompts, tokens, channels)."""
        start = torch.cat([self.output_tokens.expand(len(prompts), -1, -1), prompts], dim=1)
        tokens, image, keys = start, seen.x, seen.x
        for layer in self.layers:
            query = tokens if layer.is_first else tokens + start
            attended = layer.self_attention(query, query, tokens)
            tokens = layer.norms[0](attended if layer.is_first else tokens + attended)
            query = tokens + start
            attended = (
                _shared_look(layer.to_image, query, seen)
                if image is seen.x
                else _look(layer.to_image, query, keys, image)
            )
            tokens = layer.norms[1](tokens + attended)
            tokens = layer.norms[2](tokens + layer.mlp(tokens))
            query = tokens + start
            weights = (
                _shared_weights(layer.to_tokens, query, seen)
                if image is seen.x
                else _weights(layer.to_tokens, query, keys)
            )
            image = layer.norms[3](_add_attended(layer.to_tokens, image, weights, tokens))
            keys = image + seen.position
        first_mask = self.quality_token + 2
        needed = [self.quality_token, *range(first_mask, self.output_tokens.shape[0])]
        tokens, start = tokens[:, needed], start[:, needed]
        tokens = self.last_norm(tokens + _look(self.last, tokens + start, keys, image))
        return Look(self.quality_head(tokens[:, 0])[:, 1:], tokens[:, 1:], image)

    def draw(self, seen: Seen, look: Look, wanted: Tensor, height: int, width: int) -> Tensor:
        """Logits of the masks where `wanted`, bool (prompts, masks), in its order: (n, height, width).

        height, width: the upper left part that is needed, at 4 times the embedding's resolution.
        """
        rows, columns = -(-height // 4), -(-width // 4)
        places = look.image.unflatten(1, (seen.height, seen.width))[:, :rows, :columns]
        drawn = [places.new_zeros(0, 4 * rows, 4 * columns)]
        chosen = wanted.any(dim=1).nonzero().flatten()
        step = 1 if places.device.type == "cpu" else 64
        for prompts in (chosen[start : start + step] for start in range(0, len(chosen), step)):
            features = self.upscaler(places[prompts], seen.middle, seen.fine).transpose(1, 2)
            brushes = torch.stack([head(look.tokens[prompts, mask]) for mask, head in enumerate(self.mask_heads)], 1)
            if len(prompts) == 1:
                tiles = brushes[0][wanted[prompts[0]]] @ features[0]
            else:
                tiles = (brushes @ features)[wanted[prompts]]
            tiles = tiles.view(-1, rows, columns, 2, 2, 2, 2)
            drawn.append(tiles.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * rows, 4 * columns))
        return torch.cat(drawn)[:, :height, :width]


def _look(attention: Projections, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Tokens attend to the image: (prompts, tokens, channels), with keys and values (prompts, places, channels).

    The keys' bias adds the same to all scores of a token, so that softmax takes it away again.
    """
    q = attention.split(attention.q(query) * attention.scale)
    weights = (q @ attention.per_head(attention.k)).flatten(1, 2) @ keys.transpose(1, 2)
    found = (weights.softmax(dim=-1) @ values).unflatten(1, (attention.heads, -1))
    found = found @ attention.per_head(attention.v).transpose(1, 2)
    return attention.out(found.transpose(1, 2).flatten(2) + attention.v.bias)


def _shared_look(attention: Projections, query: Tensor, seen: Seen) -> Tensor:
    """`_look` at the image that all prompts share."""
    q = attention.split(attention.q(query).flatten(0, 1))
    found = scaled_dot_product_attention(q[None], seen.k[None], seen.v[None])[0]
    return attention.out(found.transpose(0, 1).reshape(*query.shape[:2], -1))


def _weights(attention: Projections, tokens: Tensor, places: Tensor) -> Tensor:
    """How much every place (prompts, places, channels) attends to each token, (prompts, heads * tokens, places)."""
    k = attention.split(attention.k(tokens) * attention.scale)
    bias = k @ attention.q.bias.view(attention.heads, -1, 1)
    scores = torch.baddbmm(
        bias.flatten(1, 2), (k @ attention.per_head(attention.q)).flatten(1, 2), places.transpose(1, 2)
    )
    return scores.unflatten(1, (attention.heads, -1)).softmax(dim=2).flatten(1, 2)


def _shared_weights(attention: Projections, tokens: Tensor, seen: Seen) -> Tensor:
    """`_weights` of the image that all prompts share."""
    k = attention.split((attention.k(tokens) * attention.scale).flatten(0, 1))
    scores = (k @ seen.q.transpose(1, 2)).unflatten(1, tokens.shape[:2])
    return scores.softmax(dim=2).transpose(0, 1).flatten(1, 2)


def _add_attended(attention: Projections, image: Tensor, weights: Tensor, tokens: Tensor) -> Tensor:
    """The image with what its places take from the tokens by `weights`: (prompts, places, channels).

    image: shared, or already of this shape and then overwritten. The weights of a head sum up to 1, so each head can
    bring its part of the output's bias.
    """
    v = attention.split(attention.v(tokens))
    out = attention.out.weight.T.unflatten(0, (attention.heads, -1))
    brought = (v @ out + attention.out.bias / attention.heads).flatten(1, 2)
    if image.dim() == 2:
        return torch.baddbmm(image.expand(len(tokens), -1, -1), weights.transpose(1, 2), brought)
    return image.baddbmm_(weights.transpose(1, 2), brought)


def as_linear(convolution: Any) -> tuple[Tensor, Tensor]:
    """Weight (4 * out, in) and bias of the linear layer that a transposed 2 x 2 convolution of stride 2 is."""
    return convolution.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous(), convolution.bias.repeat(4)


def _tiles(features: Tensor, side: int) -> Tensor:
    """(channels, height, width) to (height / side, width / side, side, side, channels)."""
    channels, height, width = features.shape
    tiles = features.view(channels, height // side, side, width // side, side)
    return tiles.permute(1, 3, 2, 4, 0)
