"""Recipes: the YAML that a user writes, checked in full before anything runs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ...tokenizers.fitting.settings import FitSettings
from ..corpus.corpus import CorpusSettings
from ..dataset.layout import RESERVED

SHIPPED = Path(__file__).parent / "recipes"


class RecipeError(ValueError):
    """A recipe that can't be used; the message names the file, the line, the key and the way out."""


class Strict(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class UnitSettings(Strict):
    """How the corpus is cut into units of work: at most so many samples and bytes of encoded images each."""

    samples: int = Field(default=256, ge=1, le=99_999)
    bytes: int = Field(default=64 * 2**20, ge=1)


class ViewsSettings(Strict):
    """Square crops that spatial labels and tokens are made from; view 0 is the centre crop."""

    size: int = Field(default=224, ge=16, le=2048, description="side in pixels")
    count: int = Field(default=1, ge=1, le=256, description="views per sample")
    min_scale: float = Field(default=0.8, gt=0, le=1, description="smallest share of the image's area in a random view")


class TokenizerSettings(Strict):
    """Which tokenizer makes a modality's tokens: {} for the kind's own, `fit: {}` to have one trained here."""

    name: str | None = Field(
        default=None,
        description="a registered tokenizer, or module:Class; by default the kind's own",
    )
    params: dict[str, Any] = Field(default_factory=dict)
    fit: FitSettings | None = Field(
        default=None, description="train its network on a sample of the corpus, with these settings"
    )
    weights: str | None = Field(
        default=None,
        description="a trained tokenizer, 4M's or one of `tokenizer fit`: hub id, path or URL",
    )

    @field_validator("fit", mode="before")
    @classmethod
    def _as_it_is(cls, value: Any) -> Any:
        return {} if value is True else value

    @model_validator(mode="after")
    def _one_source(self) -> TokenizerSettings:
        if self.fit and self.weights:
            raise ValueError("`fit` trains a tokenizer and `weights` names one that is trained: give one of them")
        return self


class ModalitySettings(Strict):
    """One modality of the dataset. All of it has defaults: `canny_edge: {}` is enough."""

    labeler: str | None = Field(
        None, description="a registered labeler, or module:Class; the modality's name by default"
    )
    params: dict[str, Any] = Field(default_factory=dict, description="the labeler's parameters")
    weights: str | None = Field(
        default=None, description="hub id, local path or fsspec URL; `random` and `tiny` have to be written out"
    )
    tokenizer: TokenizerSettings | None = Field(
        default=None, description="name, or {name, params, fit, weights}; the kind's own by default"
    )
    keep: Literal["tokens", "labels", "both"] | None = Field(
        None, description="what is stored; by default tokens, or labels where nothing tokenises them"
    )
    batch_size: int | None = Field(default=None, ge=1, description="the labeler's own by default")

    @field_validator("tokenizer", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class StageSettings(Strict):
    """A pool of actors for some modalities, when the planner's own choice doesn't suit."""

    modalities: list[str] = Field(min_length=1)
    num_cpus: float = Field(default=1.0, ge=0)
    num_gpus: float = Field(default=0.0, ge=0)
    min_workers: int = Field(default=1, ge=1)
    max_workers: int | None = Field(default=None, ge=1)


class Resources(Strict):
    """What the run may use. Without instructions the planner looks at the cluster."""

    workers: int | None = Field(
        default=None, ge=1, description="most actors per stage; by default as many as there are CPUs"
    )
    stages: list[StageSettings] = Field(default_factory=list)


class SampleSettings(Strict):
    """The sample that tokenizers and the vocabulary are fitted to, spread evenly over the corpus."""

    units: int = Field(default=16, ge=1, description="units read for fitting")


class Recipe(Strict):
    """A corpus, an output, and the modalities to make."""

    corpus: CorpusSettings
    output: str = Field(description="folder or fsspec URL of the dataset")
    modalities: dict[str, ModalitySettings] = Field(min_length=1)
    seed: int = 0
    views: ViewsSettings = ViewsSettings()
    units: UnitSettings = UnitSettings()
    vocabulary: str | None = Field(
        None, description="a tokenizer.json to use; by default one is trained on the captions"
    )
    weights: Literal["tiny"] | None = Field(
        None, description="`tiny`: all labelers take small random weights, to try a recipe without its checkpoints"
    )
    accept_license: list[str] = Field(
        default_factory=list, description="non-commercial licences of weights that you accept, as `run` names them"
    )
    fit: SampleSettings = SampleSettings()
    resources: Resources = Resources()
    max_failures: float = Field(default=0.25, ge=0, le=1, description="share of failed labels at which the run stops")
    storage_options: dict[str, Any] = Field(
        default_factory=dict, description="fsspec options of the output", repr=False
    )

    @field_validator("corpus", mode="before")
    @classmethod
    def _url_alone(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str | list) else value

    @field_validator("accept_license", mode="before")
    @classmethod
    def _licence_alone(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("modalities", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        if isinstance(value, list):
            value = dict.fromkeys(value)
        if isinstance(value, Mapping):
            return {name: {} if settings is None else settings for name, settings in value.items()}
        return value

    @field_validator("modalities")
    @classmethod
    def _good_names(cls, value: dict[str, ModalitySettings]) -> dict[str, ModalitySettings]:
        for name in value:
            if name in RESERVED or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_@-]*", name):
                raise ValueError(
                    f"{name!r} can't be a modality's name; it takes letters, digits, _, - and @, and can't be one of "
                    f"{', '.join(RESERVED)}"
                )
        return value


def load_recipe(
    name: str | Path, overrides: Sequence[str] = (), corpus: str | None = None, output: str | None = None
) -> Recipe:
    """The recipe in the file `name`, or the shipped one of that name, with `a.b=value` overrides applied.

    corpus, output: replace the recipe's own corpus URL and output.

    Raises RecipeError with the line of every mistake.
    """
    path = _find(str(name))
    text = path.read_text()
    try:
        data, lines = yaml.safe_load(text), _lines(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {error}") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    if corpus is not None:
        before = data.get("corpus")
        data["corpus"] = {**(before if isinstance(before, dict) else {}), "url": corpus}
    if output is not None:
        data["output"] = output
    for override in overrides:
        _apply(data, override)
    return parse_recipe(data, str(path), lines)


def parse_recipe(data: Mapping[str, Any], source: str = "recipe", lines: Mapping[tuple, int] | None = None) -> Recipe:
    """The recipe in `data`; `lines` gives the line of each path of keys, for the messages."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        messages = [_explain(problem, source, lines or {}) for problem in error.errors()]
        raise RecipeError("\n".join(messages)) from None


def shipped_recipes() -> list[str]:
    """Names of the recipes in the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or "/" in name:
        if not path.is_file():
            raise RecipeError(f"{name}: no such file")
        return path
    shipped = SHIPPED / f"{name}.yaml"
    if not shipped.is_file():
        raise RecipeError(
            f"{name}: no recipe of that name is shipped ({', '.join(shipped_recipes())}); a recipe of your own is "
            f"named by its file, as ./{name}.yaml"
        )
    return shipped


def _apply(data: dict[str, Any], override: str) -> None:
    """Sets one `a.b=value` in place; the value is YAML."""
    keys, equals, value = override.partition("=")
    if not equals or not keys:
        raise RecipeError(f"--set {override}: write key.key=value, as in --set views.size=448")
    *parents, last = keys.split(".")
    node: Any = data
    for key in parents:
        child = node.get(key)
        if isinstance(child, str) and key == "corpus":
            child = {"url": child}
        if isinstance(child, list) and key == "modalities":
            child = dict.fromkeys(child)
        node[key] = node = child if isinstance(child, dict) else {}
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"--set {override}: {value!r} is not YAML; quote it") from None


def _lines(text: str) -> dict[tuple, int]:
    """The line (from 1) of every key and list item in a YAML text, by its path."""
    lines: dict[tuple, int] = {}

    def walk(node: yaml.Node | None, path: tuple) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                lines[(*path, key.value)] = key.start_mark.line + 1
                walk(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                lines[(*path, index)] = value.start_mark.line + 1
                walk(value, (*path, index))

    walk(yaml.compose(text, Loader=yaml.SafeLoader), ())
    return lines


def _explain(problem: Any, source: str, lines: Mapping[tuple, int]) -> str:
    path = tuple(part for part in problem["loc"] if part not in ("str", "list[str]"))
    known = next((path[:length] for length in range(len(path), 0, -1) if path[:length] in lines), ())
    place = f"{source}:{lines[known]}" if known else source
    name = ".".join(str(part) for part in path)
    if problem["type"] == "extra_forbidden":
        siblings = _keys_beside(path)
        close = difflib.get_close_matches(str(path[-1]), siblings, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the keys here are {', '.join(siblings)}"
        return f"{place}: unknown key {name!r}; {hint}"
    if problem["type"] == "missing":
        option = f"--{name} URL" if name in ("corpus", "output") else f"--set {name}=VALUE"
        return f"{place}: the key {name!r} is missing; write it, or give {option}"
    return f"{place}: {name}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _keys_beside(path: tuple) -> list[str]:
    """The keys that a recipe may have where the last part of `path` stands."""
    model: Any = Recipe
    for part in path[:-1]:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            nested = [m for m in (annotation, *getattr(annotation, "__args__", ())) if _is_model(m)]
            model = nested[0] if nested else None
    return list(model.model_fields) if _is_model(model) else []


def _is_model(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, BaseModel)


def validated(model: type[BaseModel], params: Mapping[str, Any], where: str) -> BaseModel:
    """The parameters as an instance of `model`. RecipeError naming the key."""
    try:
        return model.model_validate(dict(params))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        known = ", ".join(model.model_fields) or "none"
        raise RecipeError(f"{where}.{key}: {problem['msg'].lower()}; the parameters are: {known}") from None
