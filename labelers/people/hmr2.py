"""The network of HMR2.0 (Goel et al. 2023, "Humans in 4D", arXiv 2305.20091): a ViT and an SMPL transformer head.

Modules are named so that the state dict has the published checkpoint's keys, `backbone.*` and `smpl_head.*`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from ..networks.hub import CheckpointError
from ..networks.state_dicts import fill

PATCH = 16
PATCH_PADDING = 2
GRID = (16, 12)
"""Rows and columns of patch tokens, from crops of 256 x 192 pixels."""

BACKBONE_HEADS, HEAD_HEADS = 16, 8
"""Attention heads of the published network: the one size that can't be read from its tensors' shapes."""


class Hmr2(nn.Module):
    """Crops, normalised float32 (N, 3, 256, 256) RGB, to SMPL parameters in float32.

    Returns pose (N, 144), 24 joints of six numbers (see `poses.rotations_from_6d`), betas (N, 10) and camera (N, 3).
    """

    def __init__(self, backbone: Backbone, smpl_head: SmplHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.smpl_head = smpl_head

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.backbone(crops[:, :, :, 32:-32])  # the body's aspect ratio is 192:256
        # the head is a hundredth of the work and ends in numbers that are labels: never in half precision
        with torch.autocast(crops.device.type, enabled=False):
            return self.smpl_head(features.float().flatten(2).transpose(1, 2))


class Backbone(nn.Module):
    """ViTPose's ViT (Xu et al. 2022, arXiv 2204.12484): (N, 3, 256, 192) to features (N, dim, 16, 12)."""

    def __init__(self, dim: int, depth: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, PATCH, PATCH, PATCH_PADDING)})
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + GRID[0] * GRID[1], dim))
        self.blocks = nn.ModuleList([_Block(dim, heads, hidden) for _ in range(depth)])
        self.last_norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        tokens = tokens + self.pos_embed[:, 1:] + self.pos_embed[:, :1]
        for block in self.blocks:
            tokens = block(tokens)
        return self.last_norm(tokens).transpose(1, 2).unflatten(2, GRID)


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.attn["qkv"](self.norm1(tokens)).chunk(3, dim=-1)
        tokens = tokens + self.attn["proj"](_attend(query, key, value, self.heads))
        return tokens + self.mlp["fc2"](gelu(self.mlp["fc1"](self.norm2(tokens))))


class SmplHead(nn.Module):
    """One query that attends to the features (N, tokens, context), and what is read from it is added to mean values."""

    def __init__(self, dim: int, depth: int, heads: int, inner: int, hidden: int, context: int) -> None:
        super().__init__()
        self.transformer = _Decoder(dim, depth, heads, inner, hidden, context)
        self.decpose = nn.Linear(dim, 144)
        self.decshape = nn.Linear(dim, 10)
        self.deccam = nn.Linear(dim, 3)
        self.register_buffer("init_body_pose", torch.empty(1, 144))
        self.register_buffer("init_betas", torch.empty(1, 10))
        self.register_buffer("init_cam", torch.empty(1, 3))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        token = self.transformer(features)
        pose = self.decpose(token) + self.init_body_pose
        return pose, self.decshape(token) + self.init_betas, self.deccam(token) + self.init_cam


class _Decoder(nn.Module):
    """Features (N, tokens, context) to the one query's token (N, dim)."""

    def __init__(self, dim: int, depth: int, heads: int, inner: int, hidden: int, context: int) -> None:
        super().__init__()
        self.to_token_embedding = nn.Linear(1, dim)
        self.pos_embedding = nn.Parameter(torch.empty(1, 1, dim))
        layers = [
            nn.ModuleList(
                [
                    _PreNorm(dim, _SelfAttention(dim, heads, inner)),
                    _PreNorm(dim, _CrossAttention(dim, heads, inner, context)),
                    _PreNorm(dim, _FeedForward(dim, hidden)),
                ]
            )
            for _ in range(depth)
        ]
        self.transformer = nn.ModuleDict({"layers": nn.ModuleList(layers)})

    def forward(self, features: Tensor) -> Tensor:
        token = self.to_token_embedding(features.new_zeros(len(features), 1, 1)) + self.pos_embedding
        for self_attention, cross_attention, feed_forward in self.transformer["layers"]:  # type: ignore[attr-defined]
            token = token + self_attention(token)
            token = token + cross_attention(token, features)
            token = token + feed_forward(token)
        return token[:, 0]


class _PreNorm(nn.Module):
    """Normalises the query alone; the context comes as it is."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)  # eps 1e-5, unlike the backbone's
        self.fn = fn

    def forward(self, token: Tensor, *context: Tensor) -> Tensor:
        return self.fn(self.norm(token), *context)


class _SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, dim))

    def forward(self, token: Tensor) -> Tensor:
        query, key, value = self.to_qkv(token).chunk(3, dim=-1)
        return self.to_out(_attend(query, key, value, self.heads))


class _CrossAttention(nn.Module):
    def __init__(self, dim: int, heads: int, inner: int, context: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(context, 2 * inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, dim))

    def forward(self, token: Tensor, context: Tensor) -> Tensor:
        key, value = self.to_kv(context).chunk(2, dim=-1)
        return self.to_out(_attend(self.to_q(token), key, value, self.heads))


class _FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        # the two identities stand where training has dropout, for the keys' sake
        self.net = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, dim), nn.Identity()
        )

    def forward(self, token: Tensor) -> Tensor:
        return self.net(token)


def _attend(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Multi-head attention of (N, tokens, dim), whose channels are the heads one after the other."""
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    return scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


def build(
    tensors: dict[str, Tensor],
    weights: str | Path,
    backbone_heads: int = BACKBONE_HEADS,
    head_heads: int = HEAD_HEADS,
) -> Hmr2:
    """The network that `tensors` fill, on the CPU and in evaluation mode; its sizes are read from their shapes.

    tensors: the checkpoint's, whose names begin with `backbone.` or `smpl_head.`. weights: what an error calls them.
    Raises CheckpointError where they are another network's.
    """
    block, layer = "backbone.blocks.0.", "smpl_head.transformer.transformer.layers.0."
    try:
        dim = len(tensors["backbone.last_norm.weight"])
        hidden = len(tensors[block + "mlp.fc1.weight"])
        head_dim = len(tensors["smpl_head.transformer.to_token_embedding.weight"])
        inner = len(tensors[layer + "1.fn.to_q.weight"])
        head_hidden = len(tensors[layer + "2.fn.net.0.weight"])
    except KeyError as error:
        raise CheckpointError(f"{weights}: has no {error.args[0]}, so it isn't a checkpoint of HMR2.0") from None
    if dim % backbone_heads or inner % head_heads:
        raise CheckpointError(
            f"{weights}: attention of {dim} and {inner} channels can't be split into HMR2.0's {backbone_heads} and "
            f"{head_heads} heads"
        )
    depth, head_depth = _count(tensors, "backbone.blocks."), _count(tensors, layer.removesuffix("0."))
    with torch.device("meta"):  # what would be filled with random numbers is filled with the checkpoint's
        network = Hmr2(
            Backbone(dim, depth, backbone_heads, hidden),
            SmplHead(head_dim, head_depth, head_heads, inner, head_hidden, dim),
        )
    return fill(network.to_empty(device="cpu"), tensors, weights)


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    """How many modules a list has whose tensors' names are `prefix` and a number."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in tensors if name.startswith(prefix)})
