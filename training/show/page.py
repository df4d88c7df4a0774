"""The page of `tokenloom batches`: what a model will see, as a static page that a browser opens from disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...pipeline.corpus.units import spread
from ...pipeline.dataset.manifest import DatasetError
from ...pipeline.preview.cells import Pictures, readable
from ...pipeline.preview.preview import new_folder, refuse_others, write_data
from ..data.batch import Batch
from ..data.opening import OpenData
from .figures import Figures, Side, epochs
from .samples import SampleMaker

PAGE = Path(__file__).parent / "page"
MARK = "data/batches.js"


def page_folder(folder: str | Path) -> Path:
    """Where a page may be written. Raises DatasetError where something else than an earlier one lies there, and where
    none can be written."""
    if "://" in str(folder):
        raise DatasetError(f"{folder}: a page is written to a local folder; copy it where it is wanted")
    return refuse_others(Path(folder).expanduser().resolve(), MARK)


def write_page(
    data: OpenData, figures: Figures, batches: Sequence[Batch], target: Path, name: str, samples: int, steps: int
) -> Path:
    """Writes the page into the folder `target`, of `page_folder`, in the place of an earlier one; its index.html.

    name: of the recipe. samples: how many of the batches' are shown, evenly spread.
    """
    places = [(batch, row) for batch in batches for row in range(len(batch.positions))]
    with new_folder(target, PAGE) as folder:
        maker = SampleMaker(data, Pictures(folder))
        chosen = spread(places, samples)
        cards = [maker.card(batch, row, number) for number, (batch, row) in enumerate(chosen)]
        told = {"name": readable(name, 200), "steps": steps, **_figures(data, figures, steps), "cards": cards}
        write_data(folder / MARK, "batches", told)
    return target / "index.html"


def _figures(data: OpenData, figures: Figures, steps: int) -> dict[str, Any]:
    return {
        "samples": figures.samples,
        "rate": round(figures.samples / max(figures.seconds, 1e-9)),
        "skipped": [[name, count] for name, count in figures.skipped],
        "empty": [figures.inputs.empty, figures.targets.empty],
        "budgets": [data.settings.input_tokens, data.settings.target_tokens],
        "batch_size": data.settings.batch_size,
        "masking": data.settings.masking.name or "written out",
        "seed": data.settings.seed,
        "notes": [readable(note, 1000) for note in data.notes],
        "datasets": [
            {
                "name": one.name,
                "url": readable(opened.mixed.reader.store.url, 500),
                "samples": opened.samples,
                "share": one.share,
                "epochs": round(one.epochs, 2),
            }
            for one, opened in zip(epochs(data, steps), data.datasets, strict=True)
        ],
        "modalities": [
            {"name": name, "input": _of(figures.inputs, place, figures), "target": _of(figures.targets, place, figures)}
            for place, name in enumerate(figures.modalities)
        ],
    }


def _of(side: Side, place: int, figures: Figures) -> list[float]:
    """Mean tokens of a sample, and the share of samples that have any."""
    return [round(float(counts[place]) / figures.samples, 3) for counts in (side.tokens, side.samples)]
