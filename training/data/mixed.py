"""Datasets as they are mixed, and what of them can't be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...pipeline.corpus.units import Unit
from ...pipeline.dataset.cards import ModalityCard
from ...pipeline.dataset.manifest import DatasetError
from ...pipeline.dataset.reader import DatasetReader
from ...pipeline.storage.store import StorageError
from .order import Era
from .ride_along import PIXELS, CorpusPixels, is_embeddings

KEEP_LABELS = "`keep: labels`, or `both`, in its recipe has them kept"


class UnmixableError(DatasetError):
    """What no mixture can be made of. key: of what is wrong, as a training recipe's `data` has it."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(key, what)
        self.key, self.what = key, what

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class MixedDataset:
    """A dataset as it is mixed in: some modalities of it, with the weight and repeats of `Source`.

    Among the modalities may be embeddings whose labels the dataset keeps, and `ride_along.PIXELS`, which are read from
    its corpus with the fsspec options that are given here; both are inputs alone.

    inputs, targets: which of them may be so; None: all. views: how many of a sample's views come up, the first ones;
    None: all. units: in the order in which they were taken up; None: all that have the modalities. eras: of `Source`.
    """

    name: str
    reader: DatasetReader
    modalities: Sequence[str]
    weight: float = 1.0
    repeats: int = 1
    inputs: Collection[str] | None = None
    targets: Collection[str] | None = None
    views: int | None = None
    units: Sequence[Unit] | None = None
    eras: Sequence[Era] = ()
    corpus_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def stored(self) -> list[str]:
        """The modalities that are the dataset's own."""
        return [name for name in self.modalities if name != PIXELS]

    @property
    def tokenised(self) -> list[str]:
        return [name for name in self.stored if not is_embeddings(self.reader.cards[name])]

    @property
    def shown_views(self) -> int:
        return self.views or self.reader.views


def common_card(datasets: Sequence[MixedDataset], name: str) -> ModalityCard:
    """Of the modality, whose ids mean the same in all datasets that have it. Raises UnmixableError where they don't."""
    first: tuple[MixedDataset, ModalityCard] | None = None
    for one in datasets:
        if name not in one.modalities:
            continue
        card = one.reader.cards[name]
        if is_embeddings(card):
            _refuse_embeddings(one, name, card, first and first[1])
            first = first or (one, card)
            continue
        if not card.keeps_tokens or card.tokens is None or card.tokens.spec is None:
            raise UnmixableError(f"datasets.{one.name}", f"{name} has no tokens, or its tokenizer isn't fitted yet")
        if first is not None and card.tokens_generation != first[1].tokens_generation:
            _refuse_other_tokens(name, first, (one, card))
        first = first or (one, card)
    assert first is not None
    return first[1]


def _refuse_other_tokens(name: str, *given: tuple[MixedDataset, ModalityCard]) -> None:
    """Raises UnmixableError unless equal ids mean the same in both."""
    (one, card), (other, another) = given
    if ids_identity(card) == ids_identity(another):
        return
    raise UnmixableError(
        f"datasets.{other.name}.url",
        f"{name} was tokenised by one tokenizer in {one.reader.store.url} and by another in {other.reader.store.url}: "
        f"the same ids would mean different things. Make them with the same one (`tokenizer: {{weights: ...}}`, "
        f"`vocabulary:`), or leave {name} out of one of them",
    )


def refuse_other_vocabularies(datasets: Sequence[MixedDataset]) -> None:
    """Raises UnmixableError where texts are of different vocabularies, so that an id is two words."""
    first: tuple[str, str, str] | None = None
    for one in datasets:
        for name in one.tokenised:
            digest = _vocabulary(one.reader.cards[name])
            if digest is None:
                continue
            first = first or (one.name, name, digest)
            if digest != first[2]:
                raise UnmixableError(
                    f"datasets.{one.name}.url",
                    f"its {name} is written in another text vocabulary ({digest[:8]}...) than {first[1]} of "
                    f"{first[0]} ({first[2][:8]}...), so that an id would mean two words. Make one of them anew with "
                    f"`vocabulary:` of the other, or leave one out",
                )


def pixels_of(one: MixedDataset) -> CorpusPixels | None:
    """Raises UnmixableError for a dataset that wants pixels and was made of none."""
    if PIXELS not in one.modalities:
        return None
    try:
        return CorpusPixels(one.reader.store, one.corpus_options)
    except DatasetError as error:
        raise UnmixableError(f"datasets.{one.name}.inputs", str(error)) from None
    except StorageError as error:
        raise UnmixableError(f"datasets.{one.name}.corpus_options", str(error)) from None


def _refuse_embeddings(one: MixedDataset, name: str, card: ModalityCard, first: ModalityCard | None) -> None:
    """Raises UnmixableError where they aren't kept, or are others than the first dataset's."""
    key = f"datasets.{one.name}.inputs"
    if not card.keeps_labels:
        raise UnmixableError(key, f"{name} are embeddings, and the dataset keeps no labels of them; {KEEP_LABELS}")
    if first is not None and (card.kind, card.labeler, card.weights) != (first.kind, first.labeler, first.weights):
        raise UnmixableError(key, f"{name} are of another model than in the other datasets; leave them out of one")


def _vocabulary(card: ModalityCard) -> str | None:
    return card.tokens.vocabulary.digest if card.tokens and card.tokens.vocabulary else None


def ids_identity(card: ModalityCard) -> tuple[Any, ...]:
    """What says which token an id is. Needs a card with fitted tokens."""
    assert card.tokens is not None
    return card.tokens.files, card.tokens.spec, _vocabulary(card)
