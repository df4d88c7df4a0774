"""The preview: a dataset as a gallery of static pages, which a browser opens from disk.

What is read is bounded, whatever the dataset's size: some units, evenly spread, are surveyed for the statistics, and of
some of these a few samples are shown. Pages, styles and scripts are the files in `gallery/`, copied as they are; all
that comes from the dataset goes into `data/*.js` as JSON and reaches the page as text, never as markup.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..corpus.units import Unit, spread
from ..dataset.finished import list_finished, units_of
from ..dataset.manifest import DatasetError, Manifest, require_manifest
from ..dataset.tokenizers import load_tokenizer
from ..storage.store import Store
from ..views.content import ContentReader
from ..views.view_pixels import Seen, ViewFinder
from .cells import PAGE, VIEW, CellMaker, Pictures, readable
from .survey import Survey

GALLERY = Path(__file__).parent / "gallery"
DEFAULT_LIMIT = 200
SURVEYED_UNITS = 256
"""Units that the statistics are made from, at most, unless all are asked for."""

_MARK = "data/overview.js"


def preview(dataset: str, output: Path | None, limit: int | None) -> None:
    """What the command does: writes the gallery, shows how far it is, and says where it lies."""
    from rich.progress import Progress

    with Progress(transient=True, disable=not sys.stdout.isatty()) as progress:
        task = progress.add_task("reading units", total=None)
        index = write_preview(dataset, output, limit, lambda done, of: progress.update(task, completed=done, total=of))
    print(f"preview  {index}")


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
    finished = list_finished(store, manifest.modalities, manifest.corpus.retired)
    units = units_of(finished.values()).in_order()
    if not any(unit.count for unit in units):
        raise DatasetError(f"{store.url} holds no samples to look at; `tokenloom status` says how far it is")
    views = manifest.views["count"]
    picks = pick_samples(units, None if limit is None else max(1, limit // views))
    surveyed = units if limit is None else sorted({*spread(units, SURVEYED_UNITS), *picks})
    tokenizers = {
        name: load_tokenizer(store, name, card)
        for name, card in manifest.modalities.items()
        if card.tokens is not None and card.keeps_tokens and finished[name].units
    }
    with new_folder(target) as folder:
        survey = Survey(manifest, tokenizers)
        finder = ViewFinder(manifest, tokenizers)
        pages = _Pages(folder)
        maker = CellMaker(manifest, tokenizers, pages.pictures)
        reader = ContentReader(store, manifest, finished)
        for done, unit in enumerate(surveyed):
            watch(done, len(surveyed))
            _survey_unit(reader, unit, picks.get(unit, ()), survey, finder, maker, pages)
        watch(len(surveyed), len(surveyed))
        pages.close()
        overview = {
            **_about(store, manifest, units, surveyed),
            "origins": dict(finder.origins),
            "problem": readable(finder.problem, 1000),
            "modalities": survey.modalities(finished, maker.errors),
            "quarantine": survey.quarantine(),
            "page_size": PAGE,
            "cards": pages.index,
        }
        write_data(folder / _MARK, "start", overview)
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


def _survey_unit(
    reader: ContentReader,
    unit: Unit,
    samples: Sequence[int],
    survey: Survey,
    finder: ViewFinder,
    maker: CellMaker,
    pages: _Pages,
) -> None:
    """Counts what one unit holds, and makes the cards of the chosen samples. One modality is in memory at a time."""
    survey.add_failures(reader.rejections(unit))
    keys = reader.keys(unit) if samples else []
    seen = finder.find(unit, keys, samples, reader) if keys else {}
    numbers = [pages.add_card(keys[sample], view, unit, seen[sample, view]) for sample, view in seen]
    for name in reader.modalities:
        content = reader.content(unit, name, labels=bool(seen))
        survey.add(name, content)
        for number, cell in zip(numbers, maker.cells(name, content, seen, numbers), strict=True):
            pages.add_cell(number, cell)
    pages.write_full()


class _Pages:
    """The pages' data, written a page at a time: data/page-0000.js and so on. index: key and view of every card."""

    def __init__(self, folder: Path) -> None:
        self.pictures = Pictures(folder)
        self.index: list[tuple[str, int]] = []
        self._folder = folder
        self._open: list[dict[str, Any]] = []
        self._written = 0

    def add_card(self, key: str, view: int, unit: Unit, seen: Seen) -> int:
        """A new card, still without cells; its number."""
        number = len(self.index)
        image = self.pictures.add(seen.pixels, number, VIEW) if seen.origin else None
        shown_key = readable(key, 500)
        self.index.append((shown_key, view))
        card = {"key": shown_key, "view": view, "unit": unit.name, "image": image, "origin": seen.origin, "cells": []}
        self._open.append(card)
        return number

    def add_cell(self, number: int, cell: dict[str, Any]) -> None:
        self._open[number - self._written * PAGE]["cells"].append(cell)

    def write_full(self) -> None:
        """Writes the pages that are full; the cards so far must be finished."""
        while len(self._open) >= PAGE:
            self._write()

    def close(self) -> None:
        """Writes what is left."""
        while self._open:
            self._write()

    def _write(self) -> None:
        write_data(self._folder / f"data/page-{self._written:04d}.js", "page", self._written, self._open[:PAGE])
        del self._open[:PAGE]
        self._written += 1


