"""What the commands `run` and `plan` do and print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ...tokenizers.fitting.perceptual import PERCEPTUAL
from ..checks.nulls import NullSearch, told_null
from ..checks.status import LedgerCounts
from ..cluster.session import stop_ray
from ..cluster.size import ClusterSize, cluster_size
from ..corpus.refusals import why_refused
from ..dataset.cards import TokensCard
from ..dataset.finished import empty_shards as shards_without_samples
from ..dataset.finished import units_of
from ..dataset.manifest import replace_options
from ..engine.estimate import Estimate, calibrate, corpus_fields
from ..plan.origins import told_origins
from ..plan.plan import Plan, make_plan
from ..plan.recipe import Recipe, load_recipe
from ..plan.requests import READ, WRITE, least_units, requests_left
from ..plan.stages import UNBOUNDED, Stage, stages, workers_at_once
from ..retry import retry
from ..run import execute
from ..storage.store import Store
from .attached import attached, ray_client
from .console import counted, plain_console
from .dataset import broken_parts
from .growth import print_growth
from .package import run_options
from .printable import printable
from .progress import RunProgress, duration
from .report import RunReport, stop_told
from .spent import LEAST, print_spent
from .summary import read_again, refused, summary, without_samples


def run(
    name: str,
    overrides: Sequence[str],
    corpus: Sequence[str],
    output: str | None,
    replacing: Sequence[str],
    take_changes: bool,
    limit: int | None,
    dry_run: bool,
    report: str | None = None,
) -> int:
    """The exit code."""
    if address := ray_client():
        more = run_options(replacing, take_changes, limit, report, dry_run)
        return attached(address, "run", name, overrides, corpus, output, more)
    recipe = load_recipe(name, overrides, corpus, output)
    console = plain_console()
    _print_origins(console, recipe)
    wanted = None if dry_run else report
    page = RunReport(wanted, recipe.output, recipe.storage_options) if wanted is not None else None
    with stop_told(page):
        plan = make_plan(recipe, replacing, take_changes)
    if dry_run:
        print_plan(console, plan, replacing)
        return 0
    _print_licences(console, plan)
    print_growth(console, plan)
    _print_changes(console, plan, replacing)
    _print_left_out(console, plan)
    progress = RunProgress(console, plan.bytes, page)
    try:
        with progress:
            tally = execute(plan, limit, progress)
    except BaseException as error:
        progress.ended([f"stopped: {error}" if isinstance(error, Exception) else "stopped"])
        raise
    stop_ray()
    phases = progress.phases()
    if tally.units and (page or sum(seconds for _, seconds in phases) >= LEAST):
        print_spent(console, phases, tally.times)
    lines = list(summary(plan, tally))
    console.print(*lines, sep="\n", soft_wrap=True)
    progress.ended(lines[::-1])
    return 0


def plan(
    name: str,
    overrides: Sequence[str],
    corpus: Sequence[str],
    output: str | None,
    replacing: Sequence[str],
    take_changes: bool,
    samples: int,
    price: float | None = None,
) -> int:
    """price: dollars for a GPU hour. The exit code."""
    if address := ray_client():
        more = [*run_options(replacing, take_changes), "--calibrate", str(samples)]
        more += ["--price", str(price)] if price is not None else []
        return attached(address, "plan", name, overrides, corpus, output, more)
    recipe = load_recipe(name, overrides, corpus, output)
    console = plain_console()
    _print_origins(console, recipe)
    plan = make_plan(recipe, replacing, take_changes)
    print_plan(console, plan, replacing)
    size = cluster_size()
    if not size.grows:
        size = replace(size, scales=True)  # another cluster may be meant to run it
    groups = stages(plan.graph, recipe, size)
    _print_stages(console, groups)
    estimate = calibrate(plan, samples) if samples else None
    if estimate:
        _print_estimate(console, plan, groups, size, estimate, price)
    _print_requests(console, plan, len(groups), estimate)
    return 0


def _print_origins(console: Console, recipe: Recipe) -> None:
    """Whose code the recipe runs, before it does."""
    for line in told_origins(recipe, Path.cwd()):
        console.print(printable(line), soft_wrap=True)


def _print_requests(console: Console, plan: Plan, stages: int, estimate: Estimate | None) -> None:
    if "://" not in plan.recipe.output or not plan.works:
        return
    tried = estimate if estimate and estimate.samples else None
    units = tried.units(plan, tried.left(plan)) if tried else least_units(plan)
    asked = requests_left(plan, units, stages)
    console.print(
        f"\nrequests to object storage: {'about' if tried else 'at least'} {asked.writes:,} PUT and LIST, "
        f"{asked.reads:,} GET and HEAD, ${asked.dollars:,.2f} by the list prices of S3 standard (${WRITE} and "
        f"${READ} a thousand)",
        soft_wrap=True,
    )


def retry_quarantined(url: str, modalities: Sequence[str]) -> None:
    console = plain_console()
    with RunProgress(console, 0) as progress:
        progress.say("labelling quarantined samples again")
        tally = retry(url, modalities, listener=progress)
    stop_ray()
    failed = sum(tally.failed.values())
    tried = sum(tally.rows.values())
    text = (
        f"{tried - failed:,} of {counted(tried, 'label')} made, {failed:,} failed again"
        if tally.units
        else "nothing to try again"
    )
    console.print(text)
    for line in read_again(tally):
        console.print(line, soft_wrap=True)
    if tally.rejected:
        what = f"what the corpus reader refused isn't tried again ({refused(tally)})"
        console.print(f"{what}: mend it in the corpus, and run the recipe with --take-changes", soft_wrap=True)


def print_plan(console: Console, plan: Plan, replacing: Sequence[str]) -> None:
    """Modalities with what makes them and what is done, then what is left."""
    headings = ("modality", "labeler", "tokenizer", "units done", "weights")
    rows = [
        (
            name,
            plan.graph.step_of(name).labeler,
            _describe(card.tokens) if card.tokens else "-",
            f"{len(plan.finished[name].units):,}",
            card.weights.source if card.weights else "-",
        )
        for name, card in plan.graph.cards.items()
    ]
    taken = sum(max(map(len, column)) + 2 for column in list(zip(headings, *rows, strict=True))[:-1])
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=True, justify="right" if heading == "units done" else "left")
    for *row, weights in rows:
        table.add_row(*row, _from_left(weights, max(12, console.width - taken)))
    console.print(table)
    again = sorted(plan.labelled - set(plan.todo))
    if again:
        console.print(f"\nmade again in passing, since their labels aren't kept: {', '.join(again)}")
    print_growth(console, plan)
    _print_changes(console, plan, replacing)
    _print_left_out(console, plan)
    store = Store(plan.recipe.output, plan.recipe.storage_options)
    ledgers = LedgerCounts(store).read(plan.graph.cards, plan.finished, plan.recipe.views.count)
    for line in broken_parts(ledgers.broken):
        console.print(line, soft_wrap=True)
    units = units_of(plan.finished.values())
    for line in without_samples(plan, shards_without_samples(units)):
        console.print(line, soft_wrap=True)
    for name in NullSearch(store).find(plan.graph.cards, plan.finished, plan.recipe.views.count):
        text = f"{told_null(name)}; {_fields(corpus_fields(plan))}"
        console.print(f"\n{text}", soft_wrap=True)
    if not plan.works:
        console.print("\nnothing left to do")
        return
    shards = len(plan.works.shards)
    console.print(
        f"\nleft: {', '.join(plan.todo)} in {shards:,} of {counted(plan.request.corpus.shards, 'shard')}; at most "
        f"{plan.bytes / 2**20:,.1f} MiB to read",
    )
    if plan.again:
        size = sum(work.shard.size for work in plan.again) / 2**20
        console.print(
            f"{counted(len(plan.again), 'stretch', 'stretches')} of this in the middle of a compressed file, which has "
            f"to be read again from its beginning: at most {size:,.1f} MiB in all",
            soft_wrap=True,
        )
    if plan.to_fit:
        console.print(f"to fit before: the tokenizers of {', '.join(plan.to_fit)}")
    for pins, names in plan.environments.items():
        text = f"to install on every node, for the workers of {', '.join(names)}: {', '.join(pins)}"
        console.print(text, soft_wrap=True)


def _fields(names: Sequence[str]) -> str:
    return f"the fields of the corpus are: {printable(', '.join(names)) or 'none'}"


def _from_left(text: str, width: int) -> str:
    """The text in at most `width` characters: the end of a path tells more than its beginning."""
    return text if len(text) <= width else f"…{text[1 - width :]}"


def _print_changes(console: Console, plan: Plan, replacing: Sequence[str]) -> None:
    """What is made anew, and what doesn't fit any more once it is. replacing: what the user named."""
    if plan.replacing:
        names = ", ".join(plan.replacing)
        text = "made anew beside the old ones, which readers get until all of it is there"
        text = text if plan.works else "made anew, and all there: a run of this recipe has readers get it"
        console.print(f"\n{text}: {names}", soft_wrap=True)
    unkept = {name: kinds for name, kinds in plan.unkept.items() if kinds}
    for name, kinds in unkept.items():
        console.print(
            f"\n{name}: its {', '.join(sorted(kinds))} are kept no more; `tokenloom gc` deletes them", soft_wrap=True
        )
    for name, kinds in plan.kept_besides.items():
        text = f"{name}: its {', '.join(sorted(kinds))} stay kept, as the dataset has it; --replace {name} lets them go"
        console.print(f"\n{text}", soft_wrap=True)
    if plan.abandoned:
        names, options = ", ".join(plan.abandoned), replace_options(plan.abandoned)
        text = f"another recipe has begun to make anew what this one asks for as it is: {names}; run that recipe, "
        text += f"without --replace, to finish it, or this one with {options} to drop it"
        console.print(f"\n{text}", soft_wrap=True)
    if plan.taken_back:
        text = f"made anew no more, so that readers go on getting what they get: {', '.join(plan.taken_back)}"
        console.print(f"\n{text}", soft_wrap=True)
    for name in sorted({*replacing} - {*plan.replacing, *plan.taken_back, *unkept}):
        console.print(f"\n{name}: is as the recipe says; --replace has nothing to replace")
    for name, reasons in plan.stale.items():
        text = f"{name}, which this recipe doesn't make, is stale then: {'; '.join(reasons)}"
        console.print(f"\n{text}", soft_wrap=True)


