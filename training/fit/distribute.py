"""How a network's blocks are run, and how it is spread over processes."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint

from ..model.fourm import FourM


def prepare(network: FourM, device: torch.device, world: int, half: bool, keep_less: bool, compiled: bool) -> FourM:
    """The network on the device, changed in place; names of parameters stay.

    world: processes among which each block's weights are shared out (FSDP2); with one, all are here. half: weights are
    sent in bfloat16. keep_less: activations of a block are computed again for its gradient. compiled: by
    torch.compile, block by block, since blocks are alike.
    """
    blocks: list[nn.Module] = [*network.encoder, *network.decoder]
    for block in blocks:
        if keep_less:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        if compiled:
            block.compile()
    if world == 1:
        return network.to(device)
    mesh = init_device_mesh(device.type, (world,))
    policy = MixedPrecisionPolicy(torch.bfloat16 if half else None, torch.float32)
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(network, mesh=mesh, mp_policy=policy)
    return network.to(device)


def shared_out(network: FourM) -> None:
    """Each process has its part alone again, of what a forward pass gathered that no backward pass followed: else the
    network's parameters would be others than those that the optimiser knows."""
    if isinstance(network, FSDPModule):
        network.reshard()


def sends_gradients(network: FourM, now: bool) -> None:
    """Whether the next backward pass is the last of a step, whose gradients all processes put together."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(now)
