"""How much a modality's tokens keep: kept labels encoded, decoded and compared, with the codes that this took."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeGuard

import numpy as np

from ...tokenizers.contract.tokenizer import Tokenizer
from ...tokenizers.instances.unquantised import reconstruct_unquantised
from ...tokenizers.measures.code_usage import usage_of
from ...tokenizers.measures.reconstruction import ErrorSum
from ...tokenizers.vq.base import TrainedTokenizer
from ..cluster.device import chosen_device
from ..corpus.units import Unit, spread
from ..dataset.cards import ModalityCard
from ..dataset.finished import Finished, list_finished
from ..dataset.manifest import DatasetError, Manifest, require_manifest
from ..dataset.tokenizers import load_tokenizer
from ..storage.store import Store
from ..views.content import ContentReader
from ..views.kept_labels import KeptLabels
from ..views.view_pixels import RGB, ViewFinder
from .open_tokenizer import open_tokenizer, vocabulary_of

BATCH = 32
"""Labels that are encoded and decoded together."""


@dataclass(frozen=True)
class CodeFigures:
    """What the tokens took. vocabulary: codes of one codebook. used: the share of all codebooks' codes that occurred;
    unused: how many didn't: dead, where the sample is large. perplexity: the mean over codebooks. tokens, bits: of one
    label, on average; a token has log2(vocabulary) bits."""

    vocabulary: int
    codebooks: int
    used: float
    unused: int
    perplexity: float
    tokens: float
    bits: float


@dataclass(frozen=True)
class Evaluation:
    """Of one modality. tokenizer: its name, or where it is from. labels: how many were compared. held_out: whether the
    tokenizer was fitted to none of them, so far as the dataset knows. errors: the means, by
    the names in `reconstruction.MEASURES`. bound: those of the network without quantisation, which no codes can beat;
    None for tokenizers without a network."""

    dataset: str
    modality: str
    tokenizer: str
    labels: int
    held_out: bool
    errors: dict[str, float]
    bound: dict[str, float] | None
    codes: CodeFigures


def evaluate(
    dataset: str,
    modality: str,
    tokenizer: str | None = None,
    limit: int | None = None,
    watch: Callable[[int], None] = lambda labels: None,
) -> Evaluation:
    """Tries a tokenizer on the labels that the dataset at a URL keeps of a modality, or, for rgb, on its views.

    The dataset's own is tried on what it wasn't fitted to; on all, where that is nothing.

    tokenizer: path, URL or hub id of another than the dataset's own. limit: labels, about, from all over the dataset.
    watch: called with the number of labels done.

    Labels of whole images are cropped to the views, as a run tokenises them; the corpus must be in reach for that.
    Raises DatasetError where there is nothing to compare with, and what `open_tokenizer` raises.
    """
    store = Store(dataset)
    manifest = require_manifest(store)
    card = _card(store, manifest, modality)
    chosen = _tokenizer(store, modality, card, tokenizer)
    trial = _Trial(chosen, card)
    fitted_to = card.tokens.fitted_to if card.tokens and tokenizer is None else []
    every = finished_units(store, manifest, modality)
    units = held_out(every, fitted_to)
    try:
        trial.add_all(labels_at_hand(store, manifest, modality, limit, units), watch)
        if not trial.errors.labels:  # as where what was held out is empty
            units = every
            trial.add_all(labels_at_hand(store, manifest, modality, limit, units), watch)
    except DatasetError:
        raise
    except ValueError as error:
        raise DatasetError(f"{store.url}: {modality} can't be tokenised: {error}") from None
    if not trial.errors.labels:
        raise DatasetError(f"{store.url}: no label of {modality} is made yet; `tokenloom run` makes them")
    name = tokenizer or (card.tokens.tokenizer if card.tokens else "")
    bound = trial.bound.means() if trial.bound else None
    unseen, errors = not {unit.place for unit in units} & set(fitted_to), trial.errors
    return Evaluation(store.url, modality, name, errors.labels, unseen, errors.means(), bound, trial.codes())


def finished_units(store: Store, manifest: Manifest, modality: str) -> list[Unit]:
    cards = {modality: manifest.modalities[modality]}
    return sorted(list_finished(store, cards, manifest.corpus.retired)[modality].units)


def held_out(units: Sequence[Unit], fitted_to: Sequence[str]) -> list[Unit]:
    """The units at other places than those; all where there are no others."""
    seen = set(fitted_to)
    return [unit for unit in units if unit.place not in seen] or list(units)


def labels_at_hand(
    store: Store, manifest: Manifest, modality: str, limit: int | None = None, units: Sequence[Unit] | None = None
) -> Iterator[Any]:
    """Labels of a modality as its views see them, `limit` of them at most, from units spread evenly over the dataset,
    or over those `units`.

    Those that are kept; of rgb also the views, cut from the corpus. Raises DatasetError where there are neither.
    """
    card = manifest.modalities[modality]
    if not card.keeps_labels and modality != RGB:
        raise DatasetError(
            f"{store.url}: no labels of {modality} are kept, so there is nothing to compare reconstructions with; "
            f"write `keep: both` for {modality} in the recipe"
        )
    units = finished_units(store, manifest, modality) if units is None else units
    if limit is not None and units:
        per_unit = sum(unit.count for unit in units) * manifest.views["count"] / len(units)
        units = spread(units, max(1, math.ceil(limit / max(1, per_unit))))
    if card.keeps_labels:
        return islice(KeptLabels(store, modality, units).read(card.label_kind), limit)
    return islice(_views(store, manifest, units), limit)


def _views(store: Store, manifest: Manifest, units: Sequence[Unit]) -> Iterator[np.ndarray]:
    """The views of some units, uint8 (size, size, 3), cut from the corpus; less those whose images are broken."""
    empty = Finished(frozenset())
    rgb = list_finished(store, {RGB: manifest.modalities[RGB]}, manifest.corpus.retired)
    finished = dict.fromkeys(manifest.modalities, empty) | rgb
    reader, finder = ContentReader(store, manifest, finished), ViewFinder(manifest, {})
    for unit in units:
        keys = reader.keys(unit)
        seen = [one for one in finder.find(unit, keys, range(len(keys)), reader).values() if one.is_label]
        if keys and not seen:
            raise DatasetError(
                f"{store.url}: no labels of rgb are kept, and its views can't be cut from the corpus: "
                f"{finder.problem or 'it has changed'}; write `keep: both` for rgb in the recipe"
            )
        yield from (one.pixels for one in seen)


class _Trial:
    """Errors and codes, batch by batch."""

    def __init__(self, tokenizer: Tokenizer, card: ModalityCard) -> None:
        self.errors = ErrorSum(card.label_kind)
        self.bound = ErrorSum(card.label_kind) if isinstance(tokenizer, TrainedTokenizer) else None
        self._tokenizer, self._spec = tokenizer, tokenizer.spec
        self._counts = np.zeros((_codebooks(tokenizer), _vocabulary_of(tokenizer)), np.int64)
        self._tokens = 0

    def add_all(self, labels: Iterable[Any], watch: Callable[[int], None]) -> None:
        batch: list[Any] = []
        for label in labels:
            batch.append(label)
            if len(batch) == BATCH:
                self.add(batch)
                watch(self.errors.labels)
                batch = []
        self.add(batch)

    def add(self, labels: Sequence[Any]) -> None:
        if not labels:
            return
        tokens = self._tokenizer.encode(labels)
        self._count(labels, tokens)
        for label, decoded in zip(labels, self._tokenizer.decode(tokens), strict=True):
            self.errors.add(label, decoded)
        if self.bound is not None:
            assert isinstance(self._tokenizer, TrainedTokenizer)
            for label, decoded in zip(labels, reconstruct_unquantised(self._tokenizer, labels), strict=True):
                self.bound.add(label, decoded)

    def _count(self, labels: Sequence[Any], tokens: Sequence[np.ndarray]) -> None:
        self._tokens += sum(len(ids) for ids in tokens)
        coded = _network_tokens(self._tokenizer, labels) if _writes_codes(self._tokenizer) else tokens
        for ids in coded:
            for counts, own in zip(self._counts, ids.astype(np.int64).reshape(len(self._counts), -1), strict=True):
                counts += np.bincount(own, minlength=len(counts))

    def codes(self) -> CodeFigures:
        usage, tokens = usage_of(self._counts), self._tokens / max(1, self.errors.labels)
        codebooks, vocabulary = self._counts.shape
        unused = int((self._counts == 0).sum())
        bits = tokens * math.log2(self._spec.vocabulary)
        return CodeFigures(vocabulary, codebooks, usage.share, unused, usage.perplexity, tokens, bits)


def _writes_codes(tokenizer: Tokenizer) -> TypeGuard[TrainedTokenizer]:
    """Whether a network's codes stand among words of the text vocabulary: masks and poses of instances."""
    return isinstance(tokenizer, TrainedTokenizer) and tokenizer.spec.type == "text"


