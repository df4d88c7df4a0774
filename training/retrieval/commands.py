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
            "--from", metavar="WHAT", help="PHOTO, MODALITY=FILE, MODALITY=TEXT or DATASET#KEY; several add up."
        ),
    ],
    by: Annotated[str, typer.Option(metavar="MODALITY", help="The vector to compare by, as dinov2_global.")],
    count: Annotated[int, typer.Option("--n", min=1, help="Samples to find.")] = 8,
    output: Annotated[str, typer.Option(metavar="DIR", help="The page's folder.")] = "retrieved",
    meanings: Annotated[
        str | None,
        typer.Option(
            "--dataset", metavar="URL", help="Says what the model's ids mean, where its folder and DATASET don't."
        ),
    ] = None,
    in_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Find the samples of a dataset that are nearest to a photograph, a text, or anything else a model takes."""
    import json
    from dataclasses import asdict

    from ...pipeline.commands.console import plain_console
    from ..evaluation.progress import EvaluationProgress
    from ..forms.given import read_given
    from .opened import open_both
    from .page import page_folder, write_page
    from .retrieve import retrieve
    from .tables import print_retrieval

    target = page_folder(output)
    console = plain_console(stderr=in_json)
    opened = open_both(checkpoint, dataset, by, meanings)
    sample = read_given(opened.forms, given)
    with EvaluationProgress(console) as progress:
        found, hits = retrieve(checkpoint, opened, sample, count, progress.watch)
    index = write_page(opened, sample, found, hits, target)
    if in_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        print_retrieval(console, found)
    console.print(f"page  {index}", soft_wrap=True)
