"""From a picture to each modality: what a model says of it, decoded, against the pseudo-labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ...pipeline.dataset.manifest import DatasetError
from ...tokenizers.contract.special_tokens import EOS
from ...tokenizers.contract.tokenizer import Tokenizer
from ...tokenizers.measures.reconstruction import ErrorSum
from ..data.batch import Batch
from ..data.loader import as_tensors
from ..data.masking import NOTHING, Scheme
from ..data.mixture import Masking
from ..data.ride_along import PIXELS
from ..generation.chain import Target, generate
from ..generation.draws import SeededDraws
from ..generation.state import TEXT_IDS, Known, State
from ..model.config import ModalityConfig
from ..model.fourm import FourM
from .opened import Opened
from .truth import Sample, Truth

RGB = "rgb"

_STEPS = 8
"""Of MaskGIT, for an image."""


@dataclass(frozen=True)
class Likeness:
    """Of one modality. samples: that were compared; unread: whose tokens are no label, which count in no error;
    against: "labels" that the dataset keeps, or, where it keeps none, what its "tokens" decode to.

    errors: between those and what the model says, by the names in `reconstruction.MEASURES`. bound: likewise of the
    dataset's own tokens: what the tokenizer loses, which no model can win back; None against tokens.
    """

    samples: int
    unread: int
    against: str
    errors: Mapping[str, float]
    bound: Mapping[str, float] | None


def picture_input(opened: Opened) -> str | None:
    """What of a picture the model takes and the dataset has: its pixels, else its tokens."""
    return next((name for name in (PIXELS, RGB) if name in opened.inputs), None)


def pictures(opened: Opened, name: str, positions: np.ndarray) -> State:
    """All of each sample's picture is known, and nothing else. Raises what `Mixture.batch` raises."""
    most = opened.mixture.most(name)
    masking = Masking([Scheme(1.0, {name: 1.0}, {})], (most, most), (0, 0))
    return known_grid(opened.mixture.batches(positions, [masking])[0], name, most)


def known_grid(batch: Batch, name: str, places: int) -> State:
    """What a batch shows of a modality that isn't a text."""
    known = Known.nothing(len(batch.positions), places)
    row, column = np.nonzero(batch.inputs.modality == batch.modalities.index(name))
    where = torch.from_numpy(row), torch.from_numpy(batch.inputs.position[row, column]).long()
    known.ids[where], known.used[where] = torch.from_numpy(batch.inputs.ids[row, column]).long(), torch.tensor(True)
    arrays = {key: one for key, one in as_tensors(batch)["arrays"].items() if key == name}
    return State(len(batch.positions), {name: known}, arrays)


def target(modality: ModalityConfig) -> Target:
    """As it is said for an evaluation: the likeliest tokens, of an image the surest first."""
    return Target(modality.name, "maskgit", min(_STEPS, modality.length), most=modality.length, temperature=0.0)


@torch.inference_mode()
def said_tokens(model: FourM, state: State, modality: ModalityConfig) -> list[np.ndarray]:
    """Of each sample what the model says, as the modality's tokenizer takes it."""
    draws = SeededDraws(0, state.samples)
    known = generate(model, state, [target(modality)], TEXT_IDS, draws).known[modality.name]
    if modality.form != "text":
        return [ids.numpy() for ids in known.ids]
    return [_text(row) for row in known.rows]


def _text(ids: Sequence[int]) -> np.ndarray:
    """Until its end, without sentinels, which stand for nothing more."""
    end = ids.index(EOS) if EOS in ids else len(ids)
    return np.array([one for one in ids[:end] if one not in TEXT_IDS.sentinels and one != NOTHING], np.int64)


@dataclass
class LikenessSum:
    """Sums over samples of one modality."""

    tokenizer: Tokenizer
    against_labels: bool
    model: ErrorSum = field(init=False)
    own: ErrorSum = field(init=False)
    unread: int = 0

    def __post_init__(self) -> None:
        self.model, self.own = ErrorSum(self.tokenizer.kind), ErrorSum(self.tokenizer.kind)

    def add(self, name: str, sample: Sample, ids: np.ndarray) -> None:
        """ids: what the model says of it. Of a sample of which there is nothing to compare with nothing is counted.

        Raises DatasetError where the sample's label isn't of the size that its tokenizer decodes to.
        """
        own = sample.tokens.get(name)
        decoded = None if own is None else self.tokenizer.decode([own])[0]
        truth = sample.labels.get(name) if self.against_labels else decoded
        if truth is None:
            return
        said = self._said(ids)
        if said is None:
            self.unread += 1
        try:
            if said is not None:
                self.model.add(truth, said)
            if self.against_labels and decoded is not None:
                self.own.add(truth, decoded)
        except ValueError as error:
            raise DatasetError(
                f"{name} of {sample.key} can't be compared with what its tokens decode to: {error}"
            ) from None

    def means(self) -> Likeness | None:
        """None where nothing was compared."""
        if not self.model.labels and not self.unread:
            return None
        against = "labels" if self.against_labels else "tokens"
        bound = self.own.means() if self.against_labels else None
        return Likeness(self.model.labels, self.unread, against, self.model.means(), bound)

    def _said(self, ids: np.ndarray) -> Any:
        """The label; None where ids that a model made up are none."""
        try:
            return self.tokenizer.kind.check(self.tokenizer.decode([ids])[0])
        except Exception:  # tokenizers may be a plugin's, and complain in any way
            return None


def likenesses(
    opened: Opened, limit: int | None, size: int, watch: Callable[[int, int], None]
) -> dict[str, Likeness | None]:
    """Of each target modality but the picture itself; None where nothing could be compared.

    Raises what `Mixture.batch` raises.
    """
    source = picture_input(opened)
    assert source is not None
    kinds = [one for one in opened.config.modalities if one.name in opened.targets and one.name not in (RGB, source)]
    truth = Truth(opened)
    sums = {one.name: LikenessSum(truth.tokenizers[one.name], truth.cards[one.name].keeps_labels) for one in kinds}
    chunks, done = opened.chunks(limit, size), 0
    total = sum(map(len, chunks))
    for positions in chunks:
        watch(done, total)
        state, samples = pictures(opened, source, positions), truth.of(positions)
        for kind in kinds:
            for sample, ids in zip(samples, said_tokens(opened.model, state, kind), strict=True):
                sums[kind.name].add(kind.name, sample, ids)
        done += len(positions)
    watch(done, total)
    return {name: one.means() for name, one in sums.items()}
