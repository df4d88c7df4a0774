"""How each target is generated: what ml-4m's own demonstration takes, and what a user sets instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator

from ...labelers.contract.kinds import FeatureMap, Instances, Kind, Text, Vector
from ...pipeline.plan.mistakes import MistakesError, checked
from ...pipeline.plan.recipe_file import Strict
from ...pipeline.plan.yaml_text import YamlTextError, read_yaml
from ..forms.forms import Form, datasets_name
from ..generation.chain import Target
from ..generation.images import ImageScheme
from ..generation.schedules import TokenSchedule, temperatures

_HOW = "write TARGET.SETTING=VALUE, as in --set depth.steps=4, or SETTING=VALUE for every target"


class PromptError(ValueError):
    """What can't be generated as it is asked for; the message tells the way out."""


class _Drawn(Strict):
    """How freely tokens are drawn, and how much they are to follow what is given (guidance; 1 is as it is)."""

    temperature: float = Field(ge=0, le=1000)
    guidance: float = Field(default=1.0, ge=-100, le=100)
    top_k: Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)] = 0
    top_p: float = Field(default=0.8, ge=0, le=1)


class TextSettings(_Drawn):
    """Of what is said token by token."""

    def target(self, form: Form) -> Target:
        return Target(
            form.name,
            most=form.modality.length,
            sentence=form.sentence,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            weight=self.guidance,
        )


class ImageSettings(_Drawn):
    """Of what has places, several of which are decided in each step."""

    scheme: ImageScheme = "roar"
    steps: int = Field(ge=1, le=10_000)
    token_schedule: TokenSchedule = "linear"
    temperature_schedule: str = "constant"

    @field_validator("temperature_schedule")
    @classmethod
    def _known(cls, value: str) -> str:
        temperatures((1, 1), 1.0, value)
        return value

    def target(self, form: Form) -> Target:
        return Target(
            form.name,
            self.scheme,
            self.steps,
            self.token_schedule,
            temperature=self.temperature,
            temperature_schedule=self.temperature_schedule,
            top_k=self.top_k,
            top_p=self.top_p,
            weight=self.guidance,
        )


Settings = ImageSettings | TextSettings

_FALLS = "onex:0.5:0.5"


def default(form: Form, from_photo: bool) -> Settings:
    """As ml-4m's demonstration has it (fourm/demo_4M_sampler.py). from_photo: whether a photograph is given, which
    leaves little to chance. Of modalities that 4M hasn't, as those of their kind."""
    if form.modality.form == "text":
        return TextSettings(temperature=_text_temperature(form.kind))
    if from_photo:
        return ImageSettings(steps=1, temperature=0.01, guidance=2.0)
    if isinstance(form.kind, FeatureMap) and form.card is not None and form.card.labeler == "clip":
        return ImageSettings(steps=50, temperature=5.0, temperature_schedule=_FALLS, guidance=3.0)
    if isinstance(form.kind, FeatureMap | Vector):
        return ImageSettings(steps=8, temperature=0.01, guidance=2.0)
    steps = 25 if form.is_photo else 8
    return ImageSettings(steps=steps, temperature=3.0, temperature_schedule=_FALLS, guidance=2.0)


def _text_temperature(kind: Kind) -> float:
    """Captions and boxes 0.3, masks 0.01, poses, palettes and metadata 0.1."""
    if isinstance(kind, Instances):
        return 0.01 if kind.masks else 0.1 if kind.pose else 0.3
    return 0.3 if isinstance(kind, Text) else 0.1


def settings_of(forms: Sequence[Form], from_photo: bool, overrides: Sequence[str]) -> dict[str, Settings]:
    """Of each target, by the model's name. overrides: of `--set`, the later ones over those before.

    Raises PromptError naming the override, for a target that isn't generated, a setting that it doesn't have, and a
    value that can't be.
    """
    found = {form.name: default(form, from_photo) for form in forms}
    for override in overrides:
        key, equals, text = override.partition("=")
        target, _, setting = key.rpartition(".")
        if not equals or not setting:
            raise PromptError(f"--set {override}: {_HOW}")
        try:
            value, _ = read_yaml(text.encode())
        except YamlTextError as error:
            raise PromptError(f"--set {override}: {text!r} is {error}; quote it") from None
        for name in _named(forms, target, setting, override):
            found[name] = _with(found[name], {setting: value}, override)
    return found


def _named(forms: Sequence[Form], target: str, setting: str, override: str) -> list[str]:
    """The targets that an override is of."""
    if target:
        names = [form.name for form in forms if target in (form.name, datasets_name(form.modality))]
        if not names:
            told = ", ".join(form.name for form in forms)
            raise PromptError(f"--set {override}: {target} isn't generated; what is generated is {told}")
        return names
    names = [form.name for form in forms if setting in _fields(form)]
    if not names:
        known = dict.fromkeys(field for form in forms for field in _fields(form))
        raise PromptError(f"--set {override}: no target has a setting {setting!r}; they have {', '.join(known)}")
    return names


def _fields(form: Form) -> Sequence[str]:
    return list((TextSettings if form.modality.form == "text" else ImageSettings).model_fields)


def _with(settings: Settings, changed: Mapping[str, Any], override: str) -> Settings:
    try:
        return checked(type(settings), {**settings.model_dump(), **changed})
    except MistakesError as error:
        raise PromptError(f"--set {override}: {'; '.join(map(str, error.found))}") from None
