"""What a tokenizer's network would give back if its codes could hold everything: the bound of its reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...labelers.contract.instances import InstanceSet
from ...labelers.contract.kinds import Instances
from ..vq.base import DECODED_AT_ONCE, TrainedTokenizer
from .instance_text import box_coordinates
from .instances import InstancesVQTokenizer
from .mask_codes import paint_mask


def reconstruct_unquantised(tokenizer: TrainedTokenizer, labels: Sequence[Any]) -> list[Any]:
    """The labels after the network's encoder and decoder, without the quantizer between them.

    Of instances only what the network sees changes: masks, or the bodies' poses. A diffusion decoder begins with the
    noise with which `decode` begins.
    """
    examples = [tokenizer.examples(label) for label in labels]
    restored = _through(tokenizer, np.concatenate(examples)) if labels else []
    if not isinstance(tokenizer.kind, Instances):
        return restored
    ends = np.cumsum([len(part) for part in examples])
    parts = [restored[end - len(part) : end] for part, end in zip(examples, ends, strict=True)]
    return [_instances(tokenizer, label, part) for label, part in zip(labels, parts, strict=True)]


def _through(tokenizer: TrainedTokenizer, examples: np.ndarray) -> list[np.ndarray]:
    import torch

    network, restored = tokenizer.network, list[np.ndarray]()
    at_once = 1 if network.config.is_diffusion else DECODED_AT_ONCE
    for start in range(0, len(examples), at_once):
        batch = tokenizer.to_batch(examples[start : start + at_once])
        noise = torch.Generator(batch.device).manual_seed(0)
        restored += tokenizer.contract.from_network(network.reconstruct_unquantised(batch, noise))
    return restored


def _instances(tokenizer: TrainedTokenizer, label: InstanceSet, restored: Sequence[np.ndarray]) -> InstanceSet:
    """The label with what the network made of its masks or poses."""
    if not isinstance(tokenizer, InstancesVQTokenizer):
        poses = np.array(restored, np.float32).reshape(label.attributes["body_pose"].shape)
        return replace(label, attributes={**label.attributes, "body_pose": poses})
    boxes = [[coordinate.value for coordinate in box_coordinates(box)] for box in label.boxes]
    frame = tokenizer.params.frame
    return replace(label, masks=[paint_mask(one, box, frame) for one, box in zip(restored, boxes, strict=True)])
