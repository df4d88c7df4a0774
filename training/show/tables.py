"""The tables that `plan` and `batches` print of a training recipe."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ..data.opening import OpenData
from ..data.ride_along import PIXELS
from .figures import Figures, Side, epochs


def print_datasets(console: Console, data: OpenData, steps: int) -> None:
    """The datasets with their shares, and what a run of so many steps makes of them."""
    table = _table("dataset", "units", "samples", "views", "repeats", "share", f"epochs in {steps:,} steps")
    for one, told in zip(data.datasets, epochs(data, steps), strict=True):
        table.add_row(
            told.name,
            f"{len(one.units):,}",
            f"{one.samples:,}",
            f"{one.mixed.shown_views}",
            f"{one.mixed.repeats}",
            f"{told.share:.1%}",
            f"{told.epochs:,.1f}",
        )
    console.print(table)
    budgets = (_range(data.settings.input_tokens), _range(data.settings.target_tokens))
    masking = data.settings.masking.name or "as written out"
    count = len(data.mixture.schemes)
    console.print(
        f"\nbatches of {data.settings.batch_size:,} samples, {budgets[0]} input and {budgets[1]} target tokens each; "
        f"masking {masking}: {count} scheme{'s' * (count != 1)}; seed {data.settings.seed}\n",
        soft_wrap=True,
    )


def print_modalities(console: Console, data: OpenData) -> None:
    """The modalities: what their tokens are, and in which datasets they are inputs and targets."""
    table = _table("modality", "tokens", "vocabulary", "input in", "target in")
    for name in data.mixture.modalities:
        having = [one for one in data.datasets if name in one.mixed.modalities]
        spec = data.mixture.spec(name)
        fixed = name == PIXELS or (spec and spec.length is not None)
        table.add_row(
            name,
            f"{'' if fixed else '<= '}{data.mixture.most(name):,}",
            f"{spec.vocabulary:,}" if spec else "-",
            ", ".join(one.mixed.name for one in having if name in (one.mixed.inputs or ())) or "-",
            ", ".join(one.mixed.name for one in having if spec and name in (one.mixed.targets or ())) or "-",
        )
    console.print(table)


def print_figures(console: Console, data: OpenData, figures: Figures) -> None:
    """What the batches that were made hold."""
    table = _table("modality", "input tokens", "in samples", "target tokens", "in samples")
    for place, name in enumerate(figures.modalities):
        sides = (figures.inputs, figures.targets)
        table.add_row(name, *(cell for side in sides for cell in _cells(side, place, figures.samples)))
    console.print(table)
    rate = figures.samples / max(figures.seconds, 1e-9)
    console.print(
        f"\n{figures.samples:,} samples at {rate:,.0f} a second in this process; "
        f"without any input {figures.inputs.empty / figures.samples:.1%}, without any target "
        f"{figures.targets.empty / figures.samples:.1%}",
        soft_wrap=True,
    )
    for name, samples in figures.skipped:
        console.print(f"{name} couldn't be read in {samples:,} of them, which go without it", soft_wrap=True)


def print_notes(console: Console, data: OpenData) -> None:
    for note in data.notes:
        console.print(f"note: {note}", soft_wrap=True)


def _cells(side: Side, place: int, samples: int) -> tuple[str, str]:
    """Tokens of a sample on average, and the share of samples that have any."""
    return f"{side.tokens[place] / samples:,.1f}", f"{side.samples[place] / samples:.0%}"


def _range(bounds: tuple[int, int]) -> str:
    least, most = bounds
    return f"{most:,}" if least == most else f"{least:,} to {most:,}"


def _table(first: str, *headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="left" if heading.endswith(" in") else "right", overflow="fold")
    return table