def _about(store: Store, manifest: Manifest, units: Sequence[Unit], surveyed: Sequence[Unit]) -> dict[str, Any]:
    """What the head of the gallery says."""
    return {
        "name": readable(store.url.rstrip("/").rsplit("/", 1)[-1], 200),
        "url": readable(store.url, 500),
        "corpus": [readable(url, 500) for url in manifest.corpus.url],
        "seed": manifest.seed,
        "view": manifest.views,
        "texts": manifest.corpus.reading.get("text") is not None,
        "units": len(units),
        "samples": sum(unit.count for unit in units),
        "surveyed": {"units": len(surveyed), "samples": sum(unit.count for unit in surveyed)},
    }


def write_data(path: Path, function: str, *arguments: Any) -> None:
    """A script that hands JSON to a function of the gallery. Pure ASCII, and no `<`: nothing in it can end a script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [json.dumps(argument, allow_nan=False, separators=(",", ":")) for argument in arguments]
    path.write_text(f"tokenloom.{function}({','.join(texts)});\n".replace("<", "\\u003c"), encoding="ascii")


def _target(store: Store, output: str | Path | None) -> Path:
    """The gallery's folder. Raises DatasetError for one that mustn't be written to."""
    name = store.url.rstrip("/").rsplit("/", 1)[-1] + "-preview"
    if output is None:
        target = Path(store.address).parent / name if store.is_local else Path(name)
    elif "://" in str(output):
        raise DatasetError(f"{output}: a preview is written to a local folder; copy it where it is wanted")
    else:
        target = Path(output).expanduser()
    target = target.resolve()
    if store.is_local and target.is_relative_to(Path(store.address).resolve()):
        raise DatasetError(f"{target}: a preview can't lie in the dataset, whose files are all verified; give --output")
    return refuse_others(target, _MARK)


def refuse_others(target: Path, mark: str) -> Path:
    """The target of a page. Raises DatasetError where something lies there that hasn't the file `mark`, and where none
    can be written."""
    if target.exists() and not (target / mark).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(
            f"{target}: there is something else, which the page would replace; name another folder by --output"
        )
    above = next(folder for folder in target.parents if folder.exists())
    try:
        Path(tempfile.mkdtemp(dir=above)).rmdir()
    except OSError as error:
        raise DatasetError(
            f"{target}: no page can be written there, since {above} takes no folder ({error.strerror}); name another "
            f"folder by --output"
        ) from None
    return target


@contextmanager
def new_folder(target: Path, *more: Path) -> Iterator[Path]:
    """A copy of the gallery's own files, and those of `more` over them, beside `target`, whose place it takes when all
    is written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        for source in (GALLERY, *more):
            shutil.copytree(source, unfinished, dirs_exist_ok=True)
        yield unfinished
        unfinished.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
