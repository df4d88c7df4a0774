"""The listener: told what a fit does, while it does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...tokenizers.fitting.figures import Figures
    from ...tokenizers.fitting.settings import FitSettings


class FitListener:
    """Lets everything pass; whoever shows a fit overrides what it shows."""

    def say(self, what: str) -> None:
        """What begins, in a few words."""

    def fitting(self, modality: str, done: int, of: int) -> None:
        """So many rounds of a modality's k-means are done, of so many at most."""

    def trained(self, figures: Figures, settings: FitSettings) -> None:
        """A network has been trained for some more steps."""
