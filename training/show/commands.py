"""What the commands `batches` and, for a training recipe, `plan` do. They import what they need when they run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

RecipeFile = Annotated[str, typer.Argument(metavar="RECIPE", help="A training recipe's file.")]
Steps = Annotated[int, typer.Option(min=1, help="Steps of the run that epochs are told for.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one value, as data.batch_size=256.")
]

STEPS = 100_000


def batches(
    recipe: RecipeFile,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    count: Annotated[int, typer.Option("--batches", min=1, help="Batches that the figures are made from.")] = 8,
    steps: Steps = STEPS,
    limit: Annotated[int, typer.Option(min=1, help="Samples to show on the page, evenly spread.")] = 24,
    output: Annotated[
        str | None, typer.Option("--output", metavar="DIR", help="The page's folder; RECIPE-batches by default.")
    ] = None,
) -> None:
    """Show what a model will see: batches of a training recipe, in figures and as a page."""
    from itertools import islice

    from ...pipeline.commands.console import plain_console
    from ..data.batches import Batches
    from ..data.opening import open_data
    from ..data.recipe import load_training_recipe
    from .figures import counted
    from .page import page_folder, write_page
    from .tables import print_datasets, print_figures, print_notes

    file = Path(recipe)
    target = page_folder(output or file.parent / f"{file.stem}-batches")
    data = open_data(load_training_recipe(recipe, overrides))
    console = plain_console()
    print_datasets(console, data, steps)
    figures, made = counted(data.mixture, islice(Batches(data.mixture, data.settings.batch_size), count))
    print_figures(console, data, figures)
    print_notes(console, data)
    console.print(f"page  {write_page(data, figures, made, target, file.stem, limit, steps)}", soft_wrap=True)


def plan(recipe: str, overrides: Sequence[str]) -> None:
    """Prints what the datasets of a training recipe give, from their manifests and listings alone; of a corpus whose
    pixels are wanted, the first sample is looked for."""
    from ...pipeline.commands.console import plain_console
    from ..data.opening import open_data
    from ..data.recipe import load_training_recipe
    from .tables import print_datasets, print_modalities, print_notes

    data = open_data(load_training_recipe(recipe, overrides))
    console = plain_console()
    print_datasets(console, data, STEPS)
    print_modalities(console, data)
    print_notes(console, data)
