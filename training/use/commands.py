"""What room training brings to the command line. As there, all that is heavy is imported when a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

DatasetUrl = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's folder or URL.")]


def export(
    dataset: DatasetUrl,
    output: Annotated[str, typer.Argument(metavar="OUT", help="An empty folder or URL, or one to go on with.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="webdataset or hf.")],
    modalities: Annotated[
        list[str], typer.Option("--modality", metavar="MODALITY", help="Only this one; may be given again.")
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """Write a dataset's tokens in a format of other trainers; run it again to resume."""
    from .printing import run_export

    run_export(dataset, output, to, modalities)
