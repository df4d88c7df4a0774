"""Surface normals: which way each pixel's surface faces, by any normal estimator of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.kinds import Image
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .networks.extras import naming_extras
from .networks.hub import load_model, load_processor, read_config
from .networks.state_dicts import seeded
from .networks.whole_images import check_config, outputs_of, post_process

DEFAULT_WEIGHTS = "google/tipsv2-b14-dpt"

NORMALS = Modality("normal", Image(channels=3, dtype="uint8", content="normals"))


class NormalParams(BaseModel):
    """max_side: longer side of the map, at most, in pixels; views are cut from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_side: int = Field(default=640, ge=16, le=8192)


class Normal(Labeler):
    """Surface normals of every pixel: TIPSv2 with its DPT head, Sapiens 2 for pictures of people.

    `normal`: uint8 (height, width, 3), (n + 1) / 2 * 255 of unit vectors, as 4M stores them; the image's size or its
    reduction to `max_side`, as the checkpoint's own processor scales the prediction, brought back to length 1. x lies
    along the image's rows, and turns with a mirror; which way the other axes point is as the checkpoint was trained.
    The default is TIPSv2 B/14 (arXiv 2604.12012), whose normals head was trained on NYU Depth V2: rooms.
    """

    makes = (NORMALS,)
    on = "image"
    weights = Weights(
        DEFAULT_WEIGHTS,
        "Apache-2.0",
        "https://huggingface.co/google/tipsv2-b14-dpt",
        {"google/tipsv2-*-dpt": "Apache-2.0"},
    )
    resources = Resources(cpus=1.0, gpus=0.25, memory=1200 * 2**20)  # 110 M parameters, activations at 448 x 448
    batch_size = 16
    autocast = "float16"
    Params: ClassVar[type[BaseModel]] = NormalParams

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        self._source = self.weights_path or DEFAULT_WEIGHTS
        if self._source != DEFAULT_WEIGHTS:
            check_config(self._source, read_config(self._source), ("sapiens2", "tipsv2_dpt"), "a normal estimator")

    def load(self, device: str) -> None:
        with naming_extras():
            from transformers import AutoImageProcessor, AutoModelForNormalEstimation
        self._device = device
        self._processor = load_processor(AutoImageProcessor, self._source)
        self._model = load_model(AutoModelForNormalEstimation, self._source, device)

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        maps: list[np.ndarray | None] = [None] * len(batch)
        for group, outputs in outputs_of(self._model, self._processor, batch, self._device):
            function = self._processor.post_process_normal_estimation
            results = post_process(function, outputs, group, self.params.max_side)
            for place, result in zip(group.places, results, strict=True):
                maps[place] = to_bytes(result["normals"].permute(1, 2, 0).cpu().numpy())
        return {"normal": maps}

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        """A TIPSv2-DPT of 16 channels, whose normals lean to the viewer and differ from place to place."""
        import torch
        from transformers import Tipsv2DptConfig, Tipsv2DptForNormalEstimation, Tipsv2DptImageProcessor

        config = Tipsv2DptConfig(
            backbone_config={
                "model_type": "tipsv2_vision_model",
                "hidden_size": 16,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "image_size": 112,
                "out_indices": [1, 2, 3, 4],
                "apply_layernorm": True,
                "reshape_hidden_states": False,
            },
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
        )
        with seeded():
            model: Any = Tipsv2DptForNormalEstimation(config)
            torch.nn.init.normal_(model.decoder.head.weight, std=0.3)
        with torch.no_grad():
            model.decoder.head.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
        model.save_pretrained(folder)
        Tipsv2DptImageProcessor(size={"height": 112, "width": 112}).save_pretrained(folder)
        return folder


def to_bytes(normals: np.ndarray) -> np.ndarray:
    """Vectors (height, width, 3) as the normals of their directions, (n + 1) / 2 * 255 rounded, uint8.

    Raises ValueError for NaN or infinite numbers, which bytes can't show.
    """
    if not np.isfinite(normals).all():
        raise ValueError("the predicted normals aren't all finite")
    lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
    return ((normals / np.maximum(lengths, 1e-12) + 1) * 127.5).round().astype(np.uint8)
