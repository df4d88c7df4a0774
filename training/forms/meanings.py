"""What the ids of a model's modalities mean: their cards, and the tokenizers that go with them.

A model's folder carries them, so that nothing else is needed to use it; a dataset that it was trained on has them, too:

tokenizers/cards.json       the size of views, and of each modality its card
tokenizers/DIGEST/FILE      the files of its tokenizer, where a dataset has them as well
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from ...pipeline.dataset.cards import ModalityCard, card_from
from ...pipeline.dataset.layout import TOKENIZERS, tokenizer_folder
from ...pipeline.dataset.manifest import naming_gone, require_manifest
from ...pipeline.storage.store import Store
from ..data.mixed import common_card
from ..data.mixture import Mixture
from ..data.ride_along import PIXELS, is_embeddings

CARDS = f"{TOKENIZERS}/cards.json"
_VERSION = 1


class FormError(ValueError):
    """What a model can't be given, or can't say; the message tells what there is."""


@dataclass(frozen=True)
class Meanings:
    """store: with the tokenizers' files. size: of views, in pixels on a side. cards: by modality; pixels have none."""

    store: Store
    size: int
    cards: Mapping[str, ModalityCard]


def of_model(store: Store) -> Meanings | None:
    """What the model's folder says; None where it says nothing, as the published ones do.

    Raises FormError for a file that can't be read.
    """
    try:
        content = store.read(CARDS)
    except FileNotFoundError:
        return None
    try:
        told = json.loads(content)
        if told["version"] != _VERSION:
            raise FormError(f"{store.url}/{CARDS}: version {told['version']!r}; this tokenloom reads {_VERSION}")
        return Meanings(store, told["size"], {name: card_from(card) for name, card in told["modalities"].items()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, FormError):
            raise
        raise FormError(
            f"{store.url}/{CARDS}: can't be read ({error}); copy the model's folder anew, or name a dataset that it "
            f"was trained on by --dataset"
        ) from None


def of_dataset(store: Store) -> Meanings:
    """What a dataset says of its own. Raises DatasetError where there is none."""
    manifest = require_manifest(store)
    return Meanings(store, manifest.views["size"], manifest.modalities)


def files_of(mixture: Mixture, modalities: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """The files that a model's folder has of these modalities, by path: read from the mixture's datasets, one at a
    time. Raises DatasetError where one is gone."""
    cards: dict[str, ModalityCard] = {}
    sizes = [require_manifest(one.reader.store).views["size"] for one in mixture.datasets]
    written = set[str]()
    for name in mixture.modalities:
        if name not in modalities or name == PIXELS:
            continue
        card = cards[name] = _without_sample(common_card(mixture.datasets, name))
        if is_embeddings(card) or card.tokenizer_digest in written:
            continue
        written.add(card.tokenizer_digest)
        yield from _tokenizer_files(next(one.reader.store for one in mixture.datasets if name in one.modalities), card)
    told = {"version": _VERSION, "size": sizes[0], "modalities": {name: asdict(card) for name, card in cards.items()}}
    yield CARDS, (json.dumps(told, indent=1) + "\n").encode()


def _tokenizer_files(store: Store, card: ModalityCard) -> Iterator[tuple[str, bytes]]:
    assert card.tokens is not None
    for file in card.tokens.files:
        path = f"{tokenizer_folder(card.tokenizer_digest)}/{file}"
        with naming_gone(store.url):
            yield path, store.read(path)


def _without_sample(card: ModalityCard) -> ModalityCard:
    """Without the places of the sample that its tokenizer was fitted to, which say nothing of ids."""
    return card if card.tokens is None else replace(card, tokens=replace(card.tokens, fitted_to=[]))
