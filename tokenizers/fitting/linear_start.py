"""A network's start as a linear autoencoder: when training begins, its codes are k-means of principal components.

From random weights a small network takes thousands of steps to find what k-means of patches finds at once, and may
never find it where patches are many and alike, as those of edges are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..codebooks.kmeans import kmeans
from ..networks.finite_scalar import FiniteScalarQuantizer
from ..networks.quantizers import rows_of
from ..networks.vit import Block, ViTDecoder, ViTEncoder

if TYPE_CHECKING:
    from ..networks.vq_network import VQ

_MOST_LATENTS = 2**17


class Components(NamedTuple):
    """Principal components of cells: mean (dim,), directions (dim, k) of unit length, variances (k,); largest first."""

    mean: torch.Tensor
    directions: torch.Tensor
    variances: torch.Tensor


def takes_linear_start(network: VQ) -> bool:
    """Whether its encoder is a ViT on numbers: class ids are embedded first, and vectors have other networks."""
    return isinstance(network.encoder, ViTEncoder) and network.config.n_labels is None


@torch.no_grad()
def start_linear(network: VQ, batches: Iterable[torch.Tensor], gain: float = 1.0, offset: float = 0.0) -> None:
    """Sets the weights so that latents are the principal components of the cells (patches of pixels, or vectors of a
    feature map), and a ViT decoder's output is `gain` times what these restore, plus `offset`.

    Blocks begin as the identity: what they add to their input is zero. The components take those directions of the
    network's width in which position embeddings are smallest; the others keep their random weights, for the blocks.
    The latent's numbers have unit variance together, for finite scalar quantisation each; those for which there is no
    component are zero until training finds a use for them.

    batches: float32 (B, channels, height, width) of the network's input.
    """
    encoder, decoder = network.encoder, getattr(network, "decoder", None)
    assert isinstance(encoder, ViTEncoder)
    proj = encoder.proj
    found = components_of(batches, proj.kernel_size[0], min(network.config.latent_dim, proj.out_channels // 2))
    variances = found.variances.clamp(min=1e-8 * float(found.variances[0]) + 1e-12)
    scale = variances if isinstance(network.quantize, FiniteScalarQuantizer) else variances.mean().expand_as(variances)
    scale = scale.rsqrt()
    ways = _quiet_directions(encoder.pos_emb, len(scale))
    weight = proj.weight.view(proj.out_channels, -1)
    weight -= ways @ (ways.T @ weight)
    weight += ways @ found.directions.T
    assert proj.bias is not None
    proj.bias.copy_(-weight @ found.mean)
    network.quant_proj.weight.zero_()
    network.quant_proj.weight[: len(scale), :, 0, 0] = ways.T * scale[:, None]
    _without_bias(network.quant_proj)
    _silence(encoder)
    if isinstance(decoder, ViTDecoder):
        ways = _quiet_directions(decoder.pos_emb, len(scale))
        assert isinstance(network.post_quant_proj, nn.Conv2d)
        network.post_quant_proj.weight[:, : len(scale), 0, 0] = ways / scale
        _without_bias(network.post_quant_proj)
        decoder.out_proj.weight.copy_(gain * found.directions @ ways.T)
        decoder.out_proj.bias.copy_(gain * found.mean + offset)
        _silence(decoder)


@torch.no_grad()
def start_codes(network: VQ, batches: Iterable[torch.Tensor], latents_at_once: int, seed: int) -> None:
    """Makes the codes k-means of the latents, in place of those of the first batch, which are few. Codes that k-means
    leaves over double others, until they are replaced as unused.

    latents_at_once: of all workers in one training step.
    """
    rest = torch.cat([rows_of(network.latents(batch)).cpu() for batch in batches]).numpy()
    rest = rest[np.sort(np.random.default_rng(seed).permutation(len(rest))[:_MOST_LATENTS])]
    for codebook in network.quantize.ema_codebooks:
        points = rest / np.linalg.norm(rest, axis=1, keepdims=True).clip(1e-12) if codebook.cosine else rest
        clusters = kmeans(points, len(codebook.embed), seed, spherical=codebook.cosine)
        counts = np.zeros(len(codebook.embed), np.float32)
        counts[: len(clusters.centroids)] = np.bincount(clusters.ids, minlength=len(clusters.centroids))
        means = clusters.centroids[np.arange(len(counts)) % len(clusters.centroids)]
        codebook.start(torch.from_numpy(means), torch.from_numpy(counts * (latents_at_once / len(rest))))
        rest = rest - clusters.centroids[clusters.ids]


def components_of(batches: Iterable[torch.Tensor], patch: int, most: int) -> Components:
    """At most `most` principal components of all squares of `patch` pixels, channel by channel and row by row."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        rows = functional.unfold(batch, patch, stride=patch).transpose(1, 2).flatten(0, 1).double().cpu()
        count, total, squares = count + len(rows), total + rows.sum(0), squares + rows.T @ rows
    mean = total / count
    variances, directions = torch.linalg.eigh(squares / count - torch.outer(mean, mean))
    kept = slice(-most, None)
    return Components(mean.float(), directions[:, kept].flip(1).float(), variances[kept].flip(0).clamp(min=0).float())


def _quiet_directions(embedding: torch.Tensor, number: int) -> torch.Tensor:
    """(width, number): orthonormal directions in which the embeddings (1, width, rows, columns) are smallest."""
    _, _, directions = torch.linalg.svd(embedding[0].flatten(1).T.double(), full_matrices=True)
    return directions[-number:].T.float()


def _without_bias(proj: nn.Conv2d) -> None:
    assert proj.bias is not None
    proj.bias.zero_()


def _silence(part: ViTEncoder | ViTDecoder) -> None:
    """Makes the blocks and the MLP after them add nothing."""
    last: list[nn.Linear] = [part.post_mlp.fc2] if part.post_mlp is not None else []
    for block in part.blocks:
        assert isinstance(block, Block)
        last += [block.attn.proj, block.mlp.fc2]
    for layer in last:
        layer.weight.zero_()
