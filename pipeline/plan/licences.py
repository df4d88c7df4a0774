"""Licences that forbid commercial use: such weights aren't even fetched before the recipe accepts that."""

from __future__ import annotations

from ...labelers.contract.labeler import Weights
from ...labelers.contract.licences import is_noncommercial
from ..storage.errors import without_credentials
from .recipe import Recipe


def licence_refusal(recipe: Recipe, where: str, source: str, declared: Weights, instead: str) -> str | None:
    """Why the recipe can't use the weights `source`; None where it can. declared: what is known of such weights.

    where: the recipe's key. instead: what else the user may do.
    """
    licence = declared.licence_of(source)
    if not is_noncommercial(licence) or licence in recipe.accept_license:
        return None
    return (
        f"{where}: the weights {without_credentials(source)} are under the licence {licence}, which forbids commercial "
        f"use ({declared.source}); to accept it, write `accept_license: {licence}` into the recipe (--accept-license "
        f"where there is none), or {instead}"
    )
