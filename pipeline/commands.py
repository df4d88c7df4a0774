"""What the commands `run` and `plan` do and print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from .engine import stop_ray
from .progress import RunProgress
from .recipe import load_recipe
from .run import Plan, Tally, execute, make_plan


def run(
    name: str,
    overrides: Sequence[str],
    corpus: str | None,
    output: str | None,
    replacing: Sequence[str],
    limit: int | None,
    dry_run: bool,
) -> None:
    recipe = load_recipe(name, overrides, corpus, output)
    console = Console()
    plan = make_plan(recipe, replacing)
    if dry_run:
        print_plan(console, plan)
        return
    try:
        with RunProgress(console, plan.bytes) as progress:
            tally = execute(plan, replacing, limit, progress.update, progress.say)
    finally:
        stop_ray()
    _print_summary(console, plan, tally)


def print_plan(console: Console, plan: Plan) -> None:
    """Modalities with what makes them and what is left, then the sum."""
    table = Table(box=None, pad_edge=False)
    for heading in ("modality", "kind", "labeler", "tokenizer", "weights", "units done"):
        table.add_column(heading, justify="right" if heading == "units done" else "left")
    for name, card in plan.weave.cards.items():
        weights = card.weights.source if card.weights else "-"
        tokenizer = card.tokens.tokenizer if card.tokens else "-"
        labeler = plan.weave.step_of(name).labeler
        table.add_row(name, card.kind["kind"], labeler, tokenizer, weights, str(len(plan.progress[name].units)))
    console.print(table)
    left = f"{len(plan.works)} stretches of {len(plan.shards)} shards left" if plan.works else "nothing left to do"
    console.print(f"\n{left}; {plan.bytes / 2**20:,.1f} MiB of the corpus to read", highlight=False)


def _print_summary(console: Console, plan: Plan, tally: Tally) -> None:
    if not tally.units:
        console.print(f"nothing to do: {plan.recipe.output} is complete", highlight=False)
        return
    failed = sum(tally.failed.values())
    quarantined = f"; {failed} labels quarantined" if failed else ""
    rejected = f"; {tally.rejected} samples refused by the reader" if tally.rejected else ""
    console.print(
        f"{tally.samples:,} samples in {tally.units} units, {len(tally.rows)} modalities{quarantined}{rejected} -> "
        f"{plan.recipe.output}",
        highlight=False,
    )
