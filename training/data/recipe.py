"""Training recipes: the YAML that says which datasets a model is trained on, mixed and masked how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from ...pipeline.plan.mistakes import Places
from ...pipeline.plan.recipe_file import RecipeError, Strict, Written, checked_recipe, override_key, read_recipe
from ...pipeline.storage.store import absolute_url, url_problem
from .masking import Keep
from .schemes import NAMES
from .train_settings import ModelSettings, TrainSettings

SHIPPED = Path(__file__).parent / "recipes"

_END = 2**31
"""Of whatever is counted."""


def _as_range(value: Any) -> Any:
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, list | tuple) and len(value) == 2)):
        raise ValueError("write a number, or the least and the most, as [64, 128]")
    if isinstance(value, int) and value < 1:
        raise ValueError("input should be at least 1")
    if isinstance(value, int) and value >= _END:
        raise ValueError(f"input should be less than {_END}")
    return [value, value] if isinstance(value, int) else value


def _not_tiny(value: float) -> float:
    if 0 < value < 1e-9:
        raise ValueError("input should be 0, or at least 1e-9")
    return value


def _no_url(value: Any) -> Any:
    if isinstance(value, str) and (not value or "://" in value):
        raise ValueError(f"{value!r} is no folder of this machine; give one, as /tmp/shards")
    return value


def _rising(value: tuple[int, int]) -> tuple[int, int]:
    if value[0] > value[1]:
        raise ValueError(f"from {value[0]} to {value[1]} is no range: write the smaller number first")
    return value


Count = Annotated[int, Field(ge=1, lt=_END)]

Budget = Annotated[
    tuple[Count, Count],
    BeforeValidator(_as_range),
    AfterValidator(_rising),
]
"""A number of tokens, or [least, most] of which each number is equally likely."""

_DATASET_KEYS = ("corpus", "output", "modalities")
"""Of the recipes that datasets are made of."""

Alpha = Annotated[float, Field(ge=0, le=1e9), AfterValidator(_not_tiny)]


class DatasetSettings(Strict):
    """One dataset of the mixture: images with their modalities, or a text corpus, whose modality is `text`."""

    url: str = Field(description="folder or fsspec URL of the dataset")
    weight: float = Field(default=1.0, gt=0, le=1e9, description="its share among all, in any unit of measure")
    inputs: list[str] | None = Field(
        default=None,
        min_length=1,
        description="modalities that a model may see, `pixels` of the corpus and embeddings of which labels are kept "
        "among them; by default all that have tokens",
    )
    targets: list[str] | None = Field(
        default=None, min_length=1, description="modalities that it is to say; by default all that have tokens"
    )
    views: int | None = Field(
        default=None, ge=1, description="how many of a sample's views come up, the centre crop first; by default all"
    )
    repeats: Count = Field(default=1, description="how often a sample comes in an epoch, one view after another")
    storage_options: dict[str, Any] = Field(default_factory=dict, description="fsspec options", repr=False)
    corpus_options: dict[str, Any] = Field(
        default_factory=dict, description="fsspec options of the corpus, from which pixels are read", repr=False
    )

    @field_validator("url")
    @classmethod
    def _possible(cls, value: str) -> str:
        if problem := url_problem(value):
            raise ValueError(problem)
        return absolute_url(value)


class SchemeSettings(Strict):
    """One way to mask (see `masking.Scheme`): by modality the alphas, and what share of a text stays in the input."""

    weight: float = Field(default=1.0, gt=0, le=1e9, description="how often it is drawn, in proportion")
    inputs: dict[str, Alpha] = Field(min_length=1)
    targets: dict[str, Alpha] = Field(min_length=1)
    keep: dict[str, Keep] = Field(default_factory=dict)


class MaskingSettings(Strict):
    """A scheme by name, or schemes written out."""

    name: Literal["4m21", "all2all", "rgb2all"] | None = Field(default=None, description=f"one of {', '.join(NAMES)}")
    schemes: list[SchemeSettings] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_of_them(self) -> MaskingSettings:
        if (self.name is None) == (self.schemes is None):
            raise ValueError(f"give the `name` of one ({', '.join(NAMES)}), or `schemes`, written out")
        return self


class CacheSettings(Strict):
    """A folder of this machine that keeps shards of remote datasets, the latest used, for all processes on it."""

    folder: Annotated[Path, BeforeValidator(_no_url)]
    gigabytes: float = Field(default=50.0, gt=0, description="as much may lie there, in 10^9 bytes")


class DataSettings(Strict):
    """Datasets by name, and how their samples become batches."""

    datasets: dict[str, DatasetSettings] = Field(min_length=1)
    masking: MaskingSettings = MaskingSettings(name="4m21")
    input_tokens: Budget = Field(default=(256, 256), description="of a sample: a number, or [least, most]")
    target_tokens: Budget = Field(default=(256, 256), description="likewise")
    max_tokens: dict[str, Count] = Field(
        default_factory=dict, description="of texts, by modality, with their [EOS]: of a longer one a window is seen"
    )
    batch_size: Count = Field(default=64, description="samples of a step, over all ranks")
    seed: int = Field(default=0, ge=0, lt=2**63)
    window: Count = Field(default=16, description="units of a dataset that are read side by side")
    broken: Literal["stop", "skip"] = Field(
        default="stop", description="a shard that can't be read: stop, or mask what it holds, and say so"
    )
    grown: Literal["refuse", "next_epoch"] = Field(
        default="refuse", description="a dataset that has grown since a state was saved: taken at its next epoch"
    )
    cache: CacheSettings | None = None

    @field_validator("masking", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class TrainingRecipe(Written):
    """What a model is trained on and, for `tokenloom train`, which one and how."""

    data: DataSettings
    model: ModelSettings | None = None
    train: TrainSettings | None = None

    @field_validator("model", mode="before")
    @classmethod
    def _size_alone(cls, value: Any) -> Any:
        return {"size": value} if isinstance(value, str) else value


def load_training_recipe(name: str | Path, overrides: Sequence[str] = ()) -> TrainingRecipe:
    """The recipe in the file `name`, or the shipped one of that name, with `a.b=value` overrides applied. RecipeError
    with the line of every mistake."""
    path = SHIPPED / f"{name}.yaml" if str(name) in shipped_training_recipes() else Path(name)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise RecipeError(
            f"{path}: {what}; a training recipe is a YAML file with the key `data`, or one that is shipped: "
            f"{', '.join(shipped_training_recipes())}"
        )
    data, places = read_recipe(path, TrainingRecipe)
    if "data" not in data and (keys := [key for key in data if key in _DATASET_KEYS]):
        raise RecipeError(
            f"{path}: a recipe of which a dataset is made, with the key {keys[0]!r}: `tokenloom run {path}` makes it; "
            f"a training recipe has the key `data`, where it is one of the `datasets`"
        )
    for override in overrides:
        places[override_key(data, override, _written_out)] = f"--set {override}"
    return checked_recipe(TrainingRecipe, data, Places(str(path), places))


def shipped_training_recipes() -> list[str]:
    """Names of the training recipes in the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _written_out(key: str, value: Any) -> Any:
    short = {"model": "size", "start": "model"}
    return {short[key]: value} if key in short and isinstance(value, str) else value
