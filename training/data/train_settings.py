"""What a training recipe says of the model and of how it is trained, beside its data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from ...pipeline.plan.recipe_file import Strict
from ...pipeline.storage.store import absolute_url, url_problem

_MOST = 2**62


def _whole(value: Any) -> Any:
    """YAML reads 500e9 as a text; as a number of tokens it is meant."""
    try:
        number = float(value) if isinstance(value, str | float) else value
    except ValueError:
        return value
    return int(number) if isinstance(number, float) and number.is_integer() else number


Tokens = Annotated[int, BeforeValidator(_whole), Field(ge=0, lt=_MOST)]
"""A number of tokens: 500_000_000_000, or 500e9."""


def _possible(value: str) -> str:
    if problem := url_problem(value):
        raise ValueError(problem)
    return absolute_url(value)


class StartSettings(Strict):
    """A checkpoint to begin with, and what it calls the modalities."""

    model: str = Field(description="URL of a folder with config.json and model.safetensors, or of a training's output")
    rename: dict[str, str | None] = Field(
        default_factory=dict,
        description="what it calls a modality of the data, where that has another name there; null: it begins anew",
    )

    @field_validator("model")
    @classmethod
    def _place(cls, value: str) -> str:
        return _possible(value)


class ModelSettings(Strict):
    """The network: 4M's encoder and decoder of one of its sizes, for the modalities of the data."""

    size: Literal["tiny", "small", "B", "L", "XL"] = Field(description="as 4M has them: 384 to 2048 wide")
    dim: int | None = Field(default=None, ge=4, le=2**16, description="numbers per token, in place of the size's")
    depth: int | None = Field(default=None, ge=1, le=1024, description="blocks of encoder and of decoder, likewise")
    heads: int | None = Field(default=None, ge=1, le=2**12, description="of each attention, likewise")
    qk_norm: bool = Field(default=False, description="queries and keys are normalised before they meet")
    registers: int = Field(default=0, ge=0, le=1024, description="learned tokens that every input begins with")
    tied: bool = Field(default=True, description="logits are by the embeddings of the tokens that are said")
    embedding_std: float = Field(
        default=0.02, gt=0, le=10, description="deviation that embeddings begin with, but for those that logits are by"
    )
    start: StartSettings | None = Field(default=None, description="a checkpoint whose weights it begins with")
    storage_options: dict[str, Any] = Field(default_factory=dict, description="fsspec options of `start`", repr=False)

    @field_validator("start", mode="before")
    @classmethod
    def _model_alone(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value


class TrainSettings(Strict):
    """AdamW along a half cosine, as 4M trains. Tokens are counted by the budgets of inputs and targets together."""

    output: str = Field(description="folder or fsspec URL of checkpoints, metrics and, at the end, the model")
    storage_options: dict[str, Any] = Field(default_factory=dict, description="fsspec options", repr=False)
    tokens: Tokens | None = Field(default=None, ge=1, description="to train on, inputs and targets; or `steps`")
    steps: int | None = Field(default=None, ge=1, lt=2**40, description="to train for; or `tokens`")
    base_learning_rate: float = Field(
        default=1e-4, gt=0, le=1e3, description="the largest, of 256 samples: it is taken times batch_size / 256"
    )
    warmup_tokens: Tokens | None = Field(default=None, description="over which it rises; by default 2 % of all")
    weight_decay: float = Field(default=0.05, ge=0, lt=1e3, description="of linear layers and tables of tokens")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    clip: float | None = Field(default=3.0, gt=0, lt=1e30, description="the largest norm of the gradient; null: none")
    spike: float | None = Field(
        default=10.0,
        gt=1,
        lt=1e30,
        description="a step is left out whose gradient is so many times the usual; null: never",
    )
    loss: Literal["mod", "token"] = Field(
        default="mod", description="each modality counts the same, or by its targets times its vocabulary, as 4M has it"
    )
    accumulation: int = Field(default=1, ge=1, description="parts in which a process takes its samples of a step")
    checkpointing: bool = Field(default=False, description="activations are computed again rather than kept")
    compile: bool = Field(default=False, description="blocks go through torch.compile")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of the arithmetic; auto: bfloat16 on a GPU that has it, else float32"
    )
    every: int = Field(default=1000, ge=1, description="steps from one checkpoint to the next")
    keep: int = Field(default=3, ge=1, description="the last checkpoints that are kept")
    workers: int = Field(default=1, ge=1, le=2**16, description="processes that train together, each with a GPU")
    loader_workers: int = Field(default=0, ge=0, le=1024, description="processes beside each that make its batches")
    seed: int = Field(default=0, ge=0, lt=2**63, description="of the weights")

    @field_validator("output")
    @classmethod
    def _place(cls, value: str) -> str:
        return _possible(value)

    @model_validator(mode="after")
    def _one_length(self) -> TrainSettings:
        if (self.tokens is None) == (self.steps is None):
            raise ValueError("say how long to train: `steps`, or `tokens`, and not both")
        return self
