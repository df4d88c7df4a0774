"""What was retrieved, as a static page with pictures that a browser opens from disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...labelers.contract.kinds import Image
from ...pipeline.dataset.manifest import DatasetError
from ...pipeline.dataset.tokenizers import load_tokenizer
from ...pipeline.preview.cells import LONGEST_TEXT, VIEW, Pictures, readable
from ...pipeline.preview.preview import new_folder, refuse_others, write_data
from ...pipeline.views.content import ContentReader
from ...pipeline.views.view_pixels import GREY, RGB, Seen, ViewFinder
from ..forms.given import Given
from .nearest import Hit
from .opened import Opened
from .retrieve import Retrieval
from .tables import headline

PAGE = Path(__file__).parent / "page"
MARK = "data/retrieved.js"


def page_folder(folder: str) -> Path:
    """Where a page may be written. Raises DatasetError where something else than an earlier one lies there, and where
    none can be written."""
    if "://" in folder:
        raise DatasetError(f"{folder}: a page is written to a local folder; copy it where it is wanted")
    return refuse_others(Path(folder).expanduser().resolve(), MARK)


def write_page(opened: Opened, given: Mapping[str, Given], found: Retrieval, hits: Sequence[Hit], target: Path) -> Path:
    """Writes the page into the folder `target`, of `page_folder`, in the place of an earlier one; its index.html."""
    with new_folder(target, PAGE) as folder:
        pictures = Pictures(folder)
        cards = []
        for hit, told, seen in zip(hits, found.hits, _seen(opened, hits), strict=True):
            image = pictures.add(seen.pixels, told.rank, VIEW) if seen.origin else None
            key = readable(hit.key, 500)
            cards.append({"key": key, "score": hit.score, "unit": told.unit, "image": image, "origin": seen.origin})
        shown = {
            "head": readable(headline(found), LONGEST_TEXT),
            "by": found.by,
            "notes": [readable(note, 1000) for note in found.notes],
            "given": list(_given(given.values(), pictures)),
            "hits": cards,
        }
        write_data(folder / MARK, "retrieved", shown)
    return target / "index.html"


def _seen(opened: Opened, hits: Sequence[Hit]) -> list[Seen]:
    """The pictures of the hits, each unit's together."""
    vectors, manifest = opened.vectors, opened.manifest
    card = manifest.modalities.get(RGB)
    known = card is not None and card.tokens is not None and card.keeps_tokens and card.fitted
    tokenizers = {RGB: load_tokenizer(vectors.store, RGB, card)} if card and known else {}
    finder, reader = ViewFinder(manifest, tokenizers), ContentReader(vectors.store, manifest, vectors.finished)
    rows: dict[int, list[int]] = defaultdict(list)
    for hit in hits:
        rows[hit.place].append(hit.row)
    found = {}
    for place, own in rows.items():
        unit = vectors.units[place]
        pictures = finder.find(unit, reader.keys(unit), own, reader)
        found |= {(place, row): pictures[row, 0] for row in own}
    return [found[hit.place, hit.row] for hit in hits]


def _given(given: Iterable[Given], pictures: Pictures) -> Iterable[dict[str, Any]]:
    """What was given, as its kinds show it: on a photograph where that is among it."""
    given = list(given)
    photo = next((one.label for one in given if one.form.is_photo), None)
    for number, one in enumerate(given):
        told: dict[str, Any] = {"name": one.form.name, "said": readable(one.said, 500)}
        if one.label is not None:
            told |= _shown(one, photo, pictures, number)
        yield told


def _shown(one: Given, photo: np.ndarray | None, pictures: Pictures, number: int) -> dict[str, Any]:
    kind = one.form.kind
    size = one.label.shape[:2] if isinstance(kind, Image) else (224, 224)
    shown = kind.show(one.label, np.full((*size, 3), GREY, np.uint8) if photo is None else photo)
    if isinstance(shown, str):
        return {"text": readable(shown, LONGEST_TEXT)}
    if isinstance(shown, Mapping):
        return {"table": {readable(name, 100): readable(value, 200) for name, value in shown.items()}}
    return {"picture": pictures.add(shown, 0, f"given-{number}")}
