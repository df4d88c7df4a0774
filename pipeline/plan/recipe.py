"""Recipes: the YAML that a user writes, checked in full before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from ...labelers.contract.names import name_problem
from ...labelers.networks.hub import CheckpointError
from ...tokenizers.fitting.settings import FitSettings
from ..corpus.corpus import CorpusSettings
from ..storage.store import absolute_url, url_problem
from .environment import EnvironmentChoice, EnvironmentSettings
from .mistakes import MistakesError, Places, checked
from .recipe_file import NOWHERE, RecipeError, Strict, Written, checked_recipe, override_key, read_recipe

SHIPPED = Path(__file__).parent / "recipes"


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
        return _written_out("fit", value)

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
        default=None, description="hub id, local path or fsspec URL; `tiny`, to try it, has to be written out"
    )
    tokenizer: TokenizerSettings | None = Field(
        default=None, description="name, or {name, params, fit, weights}; the kind's own by default"
    )
    keep: Literal["tokens", "labels", "both"] | None = Field(
        None, description="what is stored; by default tokens, or labels where nothing tokenises them"
    )
    batch_size: int | None = Field(default=None, ge=1, description="the labeler's own by default")
    environment: EnvironmentChoice | None = Field(
        default=None,
        description="what the labeler's workers have installed: the name of one of `environments`, or {pip: [...]}",
    )

    @field_validator("environment", mode="before")
    @classmethod
    def _named_alone(cls, value: Any) -> Any:
        return _written_out("environment", value)

    @field_validator("tokenizer", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return _written_out("tokenizer", value)


class StageSettings(Strict):
    """A pool of actors for some modalities, when the planner's own choice doesn't suit."""

    modalities: list[str] = Field(min_length=1)
    num_cpus: float = Field(default=1.0, ge=0)
    num_gpus: float = Field(default=0.0, ge=0)
    min_workers: int = Field(default=1, ge=1)
    max_workers: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> StageSettings:
        if self.max_workers is not None and self.max_workers < self.min_workers:
            raise ValueError(f"min_workers = {self.min_workers} is more than max_workers = {self.max_workers}")
        return self


class Resources(Strict):
    """What the run may use. Without instructions the planner looks at the cluster."""

    workers: int | None = Field(
        default=None, ge=1, description="most actors per stage; by default as many as there are CPUs"
    )
    stages: list[StageSettings] = Field(default_factory=list)


class SampleSettings(Strict):
    """The sample that tokenizers and the vocabulary are fitted to, spread evenly over the corpus."""

    units: int = Field(default=16, ge=1, description="units read for fitting")


class Recipe(Written):
    """A corpus, an output, and the modalities to make."""

    corpus: CorpusSettings
    output: str = Field(description="folder or fsspec URL of the dataset")
    modalities: dict[str, ModalitySettings] = Field(min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    views: ViewsSettings = ViewsSettings()
    units: UnitSettings = UnitSettings()
    vocabulary: str | None = Field(
        None,
        description="a tokenizer.json to use, or another dataset whose text vocabulary it is; by default one is "
        "trained on the texts or captions",
    )
    weights: Literal["tiny"] | None = Field(
        None, description="`tiny`: all labelers take small random weights, to try a recipe without its checkpoints"
    )
    accept_license: list[str] = Field(
        default_factory=list, description="non-commercial licences of weights that you accept, as `run` names them"
    )
    environments: dict[str, EnvironmentSettings] = Field(
        default_factory=dict, description="environments that labelers of several modalities share, by name"
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
        return _written_out("corpus", value)

    @field_validator("output")
    @classmethod
    def _possible(cls, value: str) -> str:
        if problem := url_problem(value):
            raise ValueError(problem)
        return absolute_url(value)

    @field_validator("accept_license", mode="before")
    @classmethod
    def _licence_alone(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("modalities", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        value = _written_out("modalities", value)
        if isinstance(value, Mapping):
            return {name: {} if settings is None else settings for name, settings in value.items()}
        return value

    @field_validator("modalities")
    @classmethod
    def _good_names(cls, value: dict[str, ModalitySettings]) -> dict[str, ModalitySettings]:
        for name in value:
            if problem := name_problem(name):
                raise ValueError(problem)
        return value

    def pins_of(self, modality: str) -> tuple[str, ...]:
        """What the environment of a modality's labeler has installed, as NAME==VERSION; () where it is the cluster's.
        RecipeError where the recipe has none of that name."""
        chosen = self.modalities[modality].environment
        if chosen is None:
            return ()
        if chosen.name is not None and chosen.name not in self.environments:
            there = f"these have {', '.join(self.environments)}" if self.environments else "there are none"
            raise RecipeError(
                f"modalities.{modality}.environment: {chosen.name!r} isn't among the recipe's `environments`; {there}"
            )
        return tuple(chosen.pip or self.environments[chosen.name or ""].pip)


def load_recipe(
    name: str | Path, overrides: Sequence[str] = (), corpus: str | Sequence[str] = (), output: str | None = None
) -> Recipe:
    """The recipe in the file `name`, or the shipped one of that name, with `a.b=value` overrides applied.

    corpus, output: replace the recipe's own corpus URL, or URLs, and output.

    Raises RecipeError with the line of every mistake.
    """
    path = recipe_file(str(name))
    data, places = read_recipe(path, Recipe)
    if corpus:
        before = data.get("corpus")
        url = corpus if isinstance(corpus, str) or len(corpus) > 1 else corpus[0]
        data["corpus"] = {**(before if isinstance(before, dict) else {}), "url": url}
        places |= dict.fromkeys(["corpus.url"] if isinstance(before, dict) else ["corpus", "corpus.url"], "--corpus")
    if output is not None:
        data["output"], places["output"] = output, "--output"
    for override in overrides:
        places[override_key(data, override, _written_out)] = f"--set {override}"
    return parse_recipe(data, Places(str(path), places))


def parse_recipe(data: Mapping[str, Any], places: Places = NOWHERE) -> Recipe:
    """The recipe in `data`. places: where its keys stand, for the messages. RecipeError."""
    return checked_recipe(Recipe, data, places)


def shipped_recipes() -> list[str]:
    """Names of the recipes in the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def recipe_file(name: str) -> Path:
    """The file of the recipe: `name` itself, or the shipped one of that name. RecipeError where there is neither."""
    if name in shipped_recipes():
        return SHIPPED / f"{name}.yaml"
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        raise RecipeError(f"{name}: a folder, not a recipe's file")
    if path.suffix or "/" in name:
        raise RecipeError(f"{name}: no such file")
    raise RecipeError(
        f"{name}: no recipe of that name is shipped ({', '.join(shipped_recipes())}); a recipe of your own is named by "
        f"its file, as {name}.yaml"
    )


