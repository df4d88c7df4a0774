"""Pixels: decoding a chunk of samples on threads, ahead of the labelers that look at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ...labelers.contract.images import BadImage, decode_image, decode_view, read_header
from ...labelers.contract.views import View, ViewSettings, cut_view
from ..corpus.corpus import Sample
from .runner import Failed

CHUNK_SAMPLES = 64
"""Samples decoded together. A constant, since batches are cut from chunks and floats depend on the batch's shape: the
bytes of a dataset must not depend on how steps are grouped into stages."""

CHUNK_PIXELS = 64 * 2**20
"""Pixels of whole images in a chunk, at most: bounds memory where images are large."""


@dataclass(frozen=True)
class Wanted:
    """What a stage's labelers look at. crops: where the views lie, for labels that are cut without looking."""

    views: bool
    images: bool
    crops: bool = False


@dataclass
class Chunk:
    """Neighbouring samples of a unit, decoded as far as wanted.

    failed: why a sample's image can't be used, by its index in the chunk. views: one list per sample, empty for the
    failed. view_pixels: uint8 (samples x views, size, size, 3), zeros for the failed. images: whole, None likewise.
    """

    start: int
    samples: Sequence[Sample]
    failed: dict[int, Failed]
    views: list[list[View]]
    view_pixels: np.ndarray | None
    images: list[np.ndarray | None]
    decodes: int


@dataclass(frozen=True)
class _Decoded:
    views: list[View]
    view_pixels: list[np.ndarray]
    image: np.ndarray | None


class Decoder:
    """Decodes the samples of one unit after another, `threads` at a time."""

    def __init__(self, settings: ViewSettings, seed: int, threads: int) -> None:
        self._settings, self._seed = settings, seed
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def chunks(
        self,
        samples: Sequence[Sample],
        bounds: Sequence[tuple[int, int]],
        wanted: Wanted,
        undecodable: Mapping[int, Failed],
    ) -> Iterator[Chunk]:
        """The unit's chunks in order; while one is worked on, the next is being decoded.

        undecodable: samples whose images mustn't be touched, since that kills the process.
        """

        def submit(start: int, stop: int) -> list[Future[_Decoded | Failed]]:
            return [
                self._pool.submit(self._decode, samples[index], wanted, undecodable.get(index))
                for index in range(start, stop)
            ]

        ahead = submit(*bounds[0]) if bounds else []
        for index, (start, stop) in enumerate(bounds):
            current = ahead
            ahead = submit(*bounds[index + 1]) if index + 1 < len(bounds) else []
            yield self._gather(start, samples[start:stop], current, wanted)

    def _decode(self, sample: Sample, wanted: Wanted, undecodable: Failed | None) -> _Decoded | Failed:
        if not (wanted.views or wanted.images or wanted.crops):
            return _Decoded([], [], None)
        if undecodable is not None:
            return undecodable
        try:
            data = sample.image or b""
            header = read_header(data)
            views = [
                cut_view(self._seed, sample.key, index, header.height, header.width, self._settings)
                for index in range(self._settings.count)
            ]
            pixels = [decode_view(data, view) for view in views] if wanted.views else []
            return _Decoded(views, pixels, decode_image(data) if wanted.images else None)
        except BadImage as error:
            return Failed.of(error)

    def _gather(
        self, start: int, samples: Sequence[Sample], futures: Sequence[Future[_Decoded | Failed]], wanted: Wanted
    ) -> Chunk:
        count, size = self._settings.count, self._settings.size
        pixels = np.zeros((len(samples) * count, size, size, 3), np.uint8) if wanted.views else None
        chunk = Chunk(start, samples, {}, [[] for _ in samples], pixels, [None for _ in samples], 0)
        for index, future in enumerate(futures):
            decoded = future.result()
            if isinstance(decoded, Failed):
                chunk.failed[index] = decoded
                continue
            chunk.views[index], chunk.images[index] = decoded.views, decoded.image
            chunk.decodes += len(decoded.view_pixels) + (decoded.image is not None)
            if pixels is not None:
                pixels[index * count : (index + 1) * count] = decoded.view_pixels
        return chunk


def chunk_bounds(samples: Sequence[Sample]) -> list[tuple[int, int]]:
    """Where a unit's chunks begin and end: by count, and by the sizes that the files' headers give."""
    bounds, start, pixels = [], 0, 0
    for index, sample in enumerate(samples):
        size = _pixels(sample)
        if index > start and (index - start == CHUNK_SAMPLES or pixels + size > CHUNK_PIXELS):
            bounds.append((start, index))
            start, pixels = index, 0
        pixels += size
    return [*bounds, (start, len(samples))] if samples else []


def _pixels(sample: Sample) -> int:
    if sample.image is None:
        return 0
    try:
        header = read_header(sample.image)
    except BadImage:
        return 0
    return header.height * header.width
