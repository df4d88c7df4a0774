"""Detection: boxes of things of known classes, by any object detector of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.instances import InstanceSet
from .contract.kinds import Instances
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .networks.extras import naming_extras
from .networks.hub import CheckpointError, load_model, load_processor, read_config
from .networks.state_dicts import seeded
from .networks.whole_images import name_model, outputs_of

DEFAULT_WEIGHTS = "PekingU/rtdetr_v2_r50vd"
TEXT_PROMPTED = ("grounding-dino", "mm-grounding-dino", "omdet-turbo", "owlv2", "owlvit")
"""Architectures that are told by words what to look for."""


class DetParams(BaseModel):
    """threshold: instances that score less are dropped; 0.6 as in 4M. max_instances: the best are kept, at most."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    threshold: float = Field(default=0.6, ge=0, le=1)
    max_instances: int = Field(default=100, ge=1, le=1000)


class Det(Labeler):
    """Boxes of things with their classes and scores: RT-DETR, D-FINE, RF-DETR, DETR and their kin.

    `det`: Instances of the whole image, the best score first, labelled with the checkpoint's class names; boxes are
    clipped to the image. What the checkpoint's own processor makes of the model's output, scores above `threshold`.
    The default is RT-DETRv2 (Lv et al. 2024, arXiv 2407.17140) with COCO's 80 classes, in place of 4M's ViTDet.
    """

    makes = (Modality("det", Instances(scores=True)),)
    on = "image"
    weights = Weights(
        DEFAULT_WEIGHTS,
        "Apache-2.0",
        "https://huggingface.co/PekingU/rtdetr_v2_r50vd",
        {
            "PekingU/rtdetr_*": "Apache-2.0",
            "ustc-community/dfine-*": "Apache-2.0",
            "Roboflow/rf-detr-*": "Apache-2.0",
            "facebook/detr-*": "Apache-2.0",
            "hustvl/yolos-*": "Apache-2.0",
            "SenseTime/deformable-detr*": "Apache-2.0",
            "microsoft/conditional-detr-*": "Apache-2.0",
        },
    )
    resources = Resources(cpus=1.0, gpus=0.25, memory=900 * 2**20)  # 43 M parameters, activations at 640 x 640
    batch_size = 16
    autocast = "float16"
    Params: ClassVar[type[BaseModel]] = DetParams

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        self._source = self.weights_path or DEFAULT_WEIGHTS
        if self._source != DEFAULT_WEIGHTS:
            _check_detector(self._source, read_config(self._source))

    def load(self, device: str) -> None:
        with naming_extras():
            from transformers import AutoImageProcessor, AutoModelForObjectDetection
        self._device = device
        self._processor = load_processor(AutoImageProcessor, self._source)
        self._model = load_model(AutoModelForObjectDetection, self._source, device)
        self._names = {int(index): str(name) for index, name in self._model.config.id2label.items()}

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        found: list[InstanceSet | None] = [None] * len(batch)
        for group, outputs in outputs_of(self._model, self._processor, batch, self._device):
            results = self._processor.post_process_object_detection(
                outputs, threshold=self.params.threshold, target_sizes=group.sizes
            )
            for place, size, result in zip(group.places, group.sizes, results, strict=True):
                found[place] = to_instances(result, size, self._names, self.params.max_instances)
        return {"det": found}

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        """An RT-DETRv2 of 16 channels that knows eight of COCO's classes and finds some in any photograph."""
        import torch
        from transformers import RTDetrImageProcessor, RTDetrV2Config, RTDetrV2ForObjectDetection

        names = ("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck")
        config = RTDetrV2Config(
            backbone_config={
                "model_type": "rt_detr_resnet",
                "embedding_size": 8,
                "hidden_sizes": [8, 8, 8, 8],
                "depths": [1, 1, 1, 1],
                "layer_type": "basic",
                "out_indices": [2, 3, 4],
            },
            encoder_in_channels=[8, 8, 8],
            encoder_hidden_dim=16,
            encoder_ffn_dim=16,
            encoder_attention_heads=2,
            d_model=16,
            decoder_in_channels=[16, 16, 16],
            decoder_ffn_dim=16,
            decoder_layers=2,
            decoder_attention_heads=2,
            decoder_n_points=2,
            num_queries=8,
            num_denoising=0,
            initializer_range=0.4,
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
        )
        with seeded():
            model: Any = RTDetrV2ForObjectDetection(config)
            with torch.inference_mode():
                common = model.eval()(torch.rand(4, 3, 128, 128)).last_hidden_state.mean(dim=(0, 1))
            common = torch.nn.functional.normalize(common, dim=0).clone()
            for layer in model.class_embed:
                weight = torch.randn(layer.weight.shape) * 0.5
                weight[0] *= 0.3
                # what all queries share is taken out, else they would be of one class
                layer.weight.data = weight - torch.outer(weight @ common, common)
                layer.bias.data = torch.tensor([1.0] + [-1.5] * (len(names) - 1))
            for layer in model.bbox_embed:
                torch.nn.init.normal_(layer.layers[-1].weight, std=0.2)
        model.model.decoder.class_embed, model.model.decoder.bbox_embed = model.class_embed, model.bbox_embed
        model.save_pretrained(folder)
        RTDetrImageProcessor(size={"height": 128, "width": 128}).save_pretrained(folder)
        return folder


def to_instances(
    result: Mapping[str, Any], size: tuple[int, int], names: Mapping[int, str], max_instances: int
) -> InstanceSet:
    """What a processor's post_process_object_detection found in one image, the best score first.

    result: boxes (N, 4) as x0 y0 x1 y1 in pixels, labels (N,) and scores (N,), tensors. size: the image's (height,
    width). Boxes are clipped to the image; those that lie outside it are dropped.
    """
    height, width = size
    boxes = result["boxes"].float().cpu().numpy() / np.array([width, height, width, height], np.float32)
    scores = result["scores"].float().cpu().numpy()
    labels = result["labels"].cpu().numpy()
    order = np.argsort(-scores, kind="stable")
    inside = ((boxes[:, :2] < 1) & (boxes[:, 2:] > 0)).all(axis=1)
    best = order[inside[order]][:max_instances]
    return InstanceSet(boxes[best].clip(0, 1), [names[int(label)] for label in labels[best]], scores[best])


def _check_detector(source: str, config: Mapping[str, Any]) -> None:
    """Raises CheckpointError for a checkpoint of anything but a detector with classes of its own."""
    found = config.get("model_type")
    if found in TEXT_PROMPTED:
        raise CheckpointError(f"{source}: {found} must be told by words what to look for; that is what open_det does")
    if not any(name.endswith("ForObjectDetection") for name in config.get("architectures") or []):
        raise CheckpointError(
            f"{source}: a checkpoint of {name_model(config)}, not of an object detector of transformers "
            f"(RTDetrV2ForObjectDetection, DFineForObjectDetection, DetrForObjectDetection, ...)"
        )
