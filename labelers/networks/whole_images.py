"""Whole images through an image model of transformers, in batches of one input size.

Images that are padded against each other change each other's labels, so here none is: each runs as it would alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np

from ..contract.labeler import Batch
from .hub import CheckpointError


@dataclass(frozen=True)
class Group:
    """Images whose model inputs have one size. places: which images of the batch. inputs: tensors for the model.

    sizes: (height, width) of each image, in pixels.
    """

    places: list[int]
    inputs: dict[str, Any]
    sizes: list[tuple[int, int]]


def check_config(source: str, config: Mapping[str, Any], types: Sequence[str], what: str) -> str:
    """The config's model_type, one of `types`. Raises CheckpointError where it is another one, naming `what`."""
    found = str(config.get("model_type"))
    if found not in types:
        raise CheckpointError(
            f"{source}: a checkpoint of {name_model(config)}, not of {what}; known are {', '.join(sorted(types))}"
        )
    return found


def name_model(config: Mapping[str, Any]) -> str:
    """What a config.json is of: its architectures, or else its model_type."""
    return ", ".join(config.get("architectures") or [repr(config.get("model_type"))])


def group_inputs(processor: Any, images: Sequence[np.ndarray], device: str) -> list[Group]:
    """What the checkpoint's own image processor makes of the images, on `device`, grouped by the size of its output.

    images: uint8 (height, width, 3) RGB. The processor is called once for each size of image, so that it pads none
    against another; groups of one output size are joined. Raises ValueError for a strip that it can't scale.
    """
    import torch

    places_of_size: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, image in enumerate(images):
        places_of_size[image.shape[:2]].append(place)
    parts: dict[Any, list[tuple[list[int], dict[str, Any]]]] = defaultdict(list)
    for size, places in places_of_size.items():
        processed = _process(processor, [images[place] for place in places], size, device)
        tensors = {name: value for name, value in processed.items() if isinstance(value, torch.Tensor)}
        parts[tuple(tensor.shape[1:] for tensor in tensors.values())].append((places, tensors))
    groups = []
    for members in parts.values():
        places = [place for part, _ in members for place in part]
        inputs = {name: torch.cat([tensors[name] for _, tensors in members]) for name in members[0][1]}
        groups.append(Group(places, inputs, [images[place].shape[:2] for place in places]))
    return groups


def run(model: Any, inputs: Mapping[str, Any]) -> Any:
    """The model's output on `inputs`, its floats as float32 whatever it ran in."""
    import torch

    with torch.inference_mode():
        outputs = model(**inputs)
    for name, value in outputs.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            outputs[name] = value.float()
    return outputs


def outputs_of(model: Any, processor: Any, batch: Batch, device: str) -> Iterator[tuple[Group, Any]]:
    """Every group of the batch's whole images, with the model's output on it."""
    images = [] if batch.images is None else list(batch.images)
    for group in group_inputs(processor, images, device):
        yield group, run(model, group.inputs)


def post_process(function: Any, outputs: Any, group: Group, max_side: int) -> list[Any]:
    """What `function`, a processor's post-processing, makes of every image's output at the `bounded` size.

    Those of ZoeDepth and Sapiens 2 ask for the image's own size, too, to cut off the padding that their processors
    give each image.
    """
    sources = {"source_sizes": group.sizes} if "source_sizes" in signature(function).parameters else {}
    return function(outputs, target_sizes=[bounded(size, max_side) for size in group.sizes], **sources)


def bounded(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """(height, width) scaled down, where need be, so that the longer side is `max_side`; at least 1 x 1."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _process(processor: Any, images: list[np.ndarray], size: tuple[int, int], device: str) -> Mapping[str, Any]:
    import torch

    try:
        return processor(images=images, return_tensors="pt", input_data_format="channels_last", device=device)
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError) as error:
        if max(size) <= 20 * min(size):
            raise
        raise ValueError(f"an image of {size[1]} x {size[0]} pixels is too narrow for the model's input") from error
