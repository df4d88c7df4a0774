"""What labelers around vision transformers share: square views to the network's input, patch tokens to feature maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .extras import naming_extras
from .hub import CheckpointError, load_processor

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

_INTERPOLATIONS: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
"""By Pillow's numbers, with which processors' files name them."""


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its images. Views are squares already, so nothing is cropped: they are scaled to the input.

    size: side of the square input, in pixels. mean, std: of red, green and blue in [0, 1]. interpolation: always
    antialiased. resize_floats: scaled without rounding, as DINOv3's processor does; all others round to bytes.
    """

    size: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    resize_floats: bool = False

    def __call__(self, images: np.ndarray, device: str) -> torch.Tensor:
        """uint8 (batch, height, width, 3) to float32 (batch, 3, size, size) on `device`.

        Resized by torchvision, as the processors of transformers do (open_clip's Pillow is within one grey level).
        """
        import torch

        contiguous = np.require(images, np.uint8, ["C", "W"])  # torch warns of arrays that it can't write to
        pixels = torch.from_numpy(contiguous).to(device).permute(0, 3, 1, 2)
        pixels = self._resized(pixels.float() if self.resize_floats else pixels).float()
        mean, std = (torch.tensor(values, device=device).view(3, 1, 1) * 255 for values in (self.mean, self.std))
        return (pixels - mean) / std

    def _resized(self, pixels: torch.Tensor) -> torch.Tensor:
        if tuple(pixels.shape[2:]) == (self.size, self.size):
            return pixels
        with naming_extras():
            from torchvision.transforms.v2 import InterpolationMode
            from torchvision.transforms.v2.functional import resize
        return resize(pixels, [self.size, self.size], InterpolationMode(self.interpolation), antialias=True)

    def as_in(self, weights: str) -> Preprocessing:
        """This, with mean, std and interpolation of the checkpoint's preprocessor_config.json, where it has one.

        weights: a folder or a hub id in Hugging Face's layout.
        """
        if Path(weights).is_dir() and not (Path(weights) / "preprocessor_config.json").is_file():
            return self
        with naming_extras():
            from transformers import AutoImageProcessor
        processor: Any = load_processor(AutoImageProcessor, weights)
        interpolation = _INTERPOLATIONS.get(processor.resample)
        if interpolation is None:
            raise CheckpointError(
                f"{weights}: preprocessor_config.json asks for resample {processor.resample}; bilinear (2) and bicubic "
                f"(3) can be had"
            )
        return replace(
            self,
            mean=tuple(processor.image_mean),
            std=tuple(processor.image_std),
            interpolation=interpolation,
        )


def feature_maps(patches: torch.Tensor, grid: int) -> list[np.ndarray]:
    """Patch tokens (batch, grid * grid, channels), row by row, to one float16 (channels, grid, grid) per image."""
    import torch

    maps = patches.to(torch.float16).transpose(1, 2).reshape(len(patches), -1, grid, grid)
    return list(maps.contiguous().cpu().numpy())


def vectors(batch: torch.Tensor) -> list[np.ndarray]:
    """(batch, channels) to one float32 (channels,) per image."""
    return list(batch.float().cpu().numpy())
