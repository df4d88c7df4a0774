"""Kinds: the types of labels. A kind checks a label, stores it, crops it by a view and shows it to a person."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from . import codecs, crops, drawing
from .instances import InstanceSet
from .poses import ATTRIBUTES, Pose, crop_pose
from .views import View

Shown: TypeAlias = "np.ndarray | str | Mapping[str, str]"
"""What a person looks at: an RGB picture (uint8, height x width x 3), a text, or a table of names and values."""


class LabelError(ValueError):
    """A label that isn't what its kind promises; the message says what is wrong."""


@dataclass(frozen=True)
class Kind(ABC):
    """The type of a modality's label. Frozen fields are the spec, stored in dataset.json.

    extension: of a stored label's file name. default_tokenizer: name in the registry; None where labels aren't
    tokenised. trained_tokenizer: the one whose network a recipe may have trained; None where there is no such. spatial:
    whether a view changes the label. view_only: whether it can only be made on a view.
    """

    name: ClassVar[str]
    extension: ClassVar[str]
    default_tokenizer: ClassVar[str | None]
    trained_tokenizer: ClassVar[str | None] = None
    spatial: ClassVar[bool] = False
    view_only: ClassVar[bool] = False

    @abstractmethod
    def check(self, label: Any) -> Any:
        """The label in its stored type. Raises LabelError for a wrong type, shape, dtype or non-finite number."""

    @abstractmethod
    def encode(self, label: Any) -> bytes:
        """A checked label as bytes, without loss."""

    @abstractmethod
    def decode(self, data: bytes) -> Any:
        """The label that `encode` was given."""

    @abstractmethod
    def show(self, label: Any, image: np.ndarray) -> Shown:
        """What a person looks at; `image` is the view, uint8 (size, size, 3)."""

    def crop(self, label: Any, view: View) -> Any:
        """The part of a whole image's label that `view` sees, mirrored and scaled as the view is."""
        return label

    def seen_by(self, view: View, label: Any, on: str) -> Any:
        """A label as `view` sees it, cropped where it is a whole image's. on: what it was made on ("view", "image")."""
        return self.crop(label, view) if self.spatial and on != "view" else label

    def describe(self) -> dict[str, Any]:
        """The spec as JSON; `kind_from` reads it."""
        return {"kind": self.name, **asdict(self)}


@dataclass(frozen=True)
class Image(Kind):
    """A map with a value or colour per pixel: (height, width) when channels is 1, else (height, width, channels).

    content: "colour" and "intensity" are interpolated, "normals" too, their x turning with a mirror (unit vectors in
    [-1, 1], or (n + 1) / 2 as uint8), "classes" are ids that take the nearest pixel. Stored as PNG, or npy for floats.

    unit: what an intensity counts, as "metre" or "relative" (known up to scale and shift). classes: how many there are.
    """

    channels: int = 3
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    content: Literal["colour", "intensity", "normals", "classes"] = "colour"
    unit: str | None = None
    classes: int | None = None
    name: ClassVar[str] = "image"
    trained_tokenizer: ClassVar[str | None] = "vq"
    spatial: ClassVar[bool] = True

    @property
    def default_tokenizer(self) -> str | None:  # type: ignore[override]
        return None if self.content == "classes" else "patch_codebook"

    @property
    def extension(self) -> str:  # type: ignore[override]
        return "npy" if self.dtype == "float32" else "png"

    def check(self, label: Any) -> np.ndarray:
        label = _array(label, self.dtype)
        shape_ok = label.ndim == 2 if self.channels == 1 else label.ndim == 3 and label.shape[2] == self.channels
        if not shape_ok or 0 in label.shape:
            wanted = "(height, width)" if self.channels == 1 else f"(height, width, {self.channels})"
            raise LabelError(f"an image label has shape {label.shape}, not {wanted}")
        return label

    def encode(self, label: np.ndarray) -> bytes:
        return codecs.to_npy(label) if self.dtype == "float32" else codecs.to_png(label)

    def decode(self, data: bytes) -> np.ndarray:
        return codecs.from_npy(data) if self.dtype == "float32" else codecs.from_png(data)

    def crop(self, label: np.ndarray, view: View) -> np.ndarray:
        cut = crops.crop_map(label, view, nearest=self.content == "classes")
        if self.content == "normals" and view.hflip:
            cut = cut.copy()
            cut[..., 0] = -cut[..., 0] if self.dtype == "float32" else np.iinfo(self.dtype).max - cut[..., 0]
        return cut

    def show(self, label: np.ndarray, image: np.ndarray) -> Shown:
        return drawing.draw_map(label, self.content)


