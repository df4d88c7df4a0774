"""The page of `tokenloom retrieve`: what was given, and the samples that were found, in pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.dataset import Dataset
from ...pipeline.dataset.manifest import DatasetError
from ...pipeline.preview.cells import VIEW, Pictures, readable, shown
from ...pipeline.preview.preview import new_folder, refuse_others, write_data
from ...pipeline.views.content import ContentReader
from ...pipeline.views.view_pixels import GREY, RGB, Seen, ViewFinder
from .nearest import Match
from .retrieve import Retrieval

Json: TypeAlias = "dict[str, Any]"

PAGE = Path(__file__).parent / "page"
_MARK = "data/retrieved.js"


def page_folder(folder: str | None, dataset: str) -> Path:
    """Where the page may be written; by default NAME-retrieved in the working directory. Raises DatasetError where
    something else lies there, and where none can be written."""
    if folder and "://" in folder:
        raise DatasetError(f"{folder}: a page is written to a local folder; copy it where it is wanted")
    name = dataset.rstrip("/").rpartition("/")[2] or "dataset"
    return refuse_others(Path(folder or f"{name}-retrieved").expanduser().resolve(), _MARK)


def write_page(found: Retrieval, target: Path) -> Path:
    """Writes the page into the folder `target`, in the place of an earlier one; its index.html."""
    with new_folder(target, PAGE) as folder:
        pictures = Pictures(folder)
        told = {
            "dataset": readable(found.dataset.store.url, 500),
            "checkpoint": readable(found.checkpoint, 500),
            "by": found.by,
            "origin": found.origin,
            "predicted": found.predicted,
            "samples": found.samples,
            "lacking": found.lacking,
            "unmade": found.unmade,
            "given": list(_given(found, pictures)),
            "matches": list(_matches(found, pictures)),
        }
        write_data(folder / _MARK, "retrieved", told)
    return target / "index.html"


def _given(found: Retrieval, pictures: Pictures) -> Iterator[Json]:
    size = int(found.dataset.manifest.views["size"])
    blank = np.full((size, size, 3), GREY, np.uint8)
    for number, one in enumerate(found.given.values()):
        told = shown(one.form.kind, one.label, blank, pictures, (number, "given"))
        yield {"modality": one.form.name, "said": readable(one.said, 500), **told}


def _matches(found: Retrieval, pictures: Pictures) -> Iterator[Json]:
    seen = views_of(found.dataset, found.matches)
    for number, one in enumerate(found.matches):
        view = seen[one.unit, one.sample, one.view]
        yield {
            "key": readable(one.key, 500),
            "view": one.view,
            "distance": round(one.distance, 6),
            "image": pictures.add(view.pixels, number, VIEW) if view.origin else None,
            "origin": view.origin,
        }


def views_of(dataset: Dataset, matches: Sequence[Match]) -> dict[tuple[Unit, int, int], Seen]:
    """The matches' pictures by unit, sample and view: of the corpus where that can be read, else as the dataset has
    them. Units are read once each."""
    reader, manifest = dataset.reader, dataset.manifest
    has_rgb = RGB in dataset.modalities and dataset.modalities[RGB].has_tokens
    finder = ViewFinder(manifest, {RGB: dataset.modalities[RGB].tokenizer()} if has_rgb else {})
    contents = ContentReader(reader.store, manifest, reader.listed)
    by_unit: defaultdict[Unit, set[int]] = defaultdict(set)
    for one in matches:
        by_unit[one.unit].add(one.sample)
    return {
        (unit, sample, view): seen
        for unit, samples in by_unit.items()
        for (sample, view), seen in finder.find(unit, contents.keys(unit), sorted(samples), contents).items()
    }
