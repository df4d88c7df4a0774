"""The command line's group `tokenizer`. Every command imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="Train tokenizers, measure what they lose, and publish them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Modality = Annotated[str, typer.Argument(metavar="MODALITY", help="The modality's name.")]


@app.command("fit")
def fit(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's file, or the name of a shipped one.")],
    modality: Modality,
    target: Annotated[str, typer.Option("--to", metavar="URL", help="Where the tokenizer goes, with its checkpoints.")],
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one value of the recipe.")
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """Train a tokenizer on the labels that the recipe's dataset keeps; run it again to resume.

    The recipe says which one, by `tokenizer: {fit: {...}}` of the modality; without, the kind's own is trained.
    """
    from .commands import tokenizer as tokenizer_commands

    tokenizer_commands.fit(recipe, modality, target, overrides)


@app.command("eval")
def evaluate(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's folder or URL.")],
    modality: Modality,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", metavar="URL", help="Folder, URL or hub id of another than its own.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Labels to compare, at most.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what tokens lose: labels that the dataset keeps, against their reconstructions."""
    from .commands import tokenizer as tokenizer_commands

    tokenizer_commands.evaluate(dataset, modality, tokenizer, limit, as_json)


@app.command("push")
def push(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="DATASET/tokenizers/MODALITY, or where `tokenizer fit` put one.")
    ],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A folder, a URL, or a hub id: ORG/NAME.")],
) -> None:
    """Publish a trained tokenizer in the format of 4M's own, with a model card. On the hub it stays private."""
    from .commands import publish

    publish.push(source, target)
