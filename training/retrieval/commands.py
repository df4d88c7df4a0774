"""The command `retrieve`. It imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

Checkpoint = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", help="A model's folder, or a training's output, or the URL of one.")
]
Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's folder or URL.")]


def retrieve(
    checkpoint: Checkpoint,
    dataset: Dataset,
    given: Annotated[
        list[str],
        typer.Option(
            "--from",
            metavar="PHOTO|MODALITY=...",
            help="A photograph, or a modality's file, text or DATASET#KEY.",
        ),
    ],
    by: Annotated[str, typer.Option(metavar="MODALITY", help="Whose vectors are compared, as dinov2_global.")],
    limit: Annotated[int, typer.Option(min=1, help="Samples to find.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of what the model says.")] = 0,
    meanings: Annotated[
        str | None,
        typer.Option("--dataset", metavar="URL", help="Says what ids mean, where the checkpoint and DATASET don't."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="DIR", help="The page's folder; NAME-retrieved by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and write a page only with --output.")] = False,
) -> None:
    """Find the samples of a dataset that are nearest to what is given, in any modality."""
    import json

    from ...pipeline.commands.console import plain_console
    from ...pipeline.commands.progress import SamplesProgress
    from .page import page_folder, write_page
    from .retrieve import retrieve
    from .tables import as_json as told
    from .tables import print_retrieval

    console = plain_console(stderr=as_json)
    target = None if as_json and output is None else page_folder(output, dataset)
    with SamplesProgress(console) as progress:
        found = retrieve(checkpoint, dataset, given, by, limit, seed, progress.watch, meanings)
    if as_json:
        print(json.dumps(told(found), indent=2))
    else:
        print_retrieval(console, found)
    if target:
        console.print(f"page  {write_page(found, target)}", soft_wrap=True)
