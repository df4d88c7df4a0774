"""Fitted codebooks: k-means on the vectors of a feature map, on the parts of a vector, on the patches of an image."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ...labelers.contract.kinds import FeatureMap, Image, Kind, Vector
from ..contract.files import config_file, model_file, read_config, read_model
from ..contract.token_spec import TokenSpec
from ..contract.tokenizer import Tokenizer, Watch
from .kmeans import kmeans, nearest, normalise, sample_rows, squared_distances

POINTS_PER_CODE = 4
"""A sample of n vectors supports n / 4 codes; more would only learn the sample by heart."""

_MEASURED = 4096
"""Vectors of the sample, evenly spread, on which the loss is measured."""


class CodebookParams(BaseModel):
    """size: codes, at most; a small sample supports fewer. sample: vectors that the codes are fitted to, at most.
    iterations: of Lloyd's algorithm, at most; more of them fit the sample better, and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int = Field(default=8192, ge=1)
    sample: int = Field(default=131_072, ge=1)
    iterations: int = Field(default=3, ge=1)


class ProductParams(CodebookParams):
    """parts: tokens per vector."""

    parts: int = Field(default=16, ge=1)


class PatchParams(CodebookParams):
    """patch_size: side of the square that becomes one token, in pixels."""

    patch_size: int = Field(default=16, ge=1)


