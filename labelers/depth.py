"""Depth: how far away each pixel is, by any depth estimator of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.kinds import Image
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .networks.extras import naming_extras
from .networks.hub import load_model, load_processor, read_config
from .networks.state_dicts import seeded
from .networks.whole_images import bounded, check_config, outputs_of, post_process

DEFAULT_WEIGHTS = "depth-anything/Depth-Anything-V2-Small-hf"
Unit = Literal["metre", "relative inverse"]
METRE: Unit = "metre"
INVERSE: Unit = "relative inverse"

UNITS: dict[str, Unit] = {
    "depth_pro": METRE,
    "dpt": INVERSE,
    "glpn": METRE,
    "tipsv2_dpt": METRE,
    "zoedepth": METRE,
}
"""What the architectures predict whose config.json doesn't say. DPT is here as MiDaS trained it."""


class DepthParams(BaseModel):
    """max_side: longer side of the map, at most, in pixels; views are cut from it. unit: what the checkpoint predicts,
    where its config.json doesn't say so or says it wrong (a DPT that was trained on metres, say)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_side: int = Field(default=640, ge=16, le=8192)
    unit: Unit | None = None


class Depth(Labeler):
    """Depth of every pixel: Depth Anything, DPT, ZoeDepth, Depth Pro and their kin.

    `depth`: float32 (height, width), the image's size or its reduction to `max_side`, as the checkpoint's own
    processor scales the prediction. Its unit is "metre", the distance along the optical axis (larger is farther), or
    "relative inverse": 1 / distance up to an unknown scale and shift (larger is nearer; Ranftl et al. 2020,
    arXiv 1907.01341). The default is Depth Anything V2 Small (Yang et al. 2024, arXiv 2406.09414), which is relative.
    """

    on = "image"
    weights = Weights(
        DEFAULT_WEIGHTS,
        "Apache-2.0",
        "https://huggingface.co/depth-anything/Depth-Anything-V2-Small-hf",
        {
            "depth-anything/*-Small-hf": "Apache-2.0",
            "depth-anything/*-Base-hf": "CC-BY-NC-4.0",
            "depth-anything/*-Large-hf": "CC-BY-NC-4.0",
            "apple/DepthPro-hf": "apple-amlr",
            "Intel/dpt-large": "Apache-2.0",
            "Intel/dpt-hybrid-midas": "Apache-2.0",
            "Intel/dpt-beit-*": "MIT",
            "Intel/dpt-swinv2-*": "MIT",
            "Intel/zoedepth-*": "MIT",
            "google/tipsv2-*-dpt": "Apache-2.0",
            "vinvino02/glpn-*": "Apache-2.0",
        },
    )
    resources = Resources(cpus=1.0, gpus=0.25, memory=700 * 2**20)  # 25 M parameters, activations at 518 x 686
    batch_size = 16
    autocast = "float16"
    Params: ClassVar[type[BaseModel]] = DepthParams

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        self._source = self.weights_path or DEFAULT_WEIGHTS
        unit = self.params.unit or (INVERSE if self._source == DEFAULT_WEIGHTS else _unit(self._source))
        self.makes = (Modality("depth", Image(channels=1, dtype="float32", content="intensity", unit=unit)),)

    def load(self, device: str) -> None:
        with naming_extras():
            from transformers import AutoImageProcessor, AutoModelForDepthEstimation
        self._device = device
        self._processor = load_processor(AutoImageProcessor, self._source)
        self._model = load_model(AutoModelForDepthEstimation, self._source, device)

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        maps: list[np.ndarray | None] = [None] * len(batch)
        for group, outputs in outputs_of(self._model, self._processor, batch, self._device):
            function = self._processor.post_process_depth_estimation
            results = post_process(function, outputs, group, self.params.max_side)
            for place, size, result in zip(group.places, group.sizes, results, strict=True):
                # the package drops axes of length 1
                depth = result["predicted_depth"].reshape(bounded(size, self.params.max_side))
                maps[place] = depth.cpu().numpy()
        return {"depth": maps}

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        """A Depth Anything of 8 channels; its maps differ from image to image and have no zeros."""
        import torch
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, DPTImageProcessor

        config = DepthAnythingConfig(
            backbone_config={
                "model_type": "dinov2",
                "image_size": 70,
                "hidden_size": 16,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "out_indices": [1, 2, 3, 4],
                "reshape_hidden_states": False,
            },
            reassemble_hidden_size=16,
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            head_hidden_size=8,
            initializer_range=0.15,
        )
        with seeded():
            model: Any = DepthAnythingForDepthEstimation(config)
        with torch.no_grad():
            model.head.conv3.bias.fill_(3)
        model.save_pretrained(folder)
        DPTImageProcessor(
            size={"height": 126, "width": 126},
            keep_aspect_ratio=True,
            ensure_multiple_of=14,
            resample=3,
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        ).save_pretrained(folder)
        return folder


def _unit(source: str) -> Unit:
    """What the checkpoint predicts, by its config.json."""
    config = read_config(source)
    found = check_config(source, config, ("depth_anything", *UNITS), "a depth estimator whose unit is known")
    if found == "depth_anything":
        return METRE if config.get("depth_estimation_type") == "metric" else INVERSE
    return UNITS[found]
