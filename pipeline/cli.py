"""The command line. Every command imports what it needs when it runs, so that --help answers at once."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from .ending import Commands, said_how_it_ends
from .options import (
    AsJson,
    Cluster,
    CorpusUrls,
    Dashboard,
    DatasetUrl,
    Limit,
    Modalities,
    OutputUrl,
    Overrides,
    Price,
    RecipeName,
    Replacing,
    ReportFile,
    Storage,
    TakeChanges,
    Weights,
    pairs,
)
from .tokenizer_cli import tokenizer_app

app = typer.Typer(
    name="tokenloom",
    cls=Commands,
    help="Turns a corpus of images into an aligned, tokenised, any-to-any training set.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(tokenizer_app, name="tokenizer")


@app.command()
def run(
    recipe: RecipeName,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    corpus: CorpusUrls = [],  # noqa: B006
    output: OutputUrl = None,
    replacing: Replacing = [],  # noqa: B006
    take_changes: TakeChanges = False,
    limit: Limit = None,
    report: ReportFile = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
) -> None:
    """Make the dataset that a recipe describes; run it again to resume."""
    from .commands import elsewhere
    from .commands import run as commands

    elsewhere.refuse(recipe)
    raise typer.Exit(commands.run(recipe, overrides, corpus, output, replacing, take_changes, limit, dry_run, report))


@app.command()
def submit(
    recipe: RecipeName,
    address: Dashboard,
    overrides: Overrides = [],  # noqa: B006
    corpus: CorpusUrls = [],  # noqa: B006
    output: OutputUrl = None,
    replacing: Replacing = [],  # noqa: B006
    take_changes: TakeChanges = False,
    limit: Limit = None,
    report: ReportFile = None,
) -> None:
    """Have a Ray cluster make the dataset that a recipe describes, and follow it; submit it again to resume."""
    from .commands import elsewhere
    from .commands.submit import submit

    elsewhere.refuse(recipe)
    raise typer.Exit(submit(recipe, address, overrides, corpus, output, replacing, take_changes, limit, report))


@app.command()
def doctor(
    recipe: RecipeName,
    address: Cluster = None,
    overrides: Overrides = [],  # noqa: B006
    corpus: CorpusUrls = [],  # noqa: B006
    output: OutputUrl = None,
    replacing: Replacing = [],  # noqa: B006
    take_changes: TakeChanges = False,
) -> None:
    """Check what a recipe needs, on every machine: storage and rights, credentials, versions, GPUs, clocks, room.

    Exit code 1 if anything failed.
    """
    from .commands import elsewhere
    from .commands.doctor import doctor

    elsewhere.refuse(recipe)
    raise typer.Exit(doctor(recipe, address, overrides, corpus, output, replacing, take_changes))


@app.command()
def plan(
    recipe: RecipeName,
    overrides: Overrides = [],  # noqa: B006
    corpus: CorpusUrls = [],  # noqa: B006
    output: OutputUrl = None,
    replacing: Replacing = [],  # noqa: B006
    take_changes: TakeChanges = False,
    calibrate: Annotated[int, typer.Option(min=0, help="Samples to try in this process for an estimate of time.")] = 32,
    price: Price = None,
) -> None:
    """Show stages, resources, what is left to do, and an estimate of the time it takes.

    Of a training recipe: what the datasets give, their shares, and epochs.
    """
    from .commands import elsewhere

    if planner := elsewhere.planner(recipe):
        if corpus or output or replacing or take_changes or price is not None:
            raise typer.BadParameter("a training recipe takes --set alone")
        planner(recipe, overrides)
        return
    if price is not None and not calibrate:
        raise typer.BadParameter("--price is of the estimate, which --calibrate 0 leaves out")
    from .commands import run as commands

    raise typer.Exit(commands.plan(recipe, overrides, corpus, output, replacing, take_changes, calibrate, price))


@app.command()
def status(
    dataset: DatasetUrl,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it until it is finished.")] = False,
    report: ReportFile = None,
    as_json: AsJson = False,
) -> None:
    """Show how far a dataset is: per modality units, samples, failures, rate and time left."""
    from .commands import dataset as inspect_commands

    inspect_commands.status(dataset, watch, as_json, report)


@app.command()
def verify(
    dataset: DatasetUrl,
    deep: Annotated[bool, typer.Option("--deep", help="Also decode and check every label.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check every bit of a dataset, and that nothing is missing, foreign or misaligned. Exit code 1 if anything is."""
    from .commands import dataset as inspect_commands

    if not inspect_commands.verify(dataset, deep, as_json):
        raise typer.Exit(1)


