"""What the training of a tokenizer makes small: how far a network's output is from what it should restore.

The objectives are those of 4M (arXiv 2406.09406, D). All are means over the whole batch, as float32 scalars; every
image weighs the same, since all of a batch have one size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor
from torch.nn import functional


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of equal shapes."""
    return functional.mse_loss(prediction, target)


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of equal shapes."""
    return functional.l1_loss(prediction, target)


def smooth_l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Huber's loss with its bend at 1: half the squared error below, the absolute error less a half above."""
    return functional.smooth_l1_loss(prediction, target)


def cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - cosine of the angle between vectors, which lie along dimension 1 of (B, C, ...); blind to their lengths."""
    return (1 - functional.cosine_similarity(prediction, target, dim=1)).mean()


def cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Of class logits (B, n_labels, H, W) against class ids, int64 (B, H, W), in nats."""
    return functional.cross_entropy(prediction, target)


def binary_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Of logits against shares of a mask in [0, 1], equal shapes, in nats."""
    return functional.binary_cross_entropy_with_logits(prediction, target)


OBJECTIVES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    one.__name__: one for one in (mse, l1, smooth_l1, cosine, cross_entropy, binary_cross_entropy)
}


def loss(objective: str, prediction: Tensor, target: Tensor) -> Tensor:
    """The objective of that name, in float32 whatever the network computed in.

    Raises ValueError for an unknown name and for shapes that don't belong together: broadcasting them would train the
    network to something else without a word.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"there is no objective {objective!r}; there are {', '.join(OBJECTIVES)}")
    wanted = target.shape
    if objective == "cross_entropy":
        wanted = (*target.shape[:1], *prediction.shape[1:2], *target.shape[1:])
    if tuple(prediction.shape) != tuple(wanted):
        raise ValueError(
            f"{objective}: the network gives {tuple(prediction.shape)}, which doesn't fit a target of "
            f"{tuple(target.shape)}"
        )
    target = target if objective == "cross_entropy" else target.float()
    return OBJECTIVES[objective](prediction.float(), target)
