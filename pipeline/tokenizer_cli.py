"""The commands `tokenloom tokenizer ...`."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import AsJson, DatasetUrl, ModalityName, RecipeName

tokenizer_app = typer.Typer(
    help="Train tokenizers, measure what they lose, and publish them.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@tokenizer_app.command("fit")
def tokenizer_fit(
    recipe: RecipeName,
    modality: ModalityName,
    target: Annotated[str, typer.Option("--to", metavar="URL", help="Where the tokenizer goes, with its checkpoints.")],
    overrides: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one value of the recipe.")
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """Train a tokenizer on the labels that the recipe's dataset keeps; run it again to resume.

    The recipe says which one, by `tokenizer: {fit: {...}}` of the modality; without, the kind's own is trained.
    """
    from .commands import elsewhere
    from .commands import tokenizer as commands

    elsewhere.refuse(recipe)
    commands.fit(recipe, modality, target, overrides)


@tokenizer_app.command("eval")
def tokenizer_eval(
    dataset: DatasetUrl,
    modality: ModalityName,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", metavar="URL", help="Folder, URL or hub id of another than its own.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Labels to compare, at most.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what tokens lose: labels that the dataset keeps, against their reconstructions."""
    from .commands import tokenizer as commands

    commands.evaluate(dataset, modality, tokenizer, limit, as_json)


@tokenizer_app.command("push")
def tokenizer_push(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="DATASET/MODALITY, or where `tokenizer fit` put one.")
    ],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A folder, a URL, or a hub id: ORG/NAME.")],
) -> None:
    """Publish a trained tokenizer in the format of 4M's own, with a model card. On the hub it stays private."""
    from .commands import publish

    publish.push(source, target)
