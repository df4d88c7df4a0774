"""ImageBind features of the view: a map of patch tokens and one vector (Girdhar et al. 2023, arXiv 2305.05665)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.kinds import FeatureMap, Vector
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .networks.hub import CheckpointError
from .networks.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing, feature_maps, vectors
from .networks.state_dicts import fill, read_tensors, seeded

DEFAULT_WEIGHTS = "https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth"

PREFIXES = tuple(f"modality_{part}.vision." for part in ("preprocessors", "trunks", "heads", "postprocessors"))
"""Of the vision tower's tensors; those of the other towers (text, audio, depth, thermal, inertial) are never read."""
STEM = "modality_preprocessors.vision.rgbt_stem.proj.1.weight"
POSITIONS = "modality_preprocessors.vision.pos_embedding_helper.pos_embed"
HEAD = "modality_heads.vision.2.weight"


@dataclass(frozen=True)
class Sizes:
    """What the shapes of a vision tower's tensors tell; see `imagebind_vision.VisionTower`."""

    width: int
    depth: int
    patch: int
    grid: int
    out: int

    @classmethod
    def of(cls, tensors: Mapping[str, Any], path: str) -> Sizes:
        """Raises CheckpointError, naming `path`, where these aren't the tensors of ImageBind's vision tower."""
        for name, dims in ((STEM, 5), (POSITIONS, 3), (HEAD, 2)):
            if name not in tensors:
                raise CheckpointError(f"{path}: lacks {name}; is it ImageBind's checkpoint (imagebind_huge.pth)?")
            if tensors[name].ndim != dims:
                raise CheckpointError(f"{path}: {name} has {tensors[name].ndim} dimensions, not ImageBind's {dims}")
        width, _, _, patch, _ = tensors[STEM].shape
        blocks = {name.split(".")[3] for name in tensors if name.startswith("modality_trunks.vision.blocks.")}
        return cls(width, len(blocks), patch, math.isqrt(tensors[POSITIONS].shape[1] - 1), tensors[HEAD].shape[0])


HUGE = Sizes(width=1280, depth=32, patch=14, grid=16, out=1024)
"""The default weights', so that they needn't be fetched to plan a run."""


class ImageBindParams(BaseModel):
    """global_from: the class token after the last block ("cls", as 4M-21 takes it), or the unit vector that ImageBind
    shares among its modalities ("embedding"). heads: attention heads, which the checkpoint doesn't tell; 16 in
    imagebind_huge."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    global_from: Literal["cls", "embedding"] = "cls"
    heads: int = Field(default=16, ge=1)


class ImageBind(Labeler):
    """ImageBind's patch tokens after the last block, and its class token as the global vector.

    `imagebind`: float16 (width, grid, grid), of imagebind_huge (1280, 16, 16); `imagebind_global`: float32 (1280,), or
    (1024,) from the embedding. Weights are a checkpoint file with the names of imagebind_huge.pth; only its vision
    tower is read. The reference scales an image's shorter side to 224 and cuts out the centre; a view is a square
    already, so it is scaled to 224 (bicubic, antialiased, by torchvision) and normalised by CLIP's mean and std.
    """

    on = "view"
    weights = Weights(DEFAULT_WEIGHTS, "CC-BY-NC-SA-4.0", "https://github.com/facebookresearch/ImageBind")
    # 633 M parameters in float32 are 2.5 GB; the rest, an estimate, is torch and the activations of one image
    resources = Resources(cpus=1.0, gpus=0.5, memory=4 * 2**30)
    batch_size = 32
    autocast = "float16"
    Params: ClassVar[type[BaseModel]] = ImageBindParams

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        self._source = self.weights_path or DEFAULT_WEIGHTS
        sizes = (
            HUGE if self._source == DEFAULT_WEIGHTS else Sizes.of(read_tensors(self._source, PREFIXES), self._source)
        )
        if sizes.width % self.params.heads:
            raise CheckpointError(
                f"{self._source}: {self.params.heads} heads don't divide its width of {sizes.width}; give the "
                f"checkpoint's own number with the parameter `heads`"
            )
        self._grid = sizes.grid
        self._preprocessing = Preprocessing(sizes.grid * sizes.patch, CLIP_MEAN, CLIP_STD)
        self.makes = (
            Modality("imagebind", FeatureMap(sizes.width, sizes.grid, sizes.grid)),
            Modality("imagebind_global", Vector(sizes.width if self.params.global_from == "cls" else sizes.out)),
        )

    def load(self, device: str) -> None:
        import torch

        from .networks.imagebind_vision import VisionTower

        self._device = device
        tensors = read_tensors(self._source, PREFIXES)
        sizes = Sizes.of(tensors, self._source)
        tensors[STEM] = tensors[STEM].sum(dim=2)  # over time: a still image is a film of one picture
        with torch.device("meta"):
            tower = VisionTower(**asdict(sizes), heads=self.params.heads)
        self._tower = fill(tower.to_empty(device="cpu"), tensors, self._source).to(device)

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        """Besides the vision tower, the file holds a tensor of the audio tower, as the real one does."""
        import torch

        from .networks.imagebind_vision import VisionTower

        with seeded():
            tensors = VisionTower(width=32, depth=2, patch=14, grid=16, out=24, heads=16).state_dict()
            tensors[STEM] = torch.stack([tensors[STEM], torch.randn_like(tensors[STEM]) / 20], dim=2)
            tensors[POSITIONS] = torch.randn_like(tensors[POSITIONS]) / 10
            tensors["modality_trunks.audio.blocks.0.attn.bias_k"] = torch.randn(1, 1, 32)
        path = folder / "imagebind_tiny.pth"
        torch.save(tensors, path)
        return path

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        import torch

        with torch.inference_mode():
            patches, pooled = self._tower(self._preprocessing(np.asarray(batch.images), self._device))
            if self.params.global_from == "embedding":
                pooled = self._tower.embed(pooled)
            return {"imagebind": feature_maps(patches, self._grid), "imagebind_global": vectors(pooled)}