def _written_out(key: str, value: Any) -> Any:
    """What a recipe has at the key, its short forms written out: `corpus: URL`, `modalities: [NAME, ...]`,
    `tokenizer: NAME`, `environment: NAME` and `fit: true`."""
    if key == "corpus" and isinstance(value, str | list):
        return {"url": value}
    if key in ("tokenizer", "environment") and isinstance(value, str):
        return {"name": value}
    if key == "fit" and value is True:
        return {}
    if key == "modalities" and isinstance(value, list):
        counts = Counter(name if isinstance(name, str) else "" for name in value)
        if counts[""]:
            raise ValueError(
                "a list of modalities holds their names alone; with settings write each on a line of its own, without "
                "a dash, as `rgb: {}` and `caption: {keep: both}`"
            )
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"{twice[0]} is there twice; leave one of them out")
        return dict.fromkeys(value)
    return value


@contextmanager
def at_key(key: str) -> Iterator[None]:
    """Puts the recipe's key in front of why what stands there can't be used: RecipeError."""
    try:
        yield
    except RecipeError:
        raise  # it names its key already
    except (ValueError, CheckpointError) as error:
        raise RecipeError(f"{key}: {' '.join(str(error).split())}") from error


def validated(model: type[BaseModel], params: Mapping[str, Any], where: str) -> BaseModel:
    """The parameters as an instance of `model`. RecipeError naming the key."""
    try:
        return checked(model, params)
    except MistakesError as error:
        raise RecipeError("\n".join(str(one.below(where)) for one in error.found)) from None