def _print_left_out(console: Console, plan: Plan) -> None:
    for line in plan.request.corpus.left_out:
        console.print(printable(line), soft_wrap=True)


def _describe(tokens: TokensCard) -> str:
    if tokens.weights:
        return f"{tokens.tokenizer} of {tokens.weights.source}"
    return f"{tokens.tokenizer}, trained for {tokens.fit['steps']:,} steps" if tokens.fit else tokens.tokenizer


def _print_licences(console: Console, plan: Plan) -> None:
    """Under what licences the weights are that the run is about to use."""
    used: dict[tuple[str, str], list[str]] = {}
    for name in plan.labelled:
        card = plan.graph.cards[name]
        for weights in (card.weights, card.tokens.weights if card.tokens else None):
            if weights:
                used.setdefault((weights.source, weights.licence), []).append(name)
        perceptual = (card.tokens.fit or {}).get("perceptual") if card.tokens and not card.tokens.spec else None
        if perceptual:
            source = perceptual["weights"]
            used.setdefault((source, PERCEPTUAL.licence_of(source)), []).append(name)
    if used:
        table = _table("weights in use", "licence", "modalities")
        for (source, licence), names in sorted(used.items()):
            table.add_row(source, licence, ", ".join(sorted(names)))
        console.print(table)


