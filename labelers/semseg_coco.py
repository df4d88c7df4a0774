"""Semantic segmentation: which of COCO's 133 panoptic classes each pixel belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.kinds import Image
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .networks.extras import naming_extras
from .networks.hub import CheckpointError, load_model, load_processor, read_config
from .networks.state_dicts import seeded
from .networks.whole_images import bounded, check_config, name_model, outputs_of

DEFAULT_WEIGHTS = "tue-mps/coco_panoptic_eomt_large_640"
CLASSES = 133
"""80 things and 53 kinds of stuff, counted from 0 in the order of COCO's panoptic category ids."""

EOMT = ("eomt", "eomt_dinov3")
MASK_FORMERS = ("mask2former", "maskformer")


class SemsegCocoParams(BaseModel):
    """max_side: longer side of the map, at most, in pixels; views are cut from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_side: int = Field(default=640, ge=16, le=8192)


class SemsegCoco(Labeler):
    """COCO's 133 panoptic classes for every pixel: EoMT, Mask2Former.

    `semseg_coco`: uint8 (height, width) of classes counted from 0, the image's size or its reduction to `max_side`.
    Each pixel gets the class of the highest score, the masks' probabilities weighted by their queries' class
    probabilities as the checkpoint's own processor does (Cheng et al. 2022, arXiv 2112.01527); none is left without.
    EoMT's (Kerssies et al. 2025, arXiv 2503.19108) processor pads an image to a square: its padding is cut off here
    before the scores are scaled. 4M used Mask2Former Swin-B, `facebook/mask2former-swin-base-coco-panoptic`.
    """

    makes = (Modality("semseg_coco", Image(channels=1, dtype="uint8", content="classes", classes=CLASSES)),)
    on = "image"
    weights = Weights(
        DEFAULT_WEIGHTS,
        "MIT",
        "https://huggingface.co/tue-mps/coco_panoptic_eomt_large_640",
        {
            "tue-mps/coco_panoptic_eomt_*": "MIT",
            "facebook/mask2former-swin-*-coco-panoptic": "other, see its card",
        },
    )
    # 316 M parameters, and 200 masks with 133 maps of scores, 640 x 640 each
    resources = Resources(cpus=1.0, gpus=0.5, memory=3 * 2**30)
    batch_size = 8
    autocast = "float16"
    Params: ClassVar[type[BaseModel]] = SemsegCocoParams

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        self._source = self.weights_path or DEFAULT_WEIGHTS
        self._is_eomt = self._source == DEFAULT_WEIGHTS or _check_segmenter(self._source) in EOMT

    def load(self, device: str) -> None:
        with naming_extras():
            from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation
        self._device = device
        self._processor = load_processor(AutoImageProcessor, self._source)
        if self._is_eomt and self._processor.do_split_image:
            raise CheckpointError(
                f"{self._source}: its processor cuts images into windows (do_split_image), as EoMT's semantic "
                f"checkpoints do; semseg_coco takes the panoptic ones, which see the whole image"
            )
        self._model = load_model(AutoModelForUniversalSegmentation, self._source, device)

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        maps: list[np.ndarray | None] = [None] * len(batch)
        for group, outputs in outputs_of(self._model, self._processor, batch, self._device):
            for index, (place, size) in enumerate(zip(group.places, group.sizes, strict=True)):
                # one by one: the scores of all classes take more memory than the network
                one = SimpleNamespace(
                    class_queries_logits=outputs.class_queries_logits[index : index + 1],
                    masks_queries_logits=outputs.masks_queries_logits[index : index + 1],
                    patch_offsets=None,
                )
                maps[place] = self._classes(one, size).cpu().numpy().astype(np.uint8)
        return {"semseg_coco": maps}

    def _classes(self, outputs: Any, size: tuple[int, int]) -> Any:
        """Class ids, at most `max_side` long, of an image of `size` pixels. outputs: the model's for it alone."""
        import torch

        target = bounded(size, self.params.max_side)
        with torch.inference_mode(), torch.autocast(torch.device(self._device).type, enabled=False):
            if not self._is_eomt:
                return self._processor.post_process_semantic_segmentation(outputs, target_sizes=[target])[0]
            scores = self._scores_on_input(outputs, size)
            if scores.shape[1:] != target:
                scores = torch.nn.functional.interpolate(scores[None], target, mode="bilinear")[0]
            return scores.argmax(dim=0)

    def _scores_on_input(self, outputs: Any, size: tuple[int, int]) -> Any:
        """EoMT's score of every class, (classes, height, width), on its input less the padding.

        As the package's `post_process_semantic_segmentation`, which leaves the padding in. The classes of a pixel lie
        side by side, which makes them quick to compare.
        """
        import torch
        from transformers.image_transforms import get_size_with_aspect_ratio

        shortest, longest = self._processor.size["shortest_edge"], self._processor.size["longest_edge"]
        logits = torch.nn.functional.interpolate(outputs.masks_queries_logits, (shortest, longest), mode="bilinear")[0]
        if self._processor.do_pad:
            height, width = get_size_with_aspect_ratio(size, shortest, longest)
            logits = logits[:, :height, :width]
        classes = outputs.class_queries_logits[0].softmax(dim=-1)[:, :-1]
        scores = logits.flatten(1).sigmoid_().T @ classes
        return scores.unflatten(0, logits.shape[1:]).permute(2, 0, 1)

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        """An EoMT of 16 channels and 20 queries, which finds several classes in a photograph."""
        import torch
        from transformers import EomtConfig, EomtForUniversalSegmentation, EomtImageProcessor

        names = {index: f"class {index}" for index in range(CLASSES)}
        config = EomtConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_blocks=1,
            num_queries=20,
            num_register_tokens=0,
            image_size=128,
            patch_size=16,
            id2label=names,
            label2id={name: index for index, name in names.items()},
        )
        with seeded():
            model: Any = EomtForUniversalSegmentation(config)
            torch.nn.init.normal_(model.class_predictor.weight, std=3)
            torch.nn.init.normal_(model.mask_head.fc3.weight, std=30)
        model.attn_mask_probs.zero_()  # as training leaves it: no masked attention
        model.save_pretrained(folder)
        EomtImageProcessor(size={"shortest_edge": 128, "longest_edge": 128}, do_pad=True).save_pretrained(folder)
        return folder


def _check_segmenter(source: str) -> str:
    """The model_type of the checkpoint. Raises CheckpointError where its classes aren't COCO's panoptic ones."""
    config = read_config(source)
    found = check_config(source, config, (*EOMT, *MASK_FORMERS), "a segmenter of this labeler")
    classes = len(config.get("id2label") or ())
    if classes != CLASSES:
        raise CheckpointError(
            f"{source}: {name_model(config)} of {classes} classes; semseg_coco needs COCO's {CLASSES} panoptic ones"
        )
    return found