@dataclass(frozen=True)
class FeatureMap(Kind):
    """A grid of feature vectors, float16 (channels, height, width), made on the view. Stored as npy."""

    channels: int
    height: int
    width: int
    name: ClassVar[str] = "feature_map"
    extension: ClassVar[str] = "npy"
    default_tokenizer: ClassVar[str | None] = "codebook"
    trained_tokenizer: ClassVar[str | None] = "vq"
    view_only: ClassVar[bool] = True

    def check(self, label: Any) -> np.ndarray:
        return _shaped(label, "float16", (self.channels, self.height, self.width), "feature map")

    def encode(self, label: np.ndarray) -> bytes:
        return codecs.to_npy(label)

    def decode(self, data: bytes) -> np.ndarray:
        return codecs.from_npy(data)

    def show(self, label: np.ndarray, image: np.ndarray) -> Shown:
        return drawing.pca_colours(label)


@dataclass(frozen=True)
class Vector(Kind):
    """One vector for the sample, float32 (dim,). Stored as npy."""

    dim: int
    name: ClassVar[str] = "vector"
    extension: ClassVar[str] = "npy"
    default_tokenizer: ClassVar[str | None] = "product_codebook"
    trained_tokenizer: ClassVar[str | None] = "vq"

    def check(self, label: Any) -> np.ndarray:
        return _shaped(label, "float32", (self.dim,), "vector")

    def encode(self, label: np.ndarray) -> bytes:
        return codecs.to_npy(label)

    def decode(self, data: bytes) -> np.ndarray:
        return codecs.from_npy(data)

    def show(self, label: np.ndarray, image: np.ndarray) -> Shown:
        return drawing.draw_bars(label)


@dataclass(frozen=True)
class Instances(Kind):
    """Any number of things in the image, as an InstanceSet. Stored as JSON with COCO RLE masks.

    masks, scores, texts: whether each instance has one. attributes: shape of further per-instance float32 arrays.
    points: those among them that are x and y as shares of the frame, (..., 2): they follow a view and its mirror, and
    may lie outside of it. pose: whose attributes (`poses.ATTRIBUTES`) are among them, which do so, too. All others are
    the same in every crop.
    """

    masks: bool = False
    scores: bool = False
    texts: bool = False
    attributes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    points: tuple[str, ...] = ()
    pose: Pose | None = None
    name: ClassVar[str] = "instances"
    extension: ClassVar[str] = "json"
    spatial: ClassVar[bool] = True

    @property
    def default_tokenizer(self) -> str | None:  # type: ignore[override]
        return "human_poses" if self.pose == "smpl" else "instances"

    @property
    def trained_tokenizer(self) -> str | None:  # type: ignore[override]
        if self.pose == "smpl":
            return "human_poses_vq"
        return "instances_vq" if self.masks else None

    def __post_init__(self) -> None:
        shapes = {name: tuple(shape) for name, shape in self.attributes.items()}  # lists, when read from JSON
        object.__setattr__(self, "attributes", shapes)
        if self.pose is not None and not ATTRIBUTES[self.pose].items() <= shapes.items():
            raise ValueError(f"a pose of {self.pose} needs the attributes {ATTRIBUTES[self.pose]}, not {shapes}")
        for name in self.points:
            if shapes.get(name, ())[-1:] != (2,):
                raise ValueError(f"points must be attributes of x and y, (..., 2); {name!r} isn't among {shapes}")

    def check(self, label: Any) -> InstanceSet:
        if not isinstance(label, InstanceSet):
            raise LabelError(f"an instances label is a {type(label).__name__}, not an InstanceSet")
        problem = label.problem(self.masks, self.scores, self.texts, self.attributes)
        if problem:
            raise LabelError(problem)
        return label

    def encode(self, label: InstanceSet) -> bytes:
        return json.dumps(label.to_json(), ensure_ascii=False, separators=(",", ":")).encode()

    def decode(self, data: bytes) -> InstanceSet:
        return InstanceSet.from_json(json.loads(data))

    def crop(self, label: InstanceSet, view: View) -> InstanceSet:
        seen = label.crop(view)
        attributes = dict(seen.attributes)
        for name in self.points:
            attributes[name] = crops.crop_points(attributes[name], view).astype(np.float32)
        return replace(seen, attributes=attributes if self.pose is None else crop_pose(self.pose, attributes, view))

    def show(self, label: InstanceSet, image: np.ndarray) -> Shown:
        return drawing.draw_instances(label, image)


