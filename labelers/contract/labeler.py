"""The Labeler contract: what a plugin author writes to add a modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from .kinds import Kind
from .licences import licence_of
from .views import View


@dataclass(frozen=True)
class Modality:
    """One named output of a labeler. `tokenizer` names the default tokenizer; None means the kind's own."""

    name: str
    kind: Kind
    tokenizer: str | None = None


@dataclass(frozen=True)
class Weights:
    """Weights that a labeler needs.

    default: a hub id or URL; None where the user must name a path. licence: of the default weights, and of every
    checkpoint of this labeler unless `others` is given. source: a page that describes them. others: licences of further
    checkpoints by a pattern of their hub ids (`depth-anything/*-Large-hf`); any that none fits has an unknown licence.
    """

    default: str | None
    licence: str
    source: str
    others: Mapping[str, str] | None = None

    def licence_of(self, source: str) -> str:
        """The licence of the checkpoint `source`; see `licences`."""
        return licence_of(source, self.default, self.licence, self.others)


@dataclass(frozen=True)
class Resources:
    """What one copy of a labeler asks of a machine. Memory is for batch size 1, in bytes."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 256 * 2**20


@dataclass
class Batch:
    """What `Labeler.label` is given, sample by sample in the same order.

    images: for labelers on views, uint8 (batch, size, size, 3) RGB; for labelers on whole images, a list of
        uint8 (height, width, 3) RGB arrays, upright; None for labelers that look at no pixels.
    views: the crop that each sample was cut by (also known to labelers on whole images, where it is view 0).
    fields: what the corpus has beside the image: caption, url, ...
    labels: the labels of every modality in `requires` and `wants`, in the labeler's own frame (view or whole image).
        A label of `wants` may be None.
    """

    keys: Sequence[str]
    images: np.ndarray | Sequence[np.ndarray] | None
    views: Sequence[View]
    fields: Sequence[Mapping[str, Any]]
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)


class NoParams(BaseModel):
    """Parameters of a labeler or tokenizer that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Labeler(ABC):
    """Makes one or several modalities from a sample's image, its corpus fields and other modalities.

    A subclass sets `makes` (here, or in `__init__` when it depends on the parameters) and writes `label`.
    The docstring's first line is what `tokenloom labelers` shows.

    on: "view" for a labeler that looks at the square view, "image" for the whole upright image (its labels are then
        cropped by their kind), "nothing" for one that needs no pixels.
    requires: modalities without which a sample can't be labelled. wants: modalities used where the recipe has them.
    version: part of what determines a generation; raise it when the same input gives another label.
    autocast: the torch dtype that its model may run in on a GPU; None keeps float32.
    """

    makes: Sequence[Modality] = ()
    on: ClassVar[Literal["view", "image", "nothing"]] = "view"
    requires: ClassVar[tuple[str, ...]] = ()
    wants: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "Apache-2.0"
    weights: ClassVar[Weights | None] = None
    resources: ClassVar[Resources] = Resources()
    batch_size: ClassVar[int] = 32
    autocast: Literal["float16", "bfloat16"] | None = None
    Params: ClassVar[type[BaseModel]] = NoParams

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        """params: an instance of `Params`. weights: a hub id or a local path; None takes `weights.default`."""
        self.params: Any = params if params is not None else self.Params()
        self.weights_path = weights if weights is not None else (self.weights.default if self.weights else None)

    def check_needs(self, kinds: Mapping[str, Kind]) -> None:  # noqa: B027 - most take what there is
        """Raises ValueError where the labels of `requires` and `wants` aren't of kinds that this labeler, with these
        parameters, can use. Called before anything is loaded."""

    def load(self, device: str) -> None:  # noqa: B027 - most light labelers have nothing to load
        """Load the weights onto `device` ("cpu", "cuda", ...). Called once, before the first `label`."""

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        """Write the smallest checkpoint of the real on-disk format, of random numbers from a fixed seed, into `folder`.

        Returns what to give as `weights`: the folder, or a file in it. This is what `weights: tiny` stands for, with
        which a recipe can be tried without a download; its labels mean nothing, and the dataset says so.
        """
        raise NotImplementedError(f"{cls.__name__} has no tiny weights")

    @abstractmethod
    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        """One label per sample for every modality in `makes`; None where a sample has none (no caption, say).

        Raising fails the samples that make it raise, and them alone: the engine halves the batch until it finds them.
        """


class MalformedAnswerError(TypeError):
    """A labeler whose answer has the wrong form, whatever the samples."""


def labels_of(labeler: Labeler, answer: Any, modality: str, samples: int) -> Sequence[Any]:
    """The labels of one modality, of so many samples, in what a labeler answered; their kind has yet to check each.

    Raises MalformedAnswerError.
    """
    who = f"{type(labeler).__name__}.label"
    if not isinstance(answer, Mapping):
        raise MalformedAnswerError(f"{who} returned a {type(answer).__name__}, not a dict of labels by modality")
    if modality not in answer:
        raise MalformedAnswerError(f"{who} returned no {modality!r}, only {sorted(map(str, answer))}")
    labels: Any = answer[modality]
    if isinstance(labels, Mapping | str | bytes) or not (hasattr(labels, "__len__") and hasattr(labels, "__getitem__")):
        raise MalformedAnswerError(f"{who} returned a {type(labels).__name__} for {modality}, not a list of labels")
    if len(labels) != samples:
        raise MalformedAnswerError(f"{who} returned {len(labels)} {modality} labels for {samples} samples")
    return labels
