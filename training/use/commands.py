"""What room training brings to the command line. As there, all that is heavy is imported when a command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...pipeline.options import DatasetUrl, Modalities


def export(
    dataset: DatasetUrl,
    output: Annotated[str, typer.Argument(metavar="OUT", help="An empty folder or URL, or one to go on with.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="webdataset, hf, lm or ml-4m.")],
    modalities: Modalities = [],  # noqa: B006 - typer copies it
    tasks: Annotated[
        Path | None,
        typer.Option("--tasks", metavar="FILE", help="YAML: which modalities follow which, of lm.", exists=True),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also read what was made before; what isn't as it was is made anew.")
    ] = False,
) -> None:
    """Write a dataset's tokens in a format of other trainers; run it again to resume."""
    from .printing import run_export

    run_export(dataset, output, to, modalities, tasks, verify)


def decode(
    exported: Annotated[str, typer.Argument(metavar="EXPORT", help="What `export --to lm` wrote.")],
    ids: Annotated[str, typer.Argument(metavar="IDS", help="A file of ids: JSON, or blanks between; - is stdin.")],
    dataset: Annotated[
        str | None, typer.Option("--dataset", metavar="URL", help="Where the dataset is now, with its tokenizers.")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--output", metavar="DIR", help="Write the labels there.")] = None,
) -> None:
    """Turn a sequence of ids that a model made back into labels, by the dataset's tokenizers."""
    from .printing import run_decode

    run_decode(exported, ids, dataset, folder)