def supported_codes(wanted: int, points: int) -> int:
    """How many of the `wanted` codes can be fitted to that many points."""
    return max(1, min(wanted, points // POINTS_PER_CODE))


class FittedTokenizer(Tokenizer):
    """A tokenizer whose fitted state is `tensors`, and `facts` about the fit, kept in config.json.

    facts: `codes` found, the size of the `sample`, the `loss` measured on 4,096 vectors of it, and a `note` where there
    are fewer codes than asked for.
    """

    version = 2
    Params: ClassVar[type[BaseModel]] = CodebookParams

    def __init__(self, kind: Kind, params: BaseModel | None = None) -> None:
        super().__init__(kind, params)
        self.facts: dict[str, Any] = {}
        self.tensors: dict[str, np.ndarray] = {}
        self._watch: Watch = lambda done, of: None

    def watch_fit(self, watch: Watch) -> None:
        self._watch = watch

    @property
    def needs_fit(self) -> bool:
        return not self.tensors

    @property
    @abstractmethod
    def _length(self) -> int:
        """Tokens per label."""

    def to_files(self) -> dict[str, bytes]:
        self._check_fitted()
        return {**config_file(self, fit=self.facts), **model_file(self.tensors)}

    @classmethod
    def from_files(cls, kind: Kind, files: Mapping[str, bytes]) -> FittedTokenizer:
        config = read_config(cls, kind, files)
        tokenizer = cls(kind, cls.Params.model_validate(config["params"]))
        tokenizer.facts, tokenizer.tensors = config["fit"], read_model(files)
        return tokenizer

    def _check_fitted(self) -> None:
        if self.needs_fit:
            raise RuntimeError(f"{type(self).__name__} isn't fitted yet: call fit, or load it with from_files")

    def _check_ids(self, ids: np.ndarray) -> np.ndarray:
        """The ids as int64. Raises ValueError for a wrong number of them or for one out of range."""
        ids = np.asarray(ids).astype(np.int64).ravel()
        if len(ids) != self._length:
            raise ValueError(f"{type(self).__name__} takes {self._length} tokens, not {len(ids)}")
        if len(ids) and not 0 <= ids.min() <= ids.max() < self.spec.vocabulary:
            raise ValueError(f"token ids {ids.min()}..{ids.max()} leave the codebook's 0..{self.spec.vocabulary - 1}")
        return ids

    @staticmethod
    def _measured(points: np.ndarray) -> np.ndarray:
        """The points on which the loss is measured."""
        return points[:: -(-len(points) // _MEASURED)]

    def _record(self, codes: int, sample: int, **loss: float | None) -> None:
        self.facts = {"codes": codes, "sample": sample, "loss": loss}
        if codes < self.params.size:
            self.facts["note"] = f"{codes} codes instead of {self.params.size}: all that a sample of {sample} supports"


class Codebook(FittedTokenizer):
    """Feature maps by spherical k-means: one id per cell, the code whose direction is nearest.

    `decode` gives the code's direction at the mean length of the vectors that chose it. Loss, in config.json:
    `cosine_distance`, the mean over the cells of the sample.
    """

    kinds = (FeatureMap,)
    kind: FeatureMap

    @property
    def spec(self) -> TokenSpec:
        self._check_fitted()
        return TokenSpec("grid", self.facts["codes"], self._length, self._length, (self.kind.height, self.kind.width))

    @property
    def _length(self) -> int:
        return self.kind.height * self.kind.width

    def fit(self, labels: Iterable[np.ndarray], seed: int) -> None:
        vectors = sample_rows((self._vectors(label) for label in labels), self.params.sample, seed)
        vectors = vectors[vectors.any(axis=1)] if vectors.size else vectors
        if not len(vectors):
            raise ValueError("a codebook can't be fitted: the sample has no vector other than zero")
        codes = supported_codes(self.params.size, len(vectors))
        directions = normalise(vectors)
        clusters = kmeans(directions, codes, seed, self.params.iterations, spherical=True, watch=self._watch)
        lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1))
        counts = np.bincount(clusters.ids, minlength=len(clusters.centroids))
        sums = np.bincount(clusters.ids, weights=lengths, minlength=len(clusters.centroids))
        means = np.where(counts > 0, sums / np.maximum(counts, 1), lengths.mean())
        self.tensors = {"centroids": clusters.centroids, "lengths": means.astype(np.float32)}
        some = self._measured(directions)
        distances = squared_distances(some, clusters.centroids, nearest(some, clusters.centroids))
        loss = float(distances.mean()) / 2
        self._record(len(clusters.centroids), len(vectors), cosine_distance=loss)

    def encode(self, labels: Sequence[np.ndarray]) -> list[np.ndarray]:
        spec = self.spec
        if not labels:
            return []
        vectors = np.concatenate([self._vectors(label) for label in labels])
        ids = nearest(normalise(vectors), self.tensors["centroids"])
        return list(ids.astype(spec.dtype).reshape(len(labels), -1))

    def decode(self, tokens: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._map(self._check_ids(ids)) for ids in tokens]

    def _vectors(self, label: np.ndarray) -> np.ndarray:
        """float32 (cells, channels)."""
        label = self.kind.check(label)
        return label.reshape(self.kind.channels, -1).T.astype(np.float32)

    def _map(self, ids: np.ndarray) -> np.ndarray:
        vectors = self.tensors["centroids"][ids] * self.tensors["lengths"][ids, None]
        limit = np.finfo(np.float16).max
        cells = vectors.clip(-limit, limit).astype(np.float16).T
        return np.ascontiguousarray(cells).reshape(self.kind.channels, self.kind.height, self.kind.width)


class ProductCodebook(FittedTokenizer):
    """Vectors by product quantisation (Jegou et al. 2011): one id per part, each part with codes of its own.

    Parts are consecutive and differ in width by at most one; a vector shorter than `parts` has as many as numbers.
    Loss, in config.json: `cosine_distance`, the mean over the sample.
    """

    kinds = (Vector,)
    Params: ClassVar[type[BaseModel]] = ProductParams
    kind: Vector

    @property
    def spec(self) -> TokenSpec:
        self._check_fitted()
        return TokenSpec("vector", self.facts["codes"], self._length, self._length)

    @property
    def _length(self) -> int:
        return min(self.params.parts, self.kind.dim)

    def fit(self, labels: Iterable[np.ndarray], seed: int) -> None:
        vectors = sample_rows((self.kind.check(label)[None] for label in labels), self.params.sample, seed)
        if not len(vectors):
            raise ValueError("a codebook can't be fitted: the sample holds no vectors")
        codes = supported_codes(self.params.size, len(vectors))
        parts = self._split(vectors)
        for index, part in enumerate(parts):
            self._watch(index, len(parts))
            self.tensors[f"part_{index:04d}"] = kmeans(part, codes, seed, self.params.iterations).centroids
        self.facts = {"codes": max(map(len, self.tensors.values()))}
        some = list(self._measured(vectors))
        loss = float(_cosine_distance(np.stack(some), np.stack(self.decode(self.encode(some)))).mean())
        self._record(self.facts["codes"], len(vectors), cosine_distance=loss)

    def encode(self, labels: Sequence[np.ndarray]) -> list[np.ndarray]:
        spec = self.spec
        if not labels:
            return []
        parts = self._split(np.stack([self.kind.check(label) for label in labels]))
        ids = [nearest(part, self._codes(index)) for index, part in enumerate(parts)]
        return list(np.stack(ids, axis=1).astype(spec.dtype))

    def decode(self, tokens: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._vector(self._check_ids(ids)) for ids in tokens]

    def _codes(self, part: int) -> np.ndarray:
        return self.tensors[f"part_{part:04d}"]

    def _split(self, vectors: np.ndarray) -> list[np.ndarray]:
        return [np.ascontiguousarray(part) for part in np.array_split(vectors, self._length, axis=1)]

    def _vector(self, ids: np.ndarray) -> np.ndarray:
        parts = [self._codes(part) for part in range(self._length)]
        last = [len(codes) - 1 for codes in parts]  # parts with little variety have fewer codes than the vocabulary
        return np.concatenate([codes[index] for codes, index in zip(parts, np.minimum(ids, last), strict=True)])


class PatchCodebook(FittedTokenizer):
    """Images by k-means on square patches of pixels: one id per patch, row by row.

    All labels must have the size of the first one in the sample. Where the patch size doesn't divide it, the image is
    continued past its right and lower border by its last pixels. Maps of classes are refused: their ids have no mean.
    Loss, in config.json, over the patches of the sample: `mae`, mean absolute error in the label's unit; `psnr` in dB,
    with the dtype's largest value as peak (floats: the sample's range), null where nothing is lost.
    """

    kinds = (Image,)
    Params: ClassVar[type[BaseModel]] = PatchParams
    kind: Image

    def __init__(self, kind: Kind, params: BaseModel | None = None) -> None:
        super().__init__(kind, params)
        if self.kind.content == "classes":
            raise ValueError(
                "a patch codebook averages pixels, and class ids have no average: choose another tokenizer"
            )

    @property
    def spec(self) -> TokenSpec:
        self._check_fitted()
        return TokenSpec("grid", self.facts["codes"], self._length, self._length, self._grid)

    @property
    def _grid(self) -> tuple[int, int]:
        height, width = self.facts["image_size"]
        return -(-height // self.params.patch_size), -(-width // self.params.patch_size)

    @property
    def _length(self) -> int:
        return math.prod(self._grid)

    @property
    def _scale(self) -> float:
        """What a patch's numbers are divided by."""
        return 1.0 if self.kind.dtype == "float32" else float(np.iinfo(self.kind.dtype).max)

    def fit(self, labels: Iterable[np.ndarray], seed: int) -> None:
        self.facts = {}
        patches = sample_rows((self._patches(label) for label in labels), self.params.sample, seed)
        if not len(patches):
            raise ValueError("a codebook can't be fitted: the sample holds no images")
        size = self.facts["image_size"]
        peak = self._scale if self.kind.dtype != "float32" else float(np.ptp(patches))
        mean = patches.mean(axis=0, dtype=np.float64).astype(np.float32)
        patches -= mean
        codes = supported_codes(self.params.size, len(patches))
        centroids = kmeans(patches, codes, seed, self.params.iterations, watch=self._watch).centroids
        self.tensors = {"centroids": centroids, "mean": mean}
        some = self._measured(patches)
        errors = (some.astype(np.float64) - centroids[nearest(some, centroids)]) * self._scale
        squared = float(np.square(errors).mean())
        psnr = 10 * math.log10(peak**2 / squared) if squared and peak else None
        self._record(len(centroids), len(patches), mae=float(np.abs(errors).mean()), psnr=psnr)
        self.facts["image_size"] = size

    def encode(self, labels: Sequence[np.ndarray]) -> list[np.ndarray]:
        spec = self.spec
        if not labels:
            return []
        patches = np.concatenate([self._patches(label) for label in labels]) - self.tensors["mean"]
        ids = nearest(patches, self.tensors["centroids"])
        return list(ids.astype(spec.dtype).reshape(len(labels), -1))

    def decode(self, tokens: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self._image(self._check_ids(ids)) for ids in tokens]

    def _patches(self, label: np.ndarray) -> np.ndarray:
        """float32 (patches, numbers in a patch). The first label fixes the size of all."""
        label = self.kind.check(label)
        height, width = self.facts.setdefault("image_size", list(label.shape[:2]))
        if label.shape[:2] != (height, width):
            raise ValueError(
                f"an image label has {label.shape[:2]} pixels; the codebook was fitted to {(height, width)}"
            )
        (rows, columns), side = self._grid, self.params.patch_size
        label = label.reshape(height, width, -1).astype(np.float32) / np.float32(self._scale)
        label = np.pad(label, ((0, rows * side - height), (0, columns * side - width), (0, 0)), mode="edge")
        patches = label.reshape(rows, side, columns, side, -1).transpose(0, 2, 1, 3, 4)
        return patches.reshape(rows * columns, -1)

    def _image(self, ids: np.ndarray) -> np.ndarray:
        (height, width), (rows, columns), side = self.facts["image_size"], self._grid, self.params.patch_size
        patches = self.tensors["centroids"][ids] + self.tensors["mean"]
        image = patches.reshape(rows, columns, side, side, -1).transpose(0, 2, 1, 3, 4)
        image = image.reshape(rows * side, columns * side, -1)[:height, :width] * np.float32(self._scale)
        if self.kind.dtype != "float32":
            image = np.rint(image).clip(0, self._scale).astype(self.kind.dtype)
        return np.ascontiguousarray(image[..., 0] if self.kind.channels == 1 else image)


def _cosine_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """float64 (n,): 1 - cosine of each pair of rows; 1 where a row is zero."""
    return 1 - (normalise(first).astype(np.float64) * normalise(second)).sum(axis=1)