def _network_tokens(tokenizer: TrainedTokenizer, labels: Sequence[Any]) -> list[np.ndarray]:
    """The codes that the network has for each label, codebook by codebook."""
    found = []
    for label in labels:
        if len(examples := tokenizer.examples(label)):
            codes = tokenizer.network.tokenize(tokenizer.to_batch(examples)).cpu().numpy()
            found.append(np.moveaxis(codes.reshape(len(examples), _codebooks(tokenizer), -1), 0, 1))
    return found


def _vocabulary_of(tokenizer: Tokenizer) -> int:
    return tokenizer.network.config.vocabulary if _writes_codes(tokenizer) else tokenizer.spec.vocabulary


def _codebooks(tokenizer: Tokenizer) -> int:
    """How many codebooks with codes of their own: tokens of a cell, or of a vector. They come one after the other."""
    if _writes_codes(tokenizer):
        return tokenizer.network.config.tokens_per_cell
    spec = tokenizer.spec
    if spec.type == "text" or not spec.length:
        return 1
    return spec.length // math.prod(spec.grid) if spec.grid else spec.length


def _card(store: Store, manifest: Manifest, modality: str) -> ModalityCard:
    if modality not in manifest.modalities:
        known = ", ".join(manifest.modalities)
        raise DatasetError(f"{store.url}: there is no modality {modality!r}; it has {known}")
    return manifest.modalities[modality]


def _tokenizer(store: Store, modality: str, card: ModalityCard, url: str | None) -> Tokenizer:
    if url is not None:
        tokenizer = open_tokenizer(url, card.label_kind, lambda: vocabulary_of(store, card))
    elif card.tokens is None or card.tokens.spec is None:
        raise DatasetError(f"{store.url}: {modality} has no tokenizer, or none that is fitted yet; name another")
    else:
        tokenizer = load_tokenizer(store, modality, card)
    if isinstance(tokenizer, TrainedTokenizer):
        import torch

        tokenizer.use_device(chosen_device() or ("cuda" if torch.cuda.is_available() else "cpu"))
    return tokenizer
