"""DINOv2 features: a map of patch tokens and one vector for the whole view (Oquab et al. 2023, arXiv 2304.07193)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .hub import CheckpointError, load_model, read_config
from .kinds import FeatureMap, Vector
from .labeler import Batch, Labeler, Modality, Resources, Weights
from .registry import naming_extras

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DEFAULT_WEIGHTS = "facebook/dinov2-base"
BASE_CONFIG: dict[str, Any] = {"model_type": "dinov2", "hidden_size": 768, "patch_size": 14, "image_size": 518}
"""What must be known of the default weights before they are fetched; also the model that `weights: random` makes."""


class Dinov2Params(BaseModel):
    """size: side of the model's input in pixels, a multiple of its patch size. global_from: the class token ("cls")
    or the mean of the patch tokens ("mean")."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int = Field(default=224, ge=14, le=1120)
    global_from: Literal["cls", "mean"] = "cls"


class Dinov2(Labeler):
    """DINOv2's patch tokens after the final norm, and the class token as the global vector.

    Any DINOv2 of transformers, with or without registers. `dinov2`: float16 (dim, size / 14, size / 14);
    `dinov2_global`: float32 (dim,).
    """

    on = "view"
    licence = "Apache-2.0"
    weights = Weights(DEFAULT_WEIGHTS, "Apache-2.0", "https://github.com/facebookresearch/dinov2")
    resources = Resources(cpus=1.0, gpus=0.25, memory=2 * 2**30)
    batch_size = 32
    autocast = "float16"
    Params: ClassVar[type[BaseModel]] = Dinov2Params

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        self._source = self.weights_path or DEFAULT_WEIGHTS
        config = BASE_CONFIG if self._source in ("random", DEFAULT_WEIGHTS) else read_config(self._source)
        if config.get("model_type") not in ("dinov2", "dinov2_with_registers"):
            raise CheckpointError(f"{self._source}: a checkpoint of {config.get('model_type')!r}, not of DINOv2")
        patch, dim = int(config["patch_size"]), int(config["hidden_size"])
        if self.params.size % patch:
            raise ValueError(f"dinov2: size {self.params.size} isn't a multiple of the model's patch size {patch}")
        self._grid = self.params.size // patch
        self.makes = (
            Modality("dinov2", FeatureMap(dim, self._grid, self._grid)),
            Modality("dinov2_global", Vector(dim)),
        )

    def load(self, device: str) -> None:
        with naming_extras():
            import torch
            from transformers import AutoModel, Dinov2Config, Dinov2Model
        self._device = device
        if self._source == "random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model: Any = Dinov2Model(Dinov2Config(**BASE_CONFIG))
            self._model = model.eval().requires_grad_(False).to(device)
        else:
            self._model = load_model(AutoModel, self._source, device)
        self._skipped = 1 + getattr(self._model.config, "num_register_tokens", 0)

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        import torch

        with torch.inference_mode():
            tokens = self._model(self._pixels(np.asarray(batch.images))).last_hidden_state.float()
        patches = tokens[:, self._skipped :]
        vectors = tokens[:, 0] if self.params.global_from == "cls" else patches.mean(dim=1)
        maps = patches.transpose(1, 2).reshape(len(batch), -1, self._grid, self._grid)
        return {
            "dinov2": list(maps.to(torch.float16).contiguous().cpu().numpy()),
            "dinov2_global": list(vectors.cpu().numpy()),
        }

    def _pixels(self, images: np.ndarray) -> Any:
        """uint8 (batch, height, width, 3) to the model's float32 (batch, 3, size, size), normalised as ImageNet's."""
        import torch
        from torch.nn.functional import interpolate

        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self._device).permute(0, 3, 1, 2).float() / 255
        size = self.params.size
        if tuple(pixels.shape[2:]) != (size, size):
            pixels = interpolate(pixels, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
        mean = torch.tensor(IMAGENET_MEAN, device=self._device).view(3, 1, 1)
        std = torch.tensor(IMAGENET_STD, device=self._device).view(3, 1, 1)
        return (pixels - mean) / std
