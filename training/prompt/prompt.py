"""What is asked of a model: what is given of a sample, and which modalities it is to say, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..forms.forms import Form, Forms
from ..forms.given import Given, read_given
from ..generation.chain import Target
from .settings import PromptError, Settings, settings_of


@dataclass(frozen=True)
class Prompt:
    """given: by the model's modality. targets: likewise, in the order in which they are said; each sees those before
    it. settings: of each target. unknown: what the model says as well, and nobody knows what its ids mean."""

    forms: Forms
    given: Mapping[str, Given]
    targets: Mapping[str, Form]
    settings: Mapping[str, Settings]
    unknown: Sequence[str] = ()

    @property
    def chain(self) -> list[Target]:
        return [self.settings[name].target(form) for name, form in self.targets.items()]

    @property
    def photo(self) -> np.ndarray | None:
        """The photograph that is given, uint8 (size, size, 3)."""
        return next((one.label for one in self.given.values() if one.form.is_photo and one.label is not None), None)


def prompt(forms: Forms, said: Sequence[str], to: str | None, overrides: Sequence[str] = ()) -> Prompt:
    """said: of `--from`; of a whole sample, what is to be said isn't given. to: of `--to`, modalities with commas
    between; None is all that the model says beside what is given: those with places first, then texts. overrides: of
    `--set`.

    Raises FormError and PromptError, which name what can't be.
    """
    given = read_given(forms, said)
    known, unknown = _rest(forms, given) if to is None else ([], [])
    named = known if to is None else [name.strip() for name in to.split(",") if name.strip()]
    targets: dict[str, Form] = {}
    for asked in named:
        form = forms.target(asked)
        if form.name in targets:
            raise PromptError(f"--to {to}: {form.name} is named twice")
        if form.name in given and not given[form.name].named:
            del given[form.name]
        if form.name in given:
            raise PromptError(f"--to {form.name}: it is given already, by --from {given[form.name].said}")
        targets[form.name] = form
    if not targets:
        told = ", ".join(one.name for one in forms.config.targets)
        raise PromptError(f"nothing is to be said: --to names no modality beside what is given; the model says {told}")
    for form in targets.values():  # before anything is generated: a tokenizer that is gone, too few places for a text
        form.sentence()
    from_photo = any(one.form.is_photo for one in given.values())
    return Prompt(forms, given, targets, settings_of(list(targets.values()), from_photo, overrides), unknown)


def _rest(forms: Forms, given: Mapping[str, Given]) -> tuple[list[str], list[str]]:
    """What the model says beside what is given: that of which a tokenizer is known, and the rest. Where a photograph is
    given, it is left out in its other forms."""
    photo = any(one.form.is_photo for one in given.values())
    left = [forms.form(one.name) for one in forms.config.targets if one.name not in given]
    left = sorted(
        (form for form in left if not (photo and form.is_photo)), key=lambda form: form.modality.form == "text"
    )
    names = [form.name for form in left]
    unknown = [form.name for form in left if form.card is None]
    return [name for name in names if name not in unknown] or names, unknown