@app.command()
def quarantine(
    dataset: DatasetUrl,
    modalities: Modalities = [],  # noqa: B006
    again: Annotated[bool, typer.Option("--retry", help="Label just these samples again.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the samples that failed, and why."""
    if again:
        from .commands import run as commands

        commands.retry_quarantined(dataset, modalities)
        return
    from .commands import dataset as inspect_commands

    inspect_commands.quarantine(dataset, modalities, as_json)


@app.command()
def history(
    dataset: DatasetUrl,
    old: Annotated[int | None, typer.Argument(metavar="[OLD NEW]", help="Compare these two manifests.")] = None,
    new: Annotated[int | None, typer.Argument(hidden=True)] = None,
) -> None:
    """List a dataset's manifests and what each changed, or what changed between two."""
    from .commands import housekeeping

    if (old is None) != (new is None):
        raise typer.BadParameter("give two numbers of manifests, or none")
    housekeeping.history(dataset, old, new)


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="A dataset's folder or URL.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="The one to compare with it.")],
    modalities: Modalities = [],  # noqa: B006
    samples: Annotated[int, typer.Option(min=1, help="Samples to compare, evenly spread over the first.")] = 1000,
    as_json: AsJson = False,
) -> None:
    """Compare two datasets: what is made alike, which tokens are the same, how far labels lie apart."""
    from .commands.diff import diff

    diff(first, second, modalities, samples, as_json)


@app.command()
def gc(
    dataset: DatasetUrl,
    keep: Annotated[
        str | None, typer.Option(metavar="TIME", help="Keep what was superseded since: 90s, 30m, 12h, 7d; a day.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted.")] = False,
) -> None:
    """Delete what has been superseded and nobody reads any more."""
    from .commands import housekeeping

    housekeeping.gc(dataset, keep, dry_run)


@app.command()
def compact(
    dataset: DatasetUrl,
    samples: Annotated[int, typer.Option(min=1, metavar="N", help="Samples in a merged shard, at most.")] = 16_384,
    mebibytes: Annotated[int, typer.Option("--mib", min=1, metavar="N", help="MiB of it, at most.")] = 64,
) -> None:
    """Merge neighbouring units into large shards, which are read with fewer requests; run it again to resume."""
    from .commands import compact as commands

    commands.compact(dataset, samples, mebibytes)


@app.command()
def schema(
    training: Annotated[bool, typer.Option("--training", help="Of training recipes, whose key is `data`.")] = False,
) -> None:
    """Print the JSON Schema of recipes, for editors."""
    import json

    from .commands import elsewhere
    from .plan.recipe import Recipe

    model = elsewhere.schemas()["data"] if training else Recipe
    print(json.dumps(model.model_json_schema(), indent=2))


@app.command()
def labelers(as_json: AsJson = False) -> None:
    """List the labelers: what they make, what they need, and their licences."""
    from .commands import labelers as labeler_commands

    labeler_commands.list_labelers(as_json)


@app.command("new-labeler")
def new_labeler(
    name: Annotated[str, typer.Argument(help="The modality's name.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where to write the two files.")] = Path(),
) -> None:
    """Write the skeleton of a labeler, and its test."""
    from .commands import labelers as labeler_commands

    labeler_commands.new_labeler(name, folder)


@app.command("check-labeler")
def check_labeler(
    reference: Annotated[str, typer.Argument(metavar="LABELER", help="A registered name, or module:Class.")],
    params: Annotated[list[str], typer.Option("--param", metavar="KEY=VALUE", help="A parameter of the labeler.")] = [],  # noqa: B006
    weights: Weights = [],  # noqa: B006
) -> None:
    """Check that a labeler keeps the contract the pipeline relies on."""
    from .commands.check_labeler import check

    check(reference, pairs(params, "--param"), pairs(weights, "--weights"))


@app.command("convert-hmr2")
def convert_hmr2(
    source: Annotated[Path, typer.Argument(metavar="CKPT", help="4D-Humans' Lightning checkpoint.")],
    target: Annotated[Path, typer.Argument(metavar="SAFETENSORS", help="The file to write.")],
) -> None:
    """Take HMR2.0's network out of 4D-Humans' checkpoint, without running anything that the file holds."""
    from .commands import labelers as labeler_commands

    labeler_commands.convert_hmr2(source, target)


@app.command()
def label(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.", exists=True, dir_okay=False)],
    modalities: Annotated[str, typer.Option("-m", "--modalities", help="Which, with commas between.")],
    weights: Weights = [],  # noqa: B006
    accepted: Annotated[
        list[str], typer.Option("--accept-license", metavar="LICENCE", help="A non-commercial one that you accept.")
    ] = [],  # noqa: B006
    folder: Annotated[Path, typer.Option("--output", help="Where the pictures go.")] = Path("labels"),
) -> None:
    """Try labelers on a few images, in this process."""
    from .commands import labelers as labeler_commands

    names = [name.strip() for name in modalities.split(",") if name.strip()]
    labeler_commands.label(images, names, pairs(weights, "--weights"), accepted, folder)


@app.command()
def preview(
    dataset: DatasetUrl,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="The gallery's folder; DATASET-preview by default.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Views to show, evenly spread over the dataset.")] = 200,
    everything: Annotated[bool, typer.Option("--all", help="Show all of them.")] = False,
) -> None:
    """Write a gallery of the dataset: static pages that a browser opens from disk."""
    from .preview.preview import preview

    preview(dataset, output, None if everything else limit)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", help="Folder of all that the demo makes.")] = Path("demo-output"),
    storage: Storage = None,
) -> None:
    """Make a dataset of 22 photographs with every labeler whose weights are at hand, and a preview of it."""
    from .commands.demo import demo

    demo(output, storage)


# The commands of rooms above this one: functions that import what they need when they run, too.
for point in entry_points(group="tokenloom.commands"):
    app.command(point.name)(point.load())


_command = cache(lambda: typer.main.get_command(app))  # built once, for those who run many commands in one process


def main() -> None:
    """Runs the command line."""
    with said_how_it_ends():
        _command()()


if __name__ == "__main__":
    main()