def _print_stages(console: Console, groups: Sequence[Stage]) -> None:
    table = _table("stage", "labelers", "CPUs", "GPUs", "memory", "workers")
    for index, stage in enumerate(groups, 1):
        names = ", ".join(step.name for step in stage.steps)
        most = "all that have room" if stage.max_workers == UNBOUNDED else f"{stage.max_workers}"
        workers = f"{stage.min_workers} to {most}"
        memory = f"{stage.memory / 2**30:,.1f} GiB"
        table.add_row(str(index), names, f"{stage.num_cpus:g}", f"{stage.num_gpus:.3g}", memory, workers)
    console.print()
    console.print(table)


def _print_estimate(
    console: Console,
    plan: Plan,
    groups: Sequence[Stage],
    size: ClusterSize,
    estimate: Estimate,
    price: float | None,
) -> None:
    if estimate.seconds:
        _print_times(console, plan, groups, size, estimate, price)
    elif estimate.samples and not estimate.untried:
        console.print(
            "\nno labels are left to make, but tokens of those that are kept: how long these take isn't tried"
        )
    if estimate.untried:
        names, whose = ", ".join(estimate.untried), "which is" if len(estimate.untried) == 1 else "which are"
        console.print(
            f"\nnot tried, and not counted: {names}, {whose} made in an environment of its own, or from what is",
            soft_wrap=True,
        )
    if lines := list(_found_in_trial(estimate)):
        console.print(f"\nof the {counted(estimate.tried, 'sample')} tried:")
        for line in lines:
            console.print(f"  {printable(line)}", soft_wrap=True)