@dataclass(frozen=True)
class Text(Kind):
    """A Unicode text."""

    name: ClassVar[str] = "text"
    extension: ClassVar[str] = "txt"
    default_tokenizer: ClassVar[str | None] = "wordpiece"

    def check(self, label: Any) -> str:
        if not isinstance(label, str):
            raise LabelError(f"a text label is a {type(label).__name__}, not a str")
        try:
            label.encode()
        except UnicodeEncodeError as error:
            raise LabelError(f"a text label holds half of a surrogate pair at character {error.start}") from None
        return label

    def encode(self, label: str) -> bytes:
        return label.encode()

    def decode(self, data: bytes) -> str:
        return data.decode()

    def show(self, label: str, image: np.ndarray) -> Shown:
        return label


@dataclass(frozen=True)
class Embeddings(Kind):
    """A sequence of vectors, float16 (length, dim) with length <= max_length: an input, never tokenised."""

    dim: int
    max_length: int
    name: ClassVar[str] = "embeddings"
    extension: ClassVar[str] = "npy"
    default_tokenizer: ClassVar[str | None] = None

    def check(self, label: Any) -> np.ndarray:
        label = _array(label, "float16")
        if label.ndim != 2 or label.shape[1] != self.dim or len(label) > self.max_length:
            raise LabelError(f"embeddings have shape {label.shape}, not (at most {self.max_length}, {self.dim})")
        return label

    def encode(self, label: np.ndarray) -> bytes:
        return codecs.to_npy(label)

    def decode(self, data: bytes) -> np.ndarray:
        return codecs.from_npy(data)

    def show(self, label: np.ndarray, image: np.ndarray) -> Shown:
        return drawing.draw_heatmap(label)


@dataclass(frozen=True)
class Record(Kind):
    """Named values: a dict of JSON values whose names are among `fields`. Stored as JSON."""

    fields: tuple[str, ...]
    name: ClassVar[str] = "record"
    extension: ClassVar[str] = "json"
    default_tokenizer: ClassVar[str | None] = "record"

    def check(self, label: Any) -> dict[str, Any]:
        if not isinstance(label, dict):
            raise LabelError(f"a record label is a {type(label).__name__}, not a dict")
        unknown = sorted(set(label) - set(self.fields))
        if unknown:
            raise LabelError(f"a record label has unknown fields {unknown}; its kind has {sorted(self.fields)}")
        try:
            return self.decode(self.encode(label))
        except (TypeError, ValueError) as error:
            raise LabelError(f"a record label can't be written as JSON: {error}") from None

    def encode(self, label: dict[str, Any]) -> bytes:
        ordered = {name: label[name] for name in self.fields if name in label}
        return json.dumps(ordered, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    def decode(self, data: bytes) -> dict[str, Any]:
        return json.loads(data)

    def show(self, label: dict[str, Any], image: np.ndarray) -> Shown:
        return {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in label.items()}


KINDS: dict[str, type[Kind]] = {
    kind.name: kind for kind in (Image, FeatureMap, Vector, Instances, Text, Embeddings, Record)
}


def kind_from(description: Mapping[str, Any]) -> Kind:
    """The kind that `Kind.describe` wrote down."""
    spec = {name: tuple(value) if isinstance(value, list) else value for name, value in description.items()}
    spec.pop("kind")
    return KINDS[description["kind"]](**spec)


def _array(label: Any, dtype: str) -> np.ndarray:
    """The label as a C-ordered array of `dtype`; floats may be narrowed, integers must be of the dtype already."""
    if not isinstance(label, np.ndarray):
        raise LabelError(f"the label is a {type(label).__name__}, not a numpy array")
    wanted = np.dtype(dtype)
    if label.dtype != wanted and not (label.dtype.kind == wanted.kind == "f"):
        raise LabelError(f"the label has dtype {label.dtype}, not {wanted}")
    with np.errstate(over="ignore"):
        label = np.ascontiguousarray(label, dtype=wanted)
    if wanted.kind == "f" and not np.isfinite(label).all():
        bad = int(label.size - np.isfinite(label).sum())
        raise LabelError(f"{bad} of the label's {label.size} numbers are NaN or infinite (as {wanted})")
    return label


def _shaped(label: Any, dtype: str, shape: tuple[int, ...], what: str) -> np.ndarray:
    label = _array(label, dtype)
    if label.shape != shape:
        raise LabelError(f"a {what} label has shape {label.shape}, not {shape}")
    return label
