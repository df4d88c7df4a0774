"""The tokenizers that EPFL and Apple published for 4M: which labels each is for, by its name on the hub."""

from __future__ import annotations

import re
from collections.abc import Callable

from ...labelers.contract.kinds import FeatureMap, Image, Instances, Kind, Vector
from ...labelers.contract.labeler import Weights

PUBLISHED = Weights(
    default=None,
    licence="LicenseRef-Apple-sample-code",
    source="https://github.com/apple/ml-4m/blob/main/LICENSE_WEIGHTS",
    others={"EPFL-VILAB/4M_tokenizers_*": "LicenseRef-Apple-sample-code"},
)

_NAME = re.compile(r"4M_tokenizers_([A-Za-z0-9-]+)")
_COCO_PANOPTIC_CLASSES = 133


def _image(content: str, *dtypes: str) -> Callable[[Kind], bool]:
    return lambda kind: isinstance(kind, Image) and kind.content == content and (not dtypes or kind.dtype in dtypes)


def _feature_map(channels: int) -> Callable[[Kind], bool]:
    return lambda kind: isinstance(kind, FeatureMap) and kind.channels == channels


def _vector(dim: int) -> Callable[[Kind], bool]:
    return lambda kind: isinstance(kind, Vector) and kind.dim == dim


def _classes(kind: Kind) -> bool:
    return isinstance(kind, Image) and kind.content == "classes" and kind.classes == _COCO_PANOPTIC_CLASSES


_MODALITIES: dict[str, tuple[str, Callable[[Kind], bool]]] = {
    "rgb": ("colour images", _image("colour")),
    "depth": ("depth maps in float32", _image("intensity", "float32")),
    "normal": ("maps of normals", _image("normals")),
    "edge": ("maps of edges", _image("intensity", "uint8", "uint16")),
    "semseg": (f"maps of {_COCO_PANOPTIC_CLASSES} classes", _classes),
    "CLIP-B16": ("feature maps of 512 channels", _feature_map(512)),
    "DINOv2-B14": ("feature maps of 768 channels", _feature_map(768)),
    "ImageBind-H14": ("feature maps of 1280 channels", _feature_map(1280)),
    "DINOv2-B14-global": ("vectors of 768 numbers", _vector(768)),
    "ImageBind-H14-global": ("vectors of 1280 numbers", _vector(1280)),
    "sam-instance": ("masks of instances", lambda kind: isinstance(kind, Instances) and kind.masks),
    "human-poses": ("SMPL poses", lambda kind: isinstance(kind, Instances) and kind.pose == "smpl"),
}


def check_modality(source: str, kind: Kind) -> None:
    """Raises ValueError where `source`, a hub id or a path, names a published tokenizer of other labels than `kind`."""
    named = _NAME.search(source)
    if named is None or named[1] not in _MODALITIES:
        return
    what, suits = _MODALITIES[named[1]]
    if not suits(kind):
        known = {name: value for name, value in kind.describe().items() if value not in (None, {}, False)}
        raise ValueError(f"{source}: {named[0]} is a codebook from another modality: it is for {what}, not for {known}")
