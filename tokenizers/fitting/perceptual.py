"""A perceptual loss: how differently a frozen vision transformer sees a picture and its reconstruction.

Mean squared errors forgive a blur that people don't; features of a network that was trained on photographs don't
forgive it either. 4M trains an rgb VQ-VAE with the cosine distance of CLIP ViT-B/16's (arXiv 2406.09406); its code
scales pictures to the size that the network was trained at, and adds the blocks up instead of averaging them (ml-4m,
fourm/vq/percept_losses).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...labelers.contract.labeler import Weights
from ...labelers.networks.extras import naming_extras
from ...labelers.networks.hub import CheckpointError, load_model, read_config
from ...labelers.networks.preprocessing import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from .settings import PerceptualSettings

if TYPE_CHECKING:
    from torch import Tensor

PERCEPTUAL = Weights(
    default=None,
    licence="unknown",
    source="https://huggingface.co/docs/transformers",
    others={
        "facebook/dinov2-*": "Apache-2.0",
        "facebook/dinov3-*": "DINOv3 License",
        "facebook/metaclip-*": "CC-BY-NC-4.0",
        "openai/clip-*": "MIT",
        "laion/CLIP-*": "MIT",
        "google/siglip-*": "Apache-2.0",
        "google/siglip2-*": "Apache-2.0",
        "google/vit-*": "Apache-2.0",
    },
)

_HALF = (0.5, 0.5, 0.5)


class _Family(NamedTuple):
    """Transformers of one sort. model: their class in transformers. mean, std: of pictures, where the checkpoint
    doesn't say. fixed: whether they take pictures of another size only if told to interpolate position embeddings."""

    model: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    fixed: bool = False


_CLIP = _Family("CLIPVisionModel", CLIP_MEAN, CLIP_STD, fixed=True)
_SIGLIP = _Family("SiglipVisionModel", _HALF, _HALF, fixed=True)
_FAMILIES = {
    "dinov2": _Family("Dinov2Model"),
    "dinov2_with_registers": _Family("Dinov2WithRegistersModel"),
    "dinov3_vit": _Family("DINOv3ViTModel"),
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "vit": _Family("ViTModel", _HALF, _HALF, fixed=True),
}
"""By the `model_type` of their config.json."""

_USUAL_DEPTH = 12
"""What transformers takes for all of these where a config leaves the number of blocks out."""


class PerceptualLoss:
    """1 - cosine between the features of prediction and target, the mean over pictures, tokens and blocks.

    Features are the hidden states after `blocks` (counted from 0) of `network`, a vision transformer of transformers,
    which is frozen and put into eval mode; tokens that aren't patches (class, registers) count as the others do.

    mean, std: of the network's pictures in [0, 1]. restore: makes such pictures of what a tokenizer's decoder gives and
    what it should have given. fixed: whether the network has to be told to interpolate its position embeddings.
    """

    def __init__(
        self,
        network: Any,
        blocks: Sequence[int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        restore: Callable[[Tensor], Tensor] = lambda pictures: pictures,
        fixed: bool = False,
    ) -> None:
        import torch

        self._network = network.eval().requires_grad_(False)
        self._patch = int(network.config.patch_size)
        self._mean = torch.tensor(mean, device=network.device).view(-1, 1, 1)
        self._std = torch.tensor(std, device=network.device).view(-1, 1, 1)
        self._restore = restore
        self._options = {"interpolate_pos_encoding": True} if fixed else {}
        self._features: dict[int, Tensor] = {}
        layers = _layers(network)
        for block in blocks:
            layers[block].register_forward_hook(self._keeper(block))
        del layers[max(blocks) + 1 :]  # nobody asks for what they make

    @classmethod
    def load(
        cls, settings: PerceptualSettings, weights: str, restore: Callable[[Tensor], Tensor], device: str
    ) -> PerceptualLoss:
        """weights: the checkpoint's folder on this machine, or its hub id. Raises CheckpointError for one of another
        sort or that isn't whole, ValueError for blocks that it doesn't have."""
        blocks = blocks_of(settings, weights)
        family = _family(read_config(weights), weights)
        with naming_extras():
            import transformers
        network = load_model(getattr(transformers, family.model), weights, device, unused=("pooler.", "head."))
        wanted = Preprocessing(1, family.mean, family.std).as_in(weights)
        return cls(network, blocks, wanted.mean, wanted.std, restore, family.fixed)

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """A float32 scalar, for float (batch, 3, height, width) each. Gradients flow to the prediction alone."""
        import torch
        from torch.nn import functional

        with torch.no_grad():
            wanted = self._features_of(target)
        found = self._features_of(prediction)
        distances = [
            1 - functional.cosine_similarity(found[block].float(), wanted[block].float(), dim=-1) for block in wanted
        ]
        return torch.stack([distance.mean() for distance in distances]).mean()

    def _features_of(self, pictures: Tensor) -> dict[int, Tensor]:
        """By block, each (batch, tokens, width)."""
        pixels = (self._scaled(self._restore(pictures.float())) - self._mean) / self._std
        self._network(pixels, **self._options)
        features, self._features = self._features, {}
        return features

    def _scaled(self, pictures: Tensor) -> Tensor:
        """To the next multiples of the patch: never smaller, so that no pixel is lost. Not antialiased: that only
        matters to what becomes smaller, and has no gradient on GPUs that is the same in every run."""
        from torch.nn import functional

        size = [math.ceil(side / self._patch) * self._patch for side in pictures.shape[2:]]
        if list(pictures.shape[2:]) == size:
            return pictures
        return functional.interpolate(pictures, size, mode="bilinear", antialias=False)

    def _keeper(self, block: int) -> Callable[[Any, Any, Any], None]:
        def keep(module: Any, given: Any, made: Any) -> None:
            self._features[block] = made[0] if isinstance(made, tuple) else made

        return keep


def blocks_of(settings: PerceptualSettings, weights: str) -> tuple[int, ...]:
    """After which blocks features are compared; of the checkpoint nothing but config.json is read.

    weights: as in `PerceptualLoss.load`, which says what is raised.
    """
    config = read_config(weights)
    _family(config, weights)
    depth = int(config.get("vision_config", config).get("num_hidden_layers", _USUAL_DEPTH))
    if settings.blocks is None:
        return quarters(depth)
    missing = [block for block in settings.blocks if block >= depth]
    if missing:
        raise ValueError(f"blocks: there is no block {missing[0]} in {weights}; it has 0 to {depth - 1}")
    return settings.blocks


def quarters(depth: int) -> tuple[int, ...]:
    """The last block of each quarter of so many: 2, 5, 8, 11 of 12; fewer where there are less than 4."""
    return tuple(sorted({math.ceil(depth * quarter / 4) - 1 for quarter in (1, 2, 3, 4)}))


def _family(config: dict[str, Any], weights: str) -> _Family:
    found = _FAMILIES.get(str(config.get("model_type")))
    if found is None:
        raise CheckpointError(
            f"{weights}: a checkpoint of {config.get('model_type')!r}; a perceptual loss takes vision transformers in "
            f"the format of transformers: {', '.join(_FAMILIES)}"
        )
    return found


def _layers(network: Any) -> Any:
    """The network's blocks, in order: what families call `layer`, `layers` or `encoder.layers`."""
    from torch import nn

    depth = network.config.num_hidden_layers
    return next(part for part in network.modules() if isinstance(part, nn.ModuleList) and len(part) == depth)
