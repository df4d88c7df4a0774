"""What a recipe's training needs, on paper: printed before anything is trained."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ..data.opening import OpenData, open_data
from ..data.recipe import TrainingRecipe
from ..model.from_data import modalities_of
from ..model.sizes import Step, of_all_sizes, on_paper, table
from .network import model_config
from .schedule import schedule_of


def print_paper(console: Console, recipe: TrainingRecipe) -> None:
    """Every size with the recipe's modalities and budgets, and how long the training is."""
    assert recipe.model is not None
    data, schedule = open_data(recipe), schedule_of(recipe)
    step = step_of(data, recipe)
    own = recipe.model
    of_all = of_all_sizes(
        modalities_of(data.mixture),
        step,
        qk_norm=own.qk_norm,
        num_register_tokens=own.registers,
        share_embedding=own.tied,
    )
    name = own.size
    if own.dim or own.depth or own.heads:
        name = "as in the recipe"
        of_all[name] = on_paper(model_config(data, recipe), step)
    shown = Table(box=None, pad_edge=False)
    headings, rows = table(of_all)
    for line, cells in enumerate(zip(headings, *rows, strict=True)):  # a column for each size fits a terminal
        if line == 0:
            for cell in cells:
                shown.add_column(cell, justify="left" if cell == headings[0] else "right")
        else:
            shown.add_row(*cells)
    console.print(shown)
    seconds = schedule.tokens / of_all[name].tokens_per_second()
    again = ", whose activations are computed again" if step.checkpointing else ""
    console.print(
        f"\n{name}: {schedule.steps:,} steps of {schedule.step_tokens:,.0f} tokens, "
        f"{schedule.tokens:,.0f} in all; {seconds / 3600:,.1f} hours of an H100 at half of its peak. Memory is that of "
        f"{step.batch_size:,} samples at a time{again}",
        soft_wrap=True,
    )


def step_of(data: OpenData, recipe: TrainingRecipe) -> Step:
    """What one process works on at a time."""
    assert recipe.train is not None
    size = data.settings.batch_size // (recipe.train.workers * recipe.train.accumulation)
    return Step(max(1, size), data.settings.input_tokens[1], data.settings.target_tokens[1], recipe.train.checkpointing)