def _print_times(
    console: Console,
    plan: Plan,
    groups: Sequence[Stage],
    size: ClusterSize,
    estimate: Estimate,
    price: float | None,
) -> None:
    """The stages work at the same time: it takes as long as the one that takes longest."""
    left = estimate.left(plan)
    seconds = [estimate.worker_seconds((step.name for step in stage.steps), sum(left)) for stage in groups]
    units = estimate.units(plan, left)
    counts = [min(count, units) for count in workers_at_once(groups, seconds, size)]
    longest = max(own / count for own, count in zip(seconds, counts, strict=True))
    slowest = sorted(estimate.seconds.items(), key=lambda item: -item[1])[:3]
    shares = ", ".join(f"{name} {1000 * seconds / estimate.samples:,.1f}" for name, seconds in slowest)
    shards = len(plan.works.shards)
    console.print(
        f"\ntried on {counted(estimate.samples, 'sample')} here, from {estimate.shards} of {counted(shards, 'shard')}: "
        f"{1000 * estimate.per_sample:,.1f} ms each ({shares} of that)\n"
        f"for what is left about {duration(sum(seconds))} of one worker, {duration(longest)} with {_at_once(counts)}, "
        f"without starting, fitting and tokenising",
        soft_wrap=True,
    )
    gpu = sum(own * stage.num_gpus for own, stage in zip(seconds, groups, strict=True)) / 3600
    if gpu:
        console.print(f"of that {gpu:,.1f} GPU hours, were GPUs as quick as this machine")
    if price is not None:
        at_work = sum(count * stage.num_gpus for count, stage in zip(counts, groups, strict=True))
        console.print(_money(price, max(size.gpus, at_work), longest, gpu), soft_wrap=True)


def _money(price: float, gpus: float, seconds: float, hours: float) -> str:
    """price: dollars for a GPU hour. gpus: there, or to come, for so many seconds; hours: of those at work."""
    if not hours:
        return "no stage has a GPU here, so that there are no GPU hours to price: plan on the cluster (RAY_ADDRESS)"
    held = gpus * seconds / 3600
    return (
        f"at ${price:,.2f} a GPU hour ${hours * price:,.2f}, and ${held * price:,.2f} where all {gpus:g} GPUs are paid "
        f"for until it is done ({held:,.1f} GPU hours)"
    )


def _at_once(counts: Sequence[int]) -> str:
    """Workers by the stage, for which there is room at the same time, and something to do."""
    if len(counts) == 1:
        return counted(counts[0], "worker")
    told = ", ".join(f"{count:,} in stage {index}" for index, count in enumerate(counts, 1))
    return f"workers for which there is room at once ({told})"


def _found_in_trial(estimate: Estimate) -> Iterator[str]:
    """What of the samples can't be used, or isn't."""
    yield from why_refused(estimate.refused, estimate.tried)
    for one in estimate.failing:
        names, first = ", ".join(one.modalities), one.first
        of = estimate.labels[first.modality]
        yield f"{one.count:,} of {of:,} labels of {names} fail ({first.key}: {first.reason})"
    for name, count in estimate.null.items():
        which = f"all {count:,}" if count == estimate.labels[name] else f"the other {count:,}"
        fields = ", ".join(estimate.fields) or "none"
        yield f"{which} labels of {name} are null; the fields of these samples are: {fields}"
    yield from estimate.left_out


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        justify = "right" if heading in ("CPUs", "GPUs", "memory", "units done") else "left"
        table.add_column(heading, justify=justify, overflow="fold")
    return table
