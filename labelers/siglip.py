"""SigLIP features of the view: a map of patch tokens and one vector.

SigLIP: Zhai et al. 2023, arXiv 2303.15343. SigLIP 2: Tschannen et al. 2025, arXiv 2502.14786.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .contract.kinds import FeatureMap, Vector
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .networks.extras import naming_extras
from .networks.hub import CheckpointError, load_model, read_config
from .networks.preprocessing import Preprocessing, feature_maps, vectors
from .networks.state_dicts import seeded

DEFAULT_WEIGHTS = "google/siglip2-base-patch16-224"
DEFAULTS = {"hidden_size": 768, "image_size": 224, "patch_size": 16, "num_patches": 256}
"""Of the default weights, so that they needn't be fetched to plan a run; and what transformers takes for a number that
a config leaves out."""

HALF = (0.5, 0.5, 0.5)


class Siglip(Labeler):
    """SigLIP's patch tokens after the final norm, and what its attention pooling makes of them as the global vector.

    `siglip`: float16 (dim, grid, grid); `siglip_global`: float32 (dim,), which SigLIP compares with texts, not scaled
    to length 1. Any SigLIP or SigLIP 2 of transformers, also those for images of any shape (`naflex`), which see a
    square view as a square of as many patches as they were trained on. Of a checkpoint with a text tower, the vision
    tower alone is loaded. The view is scaled and normalised as the checkpoint's own processor says.
    """

    on = "view"
    weights = Weights(
        DEFAULT_WEIGHTS,
        "Apache-2.0",
        "https://huggingface.co/google/siglip2-base-patch16-224",
        {"google/siglip-*": "Apache-2.0", "google/siglip2-*": "Apache-2.0"},
    )
    resources = Resources(cpus=1.0, gpus=0.25, memory=2 * 2**30)
    batch_size = 32
    autocast = "bfloat16"  # as it was trained

    def __init__(self, params: Any = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        self._source = self.weights_path or DEFAULT_WEIGHTS
        config: dict[str, Any] = {"model_type": "siglip"}
        if self._source != DEFAULT_WEIGHTS:
            config = read_config(self._source)
        family = str(config.get("model_type")).removesuffix("_vision_model")
        vision = {**DEFAULTS, **config.get("vision_config", config)}
        if family not in ("siglip", "siglip2") or vision.get("vision_use_head") is False:
            what = "without pooling" if family.startswith("siglip") else f"of {config.get('model_type')!r}"
            raise CheckpointError(f"{self._source}: a checkpoint {what}, not SigLIP's whole vision tower")
        self._any_shape, self._patch = family == "siglip2", vision["patch_size"]
        self._grid = math.isqrt(vision["num_patches"]) if self._any_shape else vision["image_size"] // self._patch
        image = self._grid * self._patch if self._any_shape else vision["image_size"]
        self._preprocessing = Preprocessing(image, HALF, HALF, "bilinear" if self._any_shape else "bicubic")
        self.makes = (
            Modality("siglip", FeatureMap(vision["hidden_size"], self._grid, self._grid)),
            Modality("siglip_global", Vector(vision["hidden_size"])),
        )

    def load(self, device: str) -> None:
        with naming_extras():
            from transformers import Siglip2VisionModel, SiglipVisionModel
        self._device = device
        self._model = load_model(Siglip2VisionModel if self._any_shape else SiglipVisionModel, self._source, device)
        self._preprocessing = self._preprocessing.as_in(self._source)

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        """Besides the vision tower there is a text tower, as in the real ones."""
        with naming_extras():
            from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = SiglipConfig(
            vision_config={**sizes, "image_size": 224, "patch_size": 16},
            text_config={**sizes, "vocab_size": 64, "max_position_embeddings": 8},
        )
        with seeded():
            SiglipModel(config).save_pretrained(folder)
        SiglipImageProcessor().save_pretrained(folder)
        return folder

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        import torch

        with torch.inference_mode():
            pixels = self._preprocessing(np.asarray(batch.images), self._device)
            output = self._model(**(self._as_patches(pixels) if self._any_shape else {"pixel_values": pixels}))
            maps = feature_maps(output.last_hidden_state, self._grid)
            return {"siglip": maps, "siglip_global": vectors(output.pooler_output)}

    def _as_patches(self, pixels: Any) -> dict[str, Any]:
        """Normalised images (batch, 3, side, side) as the models for any shape take them: a row of pixels per patch,
        row by row, channels last; all patches count."""
        import torch

        count, cells = len(pixels), (self._grid, self._patch)
        patches = pixels.unflatten(3, cells).unflatten(2, cells).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        return {
            "pixel_values": patches,
            "pixel_attention_mask": torch.ones(patches.shape[:2], dtype=torch.int32, device=self._device),
            "spatial_shapes": torch.tensor([[self._grid, self._grid]] * count),
        }
