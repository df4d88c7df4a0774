"""The loss of a step: of each modality's cross-entropy, how much counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from .config import ModelConfig

LossType = Literal["mod", "token"]


def loss_weights(config: ModelConfig, counts: Sequence[int], loss_type: LossType) -> torch.Tensor:
    """float32 (targets,): the loss is the sum of these times the sums of cross-entropies, in the order of
    `config.targets`.

    counts: of each of those, how many tokens are said; where several ranks or batches make one step, of all together.
    loss_type: `mod`: the mean of the modalities' means, a modality of which nothing is said counting as 0. `token`: the
    mean of tokens, each weighted by the number of its logits, as ml-4m does it.
    """
    number = torch.tensor(counts, dtype=torch.float64)
    if loss_type == "mod":
        weights = torch.where(number > 0, 1 / (len(number) * number.clamp(min=1)), 0)
    else:
        logits = torch.tensor([one.vocabulary for one in config.targets], dtype=torch.float64)
        weights = logits / (logits * number).sum().clamp(min=1)
    return weights.float()
