"""The command `evaluate`. It imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

Checkpoint = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", help="A model's folder, or a training's output, or the URL of one.")
]
Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's folder or URL.")]


def evaluate(
    checkpoint: Checkpoint,
    dataset: Dataset,
    limit: Annotated[int | None, typer.Option(min=1, help="Samples to look at, at most.")] = None,
    input_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of other modalities that a sample shows, at most.")
    ] = 256,
    against: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="Also what a unigram model gets that has counted this one's tokens."),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Also write it as an HTML page, at a path or URL, and as JSON beside that."),
    ] = None,
    in_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what a model has learnt, on samples that it wasn't trained on."""
    from contextlib import nullcontext

    from ...pipeline.commands.console import plain_console
    from ...pipeline.commands.progress import SamplesProgress
    from .evaluate import evaluate
    from .opened import open_both
    from .report import EvaluationReport, as_json
    from .tables import print_evaluation

    console = plain_console(stderr=in_json)
    with EvaluationReport(report, dataset).begun(checkpoint) if report is not None else nullcontext() as page:
        with SamplesProgress(console) as progress:
            found = evaluate(open_both(checkpoint, dataset), input_tokens, limit, against, progress.watch)
        if page:
            page.ended(found)
    if in_json:
        print(as_json(found))
    else:
        print_evaluation(console, found)
        if page:
            console.print(f"page  {page.url}", soft_wrap=True)
