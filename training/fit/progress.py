"""Progress of a training, for a person."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from ...pipeline.commands.progress import Shown, duration
from .figures import Figures


class TrainingProgress(Shown):
    """A step's losses and speed, and the time that is left; each step that was left out, with what is suspected."""

    def __init__(self, console: Console, steps: int) -> None:
        super().__init__(console)
        self._steps = steps
        self._left_out = 0

    def hear(self, news: str | Figures) -> None:
        if isinstance(news, str):
            return self._console.print(news, style="dim", soft_wrap=True)
        if news.left_out:
            self._left_out += 1
            told = "; ".join(news.suspects)
            self._console.print(f"step {news.step:,} is left out: {news.left_out}; {told}", soft_wrap=True)
        said = self._said(news)
        return self.show(
            lambda: _table(said, news),
            lambda: ", ".join(f"{name} {value}" for name, value in said.items()),
            last=news.step == self._steps,
        )

    def _said(self, figures: Figures) -> Mapping[str, str]:
        left = (self._steps - figures.step) * figures.tokens / max(1, figures.step) / figures.tokens_per_second
        said = {
            "step": f"{figures.step:,} of {self._steps:,}",
            "loss": f"{figures.loss:.4g}",
            "rate": f"{figures.learning_rate:.2g}",
            "gradient": f"{figures.gradient_norm:.3g}",
            "tokens/s": f"{figures.tokens_per_second:,.0f}",
            "left": duration(left),
        }
        if figures.mfu is not None:
            said["MFU"] = f"{figures.mfu:.1%}"
        return said | ({"left out": f"{self._left_out:,}"} if self._left_out else {})


def _table(said: Mapping[str, str], figures: Figures) -> Table:
    table = Table(box=None, pad_edge=False)
    losses = {name: "-" if loss is None else f"{loss:.3g}" for name, loss in figures.losses.items()}
    for name in (*said, *losses):
        table.add_column(name, justify="right")
    table.add_row(*said.values(), *losses.values())
    return table
