"""The command `train`. It imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

RecipeName = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A training recipe's file, or the name of a shipped one.")
]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one value, as train.steps=1000.")
]


def train(
    recipe: RecipeName,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what each size needs, memory and time, and stop.")
    ] = False,
) -> None:
    """Train the model that a training recipe describes; run it again to go on from the latest checkpoint."""
    from ...pipeline.cluster.session import stop_ray
    from ...pipeline.commands.console import plain_console
    from ..data.recipe import load_training_recipe
    from .paper import print_paper
    from .progress import TrainingProgress
    from .run import check, run_training
    from .schedule import schedule_of

    loaded = load_training_recipe(recipe, overrides)
    check(loaded)
    console = plain_console()
    if dry_run:
        return print_paper(console, loaded)
    try:
        with TrainingProgress(console, schedule_of(loaded).steps) as progress:
            trained = run_training(loaded, progress.hear)
    finally:
        stop_ray()
    assert loaded.train is not None
    return console.print(f"{trained.steps:,} steps are done -> {loaded.train.output}", soft_wrap=True)
