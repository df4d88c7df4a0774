"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's file, or the name of a shipped one.")]
DatasetUrl = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's folder or URL.")]
ModalityName = Annotated[str, typer.Argument(metavar="MODALITY", help="The modality's name.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one value, as views.size=448.")
]
CorpusUrls = Annotated[
    list[str],
    typer.Option("--corpus", metavar="URL", help="The corpus, in place of the recipe's; given again, more of it."),
]
OutputUrl = Annotated[str | None, typer.Option("--output", metavar="URL", help="The output, in place of the recipe's.")]
Modalities = Annotated[
    list[str], typer.Option("--modality", metavar="MODALITY", help="Only this one; may be given again.")
]
Replacing = Annotated[
    list[str], typer.Option("--replace", metavar="MODALITY", help="Make this modality, and what is made from it, anew.")
]
TakeChanges = Annotated[
    bool,
    typer.Option("--take-changes", help="Make anew what has changed in the corpus, and drop what is gone."),
]
Weights = Annotated[list[str], typer.Option("--weights", metavar="NAME=PATH", help="Weights of one labeler.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ReportFile = Annotated[
    str | None,
    typer.Option("--report", metavar="FILE", help="Keep an HTML page about it up to date, at a path or URL."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Stop after the unit that holds the Nth sample.")]
Dashboard = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        help="The cluster's dashboard, http://HEAD:8265.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="A cluster: HEAD:6379 on one of its machines, or from elsewhere http://HEAD:8265 or ray://HEAD:10001. By "
        "default that of RAY_ADDRESS, else this machine alone.",
    ),
]
Price = Annotated[
    float | None,
    typer.Option(min=0, max=1e6, metavar="DOLLARS", help="Of a GPU hour: the estimate in money, too."),
]
Storage = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Where photographs and dataset lie instead, e.g. in a bucket."),
]


def pairs(texts: list[str], option: str) -> dict[str, str]:
    """`key=value` texts as a dict."""
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise typer.BadParameter(f"{option} {text}: write KEY=VALUE")
        pairs[key] = value
    return pairs
