"""The preview: a dataset as a gallery of static pages, which a browser opens from disk.

What is read is bounded, whatever the dataset's size: some units, evenly spread, are surveyed for the statistics, and of
some of these a few samples are shown. Pages, styles and scripts are the files in `gallery/`, copied as they are; all
that comes from the dataset goes into `data/*.js` as JSON and reaches the page as text, never as markup.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .manifest import DatasetError, Manifest, require_manifest
from .preview_cells import CellMaker, Pictures, readable
from .preview_source import UnitReader, ViewFinder
from .preview_survey import Survey
from .storage import Store
from .tokenizer_store import load_tokenizer
from .units import Unit
from .worklist import list_progress

GALLERY = Path(__file__).parent / "gallery"
PAGE = 24
"""Samples on a page."""
DEFAULT_LIMIT = 200
SURVEYED_UNITS = 256
"""Units that the statistics are made from, at most, unless all are asked for."""

_MARK = "data/overview.js"


def write_preview(
    dataset: str,
    output: str | Path | None = None,
    limit: int | None = DEFAULT_LIMIT,
    watch: Callable[[int, int], None] = lambda done, units: None,
) -> Path:
    """Writes the gallery of the dataset at the URL `dataset`; its index.html.

    output: the folder; by default NAME-preview beside a local dataset, in the working directory for others. An earlier
        preview there is replaced when the new one is finished.
    limit: how many views to show, at most, evenly spread over the dataset; None shows all, and surveys all units.
    watch: called with the number of units done, and of all that will be read.

    Raises DatasetError, StorageError, or RegistryError where a plugin that made the dataset isn't installed.
    """
    store = Store(dataset)
    manifest = require_manifest(store)
    target = _target(store, output)
    finished = {name: progress.units for name, progress in list_progress(store, manifest.modalities).items()}
    units = sorted(set().union(*finished.values()))
    views = manifest.views["count"]
    picks = pick_samples(units, None if limit is None else max(1, limit // views))
    surveyed = units if limit is None else sorted({*spread(units, SURVEYED_UNITS), *picks})
    tokenizers = {
        name: load_tokenizer(store, name, card)
        for name, card in manifest.modalities.items()
        if card.tokens is not None and card.keeps_tokens and finished[name]
    }
    with _new_folder(target) as folder:
        survey = Survey(manifest, tokenizers)
        finder = ViewFinder(manifest)
        cells = CellMaker(manifest, tokenizers, Pictures(folder))
        pages = _Pages(folder)
        reader = UnitReader(store, manifest, finished)
        for done, unit in enumerate(surveyed):
            watch(done, len(surveyed))
            _show_unit(reader, unit, picks.get(unit, ()), survey, finder, cells, pages)
        watch(len(surveyed), len(surveyed))
        pages.close()
        overview = {
            **_about(dataset, manifest, units, surveyed, finished),
            "views": {"origins": dict(finder.origins), "problem": readable(finder.problem, 500)},
            "modalities": survey.modalities(finished),
            "quarantine": survey.quarantine(),
            "page_size": PAGE,
            "cards": pages.index,
        }
        _write_data(folder / _MARK, "start", overview)
    return target / "index.html"


def pick_samples(units: Sequence[Unit], limit: int | None) -> dict[Unit, list[int]]:
    """Which samples of which units to show, as indices in their unit: `limit` of them, evenly spread; None for all.

    They come from as few units as give a page's worth each, since units are read whole.
    """
    total = sum(unit.count for unit in units)
    if limit is None or limit >= total:
        return {unit: list(range(unit.count)) for unit in units if unit.count}
    per_unit = max(1, min(PAGE, total // len(units)))
    chosen = spread([unit for unit in units if unit.count], math.ceil(limit / per_unit))
    places = [(unit, index) for unit in chosen for index in range(unit.count)]
    picks: dict[Unit, list[int]] = defaultdict(list)
    for unit, index in spread(places, limit):
        picks[unit].append(index)
    return dict(picks)


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """`count` of the items, evenly spread and in order; all where there are no more."""
    if count >= len(items):
        return list(items)
    return [items[(2 * place + 1) * len(items) // (2 * count)] for place in range(count)]


def _show_unit(
    reader: UnitReader,
    unit: Unit,
    samples: Sequence[int],
    survey: Survey,
    finder: ViewFinder,
    cells: CellMaker,
    pages: _Pages,
) -> None:
    """Surveys one unit, and makes the cards of the chosen samples. One modality is in memory at a time."""
    survey.add_rejections(reader.rejections(unit))
    cards = None
    for name in reader.order:
        column = reader.column(unit, name)
        survey.add(name, column)
        if not samples:
            continue
        if cards is None:
            rows = reader.rows(unit, samples)
            seen = finder.find(unit, rows, column)
            cards = [pages.new_card(row, seen[row]) for row in rows]
            cells.begin(cards, seen)
        cells.add(name, column, rows)
    for card in cards or ():
        pages.add(card)
