"""2D skeletons of people: COCO's 17 keypoints by ViTPose (Xu et al. 2022, arXiv 2204.12484)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.instances import InstanceSet
from .contract.kinds import Instances
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .contract.poses import ATTRIBUTES
from .networks.extras import naming_extras
from .networks.hub import CheckpointError, load_model, load_processor, read_config
from .networks.state_dicts import seeded
from .people.crops import in_pixels, people, sample_grid

CROPS_AT_ONCE = 32
"""How many people go through the network together, however many a batch's images show."""

PADDING = 1.25
"""By how much a person's box grows before it is cropped."""

BLUR_SIGMA, BLUR_RADIUS = 0.8, 5
"""The Gaussian that smoothes heatmaps, in their pixels; transformers' kernel of 11."""


class SkeletonsParams(BaseModel):
    """min_score: of a person's box in `det`, which must be above it. max_persons: of an image, the likeliest ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    min_score: float = Field(default=0.5, ge=0, le=1)
    max_persons: int = Field(default=20, ge=1)


class Skeletons(Labeler):
    """2D skeletons of people: COCO's 17 keypoints by any ViTPose of transformers, on the person boxes of `det`.

    `skeletons`: instances of the class "person", the likeliest first, each with the box and the score of `det` and
    `keypoints`, (17, 3): x and y as shares of the image, where 0.5 / width is the middle of the leftmost pixel, and the
    heatmap's highest value as the score. Keypoints may lie outside of the image.

    Crops and keypoints are those of transformers' VitPoseImageProcessor, but made by OpenCV and for all people at once,
    some 20 times as fast; a crop differs from SciPy's by at most one grey level, where SciPy's value lies halfway
    between two. A keypoint whose heatmap is nowhere above zero is where the heatmap is highest (transformers gives such
    a one a place that depends on other people's heatmaps).
    """

    on = "image"
    requires = ("det",)
    licence = "Apache-2.0"
    weights = Weights(
        "usyd-community/vitpose-base-simple",
        "Apache-2.0",
        "https://github.com/ViTAE-Transformer/ViTPose",
        {"usyd-community/vitpose-*": "Apache-2.0"},
    )
    # 90 million parameters in float32 are 0.4 GB; the activations of 32 people are estimated
    resources = Resources(cpus=1.0, gpus=0.25, memory=2**30)
    batch_size = 16
    autocast = "float16"
    Params: ClassVar[type[BaseModel]] = SkeletonsParams
    makes = (Modality("skeletons", Instances(scores=True, attributes=ATTRIBUTES["coco17"], pose="coco17")),)

    def load(self, device: str) -> None:
        with naming_extras():
            from transformers import VitPoseForPoseEstimation, VitPoseImageProcessor
        source = str(self.weights_path)
        model_type = read_config(source).get("model_type")
        if model_type != "vitpose":
            raise CheckpointError(f"{source}: a checkpoint of {model_type!r}, not of ViTPose")
        processor = load_processor(VitPoseImageProcessor, source)
        self._mean, self._std = tuple(processor.image_mean), tuple(processor.image_std)
        self._shape = (processor.size["height"], processor.size["width"])
        self._model = load_model(VitPoseForPoseEstimation, source, device)
        self._device = device
        config = self._model.config
        if config.num_labels != 17:
            raise CheckpointError(f"{source}: finds {config.num_labels} keypoints, not COCO's 17")
        # ViTPose+ has experts for several data sets, of which COCO is the first
        self._has_experts = config.backbone_config.num_experts > 1

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        import torch
        from transformers import VitPoseBackboneConfig, VitPoseConfig, VitPoseForPoseEstimation, VitPoseImageProcessor

        sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
        sizes["out_indices"] = [2]
        config = VitPoseConfig(
            backbone_config=VitPoseBackboneConfig(**sizes), id2label={index: str(index) for index in range(17)}
        )
        with seeded():
            model = VitPoseForPoseEstimation(config)
            for parameter in model.parameters():  # larger than at the start of training, so that heatmaps have peaks
                if parameter.ndim > 1:
                    torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(folder)
        VitPoseImageProcessor().save_pretrained(folder)
        return folder

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        images: Any = batch.images
        persons = [people(det, self.params.min_score, self.params.max_persons) for det in batch.labels["det"]]
        boxes = [in_pixels(seen.boxes, *image.shape[:2]) for seen, image in zip(persons, images, strict=True)]
        jobs = [
            (image, region)
            for image, pixels in zip(images, boxes, strict=True)
            for region in crop_regions(pixels, self._shape[1] / self._shape[0])
        ]
        chunks = [jobs[start : start + CROPS_AT_ONCE] for start in range(0, len(jobs), CROPS_AT_ONCE)]
        keypoints = np.concatenate([np.zeros((0, 17, 3)), *(self._keypoints(chunk) for chunk in chunks)])
        labels, first = [], 0
        for image, seen in zip(images, persons, strict=True):
            mine = keypoints[first : first + len(seen)]
            first += len(seen)
            shares = (mine + np.array([0.5, 0.5, 0])) / [image.shape[1], image.shape[0], 1]
            attributes = {"keypoints": shares.astype(np.float32)}
            labels.append(InstanceSet(seen.boxes, ["person"] * len(seen), seen.scores, attributes=attributes))
        return {"skeletons": labels}

    def _keypoints(self, jobs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """float64 (N, 17, 3): x and y in pixels of the image, and the score. jobs: N images and regions in them."""
        import torch

        crops = [_crop(image, region, self._shape) for image, region in jobs]
        pixels = torch.from_numpy(np.stack(crops)).to(self._device).permute(0, 3, 1, 2).contiguous().float()
        mean = 255 * torch.tensor(self._mean, device=self._device).view(3, 1, 1)
        std = 255 * torch.tensor(self._std, device=self._device).view(3, 1, 1)
        coco = {"dataset_index": torch.zeros(len(jobs), dtype=torch.long, device=self._device)}
        with torch.inference_mode():
            heatmaps = self._model(pixels.sub_(mean).div_(std), **(coco if self._has_experts else {})).heatmaps
        cells, scores = peaks(heatmaps.float().cpu().numpy())
        regions = np.stack([region for _, region in jobs])[:, None]
        spacing = regions[..., 2:] / (np.array([heatmaps.shape[3], heatmaps.shape[2]]) - 1)
        return np.concatenate([regions[..., :2] + cells * spacing, scores[..., None]], axis=2)


def crop_regions(boxes: np.ndarray, aspect: float) -> np.ndarray:
    """What the network sees of boxes (N, 4) in pixels: left, top, width, height (N, 4).

    aspect: width by height, to which boxes grow around their centres, and then by PADDING.
    """
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    grown = PADDING * np.stack([np.maximum(width, height * aspect), np.maximum(height, width / aspect)], axis=1)
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2 - grown / 2, grown], axis=1)


def _crop(image: np.ndarray, region: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The region at `shape` (height, width) pixels, uint8; the outermost pixels' centres lie on the region's border.

    That is "unbiased data processing" (Huang et al. 2020, arXiv 1911.07524). Black outside of the image, which ends at
    the centres of its outermost pixels.
    """
    origin, step = region[:2], region[2:] / [shape[1] - 1, shape[0] - 1]
    crop = sample_grid(image, (origin[0], origin[1]), (step[0], step[1]), shape)
    for axis, (along, last) in enumerate(((1, image.shape[0] - 1), (0, image.shape[1] - 1))):
        places = origin[along] + np.arange(shape[axis]) * step[along]
        np.moveaxis(crop, axis, 0)[(places < 0) | (places > last)] = 0
    return crop


def peaks(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where heatmaps (N, K, height, width) are highest, (N, K, 2) as x and y in their pixels; and how high, (N, K).

    The highest pixel, moved by one Newton step on the smoothed heatmap's logarithm: DARK (Zhang et al. 2020, arXiv
    1910.06278), with the details of `post_dark_unbiased_data_processing` in transformers.
    """
    count, kinds, height, width = heatmaps.shape
    flat = heatmaps.reshape(count * kinds, height, width).astype(np.float64)
    highest = flat.reshape(len(flat), -1).argmax(axis=1)
    y, x = np.divmod(highest, width)
    near = np.arange(-1, 2)
    rows = _smoothing(height)[(y[:, None] + near).clip(0, height - 1)]
    columns = _smoothing(width)[(x[:, None] + near).clip(0, width - 1)]
    around = rows @ flat @ columns.transpose(0, 2, 1)  # the 3 x 3 smoothed values at each highest pixel
    logs = np.log(around.clip(0.001, 50))
    centre = logs[:, 1, 1]
    dx, dy = (logs[:, 1, 2] - logs[:, 1, 0]) / 2, (logs[:, 2, 1] - logs[:, 0, 1]) / 2
    tiny = np.finfo(np.float32).eps
    dxx = logs[:, 1, 2] - 2 * centre + logs[:, 1, 0] + tiny
    dyy = logs[:, 2, 1] - 2 * centre + logs[:, 0, 1] + tiny
    lines = logs[:, 1, [0, 2]].sum(axis=1) + logs[:, [0, 2], 1].sum(axis=1)
    dxy = (logs[:, 2, 2] + logs[:, 0, 0] + 2 * centre - lines) / 2
    determinant = dxx * dyy - dxy**2
    flattened = determinant == 0
    scale = np.where(flattened, 0, 1) / np.where(flattened, 1, determinant)
    places = np.stack([x - scale * (dyy * dx - dxy * dy), y - scale * (dxx * dy - dxy * dx)], axis=1)
    return places.reshape(count, kinds, 2), heatmaps.reshape(count, kinds, -1).max(axis=2)


def _smoothing(size: int) -> np.ndarray:
    """The matrix (size, size) by which a line of pixels is smoothed; pixels outside mirror those inside."""
    offsets = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / BLUR_SIGMA) ** 2)
    places = (np.arange(size)[:, None] + offsets) % (2 * size)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], np.minimum(places, 2 * size - 1 - places)), weights / weights.sum())
    return matrix
