"""The command `generate`. It imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

Checkpoint = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", help="A model's folder, or a training's output, or the URL of one.")
]
From = Annotated[
    list[str],
    typer.Option(
        "--from",
        metavar="INPUT",
        help="A photograph, MODALITY=FILE, MODALITY=TEXT, DATASET#KEY, or MODALITY=DATASET#KEY.",
    ),
]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Of one target, as depth.steps=4, or of all: top_p=0.9.")
]


def generate(
    checkpoint: Checkpoint,
    inputs: From = [],  # noqa: B006 - typer copies it
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="MODALITIES", help="Which to say, in this order: depth,caption; by default all."),
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="The folder to write.")] = "generated",
    count: Annotated[
        int | None, typer.Option("--n", min=1, help="How often to draw; 1 by default, 10 with --ensemble.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws hang on it, and on nothing else that is drawn.")] = 0,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Average the draws, too, as the paper does.")] = False,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET", help="What ids mean, where the model's folder doesn't say: what it was trained on."
        ),
    ] = None,
    overrides: Overrides = [],  # noqa: B006
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what was generated there before.")] = False,
) -> None:
    """Generate modalities from others with a model, as labels and as a page."""
    from ...pipeline.commands.console import counted, plain_console
    from ..fit.open_model import open_model
    from .average import DRAWS
    from .draws import drawn, on_gpu
    from .output import Request, output_folder, weights_digest, write_output
    from .progress import GenerationProgress
    from .prompt import prompt
    from .settings import PromptError

    target = output_folder(output, overwrite)
    number = count or (DRAWS if ensemble else 1)
    if ensemble and number == 1:
        raise PromptError("--ensemble --n 1: one draw is its own average; draw several, 10 as the paper does")
    model, forms = open_model(checkpoint, dataset)
    asked = prompt(forms, inputs, to, overrides)
    request = Request(checkpoint, weights_digest(model), dataset, asked, number, seed, ensemble)
    console = plain_console()
    if asked.unknown:
        told = ", ".join(asked.unknown)
        console.print(f"left out, since nothing says what its ids mean: {told}", soft_wrap=True)
    with GenerationProgress(console, number) as progress:
        progress.begin()
        outcome = write_output(request, drawn(on_gpu(model), asked, number, seed, progress.watch), target)
        rate = progress.rate
    for name, problems in outcome.problems.items():
        if problems:
            console.print(
                f"{name}: of {counted(problems, 'draw')} its label is faulty, or there is none", soft_wrap=True
            )
    if outcome.alone:
        console.print(f"no average of {', '.join(outcome.alone)}", soft_wrap=True)
    told = f"{counted(outcome.draws, 'draw')} of {', '.join(asked.targets)}, {rate}"
    console.print(f"{told} -> {outcome.page}", soft_wrap=True)
