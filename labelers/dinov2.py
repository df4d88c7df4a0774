"""DINOv2 features: a map of patch tokens and one vector for the whole view (Oquab et al. 2023, arXiv 2304.07193).

DINOv3 (Siméoni et al. 2025, arXiv 2508.10104) by the same code: it differs in patch size and preprocessing alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.kinds import FeatureMap, Vector
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .networks.extras import naming_extras
from .networks.hub import CheckpointError, load_model, read_config
from .networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, feature_maps, vectors
from .networks.state_dicts import seeded

DEFAULT_WEIGHTS = "facebook/dinov2-base"
BASE_CONFIG: dict[str, Any] = {"model_type": "dinov2", "hidden_size": 768, "patch_size": 14, "image_size": 518}
"""What must be known of the default weights before they are fetched."""


class Dinov2Params(BaseModel):
    """size: side of the model's input in pixels, a multiple of its patch size. global_from: the class token ("cls")
    or the mean of the patch tokens ("mean")."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int = Field(default=224, ge=14, le=1120)
    global_from: Literal["cls", "mean"] = "cls"


class Dinov2(Labeler):
    """DINOv2's or DINOv3's patch tokens after the final norm, and the class token as the global vector.

    Any DINOv2 or DINOv3 transformer of transformers, with or without registers, which are left out. `dinov2`: float16
    (dim, size / patch, size / patch), where DINOv2's patches are 14 pixels wide and DINOv3's 16; `dinov2_global`:
    float32 (dim,). The view is scaled to `size`; mean, std and interpolation are those of the checkpoint's own
    processor, or where its folder has none, ImageNet's and bicubic (bilinear for DINOv3).
    """

    on = "view"
    version = 2
    licence = "Apache-2.0"
    weights = Weights(
        DEFAULT_WEIGHTS,
        "Apache-2.0",
        "https://github.com/facebookresearch/dinov2",
        {"facebook/dinov2-*": "Apache-2.0", "facebook/dinov3-*": "DINOv3 License"},
    )
    resources = Resources(cpus=1.0, gpus=0.25, memory=2 * 2**30)
    batch_size = 32
    autocast = "float16"
    Params: ClassVar[type[BaseModel]] = Dinov2Params

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        self._source = self.weights_path or DEFAULT_WEIGHTS
        config = BASE_CONFIG if self._source == DEFAULT_WEIGHTS else read_config(self._source)
        if config.get("model_type") not in ("dinov2", "dinov2_with_registers", "dinov3_vit"):
            raise CheckpointError(f"{self._source}: a checkpoint of {config.get('model_type')!r}, not of DINOv2 or 3")
        patch, dim = int(config["patch_size"]), int(config["hidden_size"])
        if self.params.size % patch:
            raise ValueError(f"dinov2: size {self.params.size} isn't a multiple of the model's patch size {patch}")
        self._grid = self.params.size // patch
        self._preprocessing = Preprocessing(self.params.size)
        if config["model_type"] == "dinov3_vit":
            self._preprocessing = Preprocessing(self.params.size, interpolation="bilinear", resize_floats=True)
            self.autocast = "bfloat16"  # its activations leave float16's range
        self.makes = (
            Modality("dinov2", FeatureMap(dim, self._grid, self._grid)),
            Modality("dinov2_global", Vector(dim)),
        )

    def load(self, device: str) -> None:
        with naming_extras():
            from transformers import AutoModel
        self._device = device
        self._model = load_model(AutoModel, self._source, device)
        self._preprocessing = self._preprocessing.as_in(self._source)
        self._skipped = 1 + getattr(self._model.config, "num_register_tokens", 0)

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        with naming_extras():
            from transformers import BitImageProcessor, Dinov2Config, Dinov2Model
        config = Dinov2Config(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14,
            initializer_range=0.2,
        )  # fmt: skip
        with seeded():
            Dinov2Model(config).save_pretrained(folder)
        processor = BitImageProcessor(
            size={"shortest_edge": 256}, image_mean=list(IMAGENET_MEAN), image_std=list(IMAGENET_STD)
        )
        processor.save_pretrained(folder)
        return folder

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        import torch

        with torch.inference_mode():
            pixels = self._preprocessing(np.asarray(batch.images), self._device)
            tokens = self._model(pixels).last_hidden_state.float()
            patches = tokens[:, self._skipped :]
            pooled = tokens[:, 0] if self.params.global_from == "cls" else patches.mean(dim=1)
            return {"dinov2": feature_maps(patches, self._grid), "dinov2_global": vectors(pooled)}
