"""Masking schemes by name: those of 4M-21, for whichever modalities there are."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .masking import Keep, Scheme
from .ride_along import PIXELS

NAMES = ("4m21", "all2all", "rgb2all")

_EVENNESS = (0.01, 0.1, 1.0, 10.0)
"""Alphas of all2all: from one modality that gets nearly all tokens to equal shares."""

_RGB = "rgb"
"""Its tokens, around which a scheme is where there are no pixels."""

_CAPTIONS = ("caption", "t5_caption")
_PALETTE = "color_palette"


def named_schemes(name: str, modalities: Collection[str]) -> list[Scheme]:
    """The schemes of that name for a mixture with these modalities, in the paper's proportions (Bachmann et al. 2024,
    arXiv 2406.09406; alphas of ml-4m's configuration). Those around a modality that isn't there are left out."""
    said = [one for one in modalities if one != PIXELS]
    all2all = [Scheme(1.0, _all(modalities, alpha), _all(said, alpha), _keep(modalities)) for alpha in _EVENNESS]
    seen = next((one for one in (PIXELS, _RGB) if one in modalities), None)
    rgb2all = [Scheme(1.0, {**_all(modalities, 0.0), seen: 1000.0}, _all(said, 0.5), _keep(said))] if seen else []
    if name == "all2all":
        return all2all
    if name == "rgb2all":
        return rgb2all
    captions = [one for one in _CAPTIONS if one in modalities]
    return [*all2all, *rgb2all, *(_caption_biased(one, modalities, said) for one in captions)]


def _caption_biased(caption: str, modalities: Collection[str], said: Collection[str]) -> Scheme:
    """Much of one kind of captions, whole, and a little of anything else, but none of the other kind."""
    none = dict.fromkeys([other for other in _CAPTIONS if other != caption and other in modalities], 0.0)
    inputs = {**_all(modalities, 0.05), **none, caption: 5.0}
    return Scheme(0.5, inputs, {**_all(said, 0.5), caption: 0.0}, {**_keep(modalities), caption: "all"})


def _all(modalities: Collection[str], alpha: float) -> dict[str, float]:
    return dict.fromkeys(modalities, alpha)


def _keep(modalities: Collection[str]) -> dict[str, Keep]:
    return {_PALETTE: "binary"} if _PALETTE in modalities else {}


def left_out(name: str, modalities: Collection[str]) -> Sequence[str]:
    """The modalities around which schemes of that name are, and that aren't there."""
    around = {"4m21": (_RGB, *_CAPTIONS), "rgb2all": (_RGB,), "all2all": ()}[name]
    there = {*modalities, *([_RGB] if PIXELS in modalities else [])}
    return [one for one in around if one not in there]
