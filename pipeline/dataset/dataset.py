"""A finished dataset, or as much of it as is there, for those who train on it or look at it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...labelers.contract.kinds import Kind
from ...tokenizers.contract.tokenizer import Tokenizer
from ..corpus.unit_sets import UnitSet
from ..corpus.units import Unit
from ..storage.store import Store
from .cards import ModalityCard, WeightsCard
from .key_index import KeyIndex
from .manifest import DatasetError, Manifest, require_manifest
from .reader import Column, DatasetReader, Row, aligned
from .tokenizers import load_tokenizer

if TYPE_CHECKING:
    import ray.data

    from .torch_rows import TorchRows

_RECENT_COLUMNS = 64
"""Columns of units that random access keeps in memory."""


class UnknownKeyError(DatasetError, KeyError):
    """A key that the dataset doesn't hold."""

    __str__ = ValueError.__str__  # KeyError would print the message's repr


@dataclass(frozen=True)
class ModalityInfo:
    """One modality, with all that a trainer has to know of it.

    on: what the labels are of: "view" (a crop of the sample), "image" (all of it) or "nothing" (no pixels). Labels are
    stored per view for the first, per sample for the others; tokens are always of views.
    token_type, vocabulary (ids lie in [0, vocabulary)), length (None when it varies), max_length, grid (rows, columns)
    and dtype describe the tokens; they are None for a modality without, or whose tokenizer isn't fitted yet.
    has_tokens, has_labels: what the dataset keeps. generation: hash of what determines the tokens, or the labels where
    no tokens are kept; None for tokens whose tokenizer isn't fitted yet. licence: of the labeler; the weights have
    their own.
    """

    name: str
    kind: Kind
    on: str
    token_type: Literal["grid", "vector", "text"] | None
    vocabulary: int | None
    length: int | None
    max_length: int | None
    grid: tuple[int, int] | None
    dtype: np.dtype | None
    has_tokens: bool
    has_labels: bool
    generation: str | None
    licence: str
    weights: WeightsCard | None
    _load: Callable[[str], Tokenizer] = field(repr=False, compare=False)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens, loaded on first use. DatasetError where there is none."""
        return self._load(self.name)


def open_dataset(url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Dataset:
    """The dataset at a path or fsspec URL (s3://...).

    What a run adds afterwards is seen by opening it again. DatasetError where the URL holds no dataset.
    """
    return Dataset(Store(url, storage_options))


class Dataset:
    """Samples with their modalities, joined by unit; reads shards only, and those only when it needs them.

    Where a dataset isn't finished, what is asked for is taken from the units that all the asked modalities have.
    A dataset may be pickled and sent to other processes.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.manifest: Manifest = require_manifest(store)
        self.modalities: dict[str, ModalityInfo] = {
            name: _info(name, card, self._tokenizer) for name, card in self.manifest.modalities.items()
        }
        self.reader = DatasetReader(store, self.manifest)
        self._tokenizers: dict[str, Tokenizer] = {}
        self._index: KeyIndex | None = None
        self._recent: dict[tuple[Unit, str, bool], Column] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tokenizers": {}, "_index": None, "_recent": {}}

    def __repr__(self) -> str:
        return f"Dataset({self.store.url!r}, {len(self)} samples, modalities: {', '.join(self.modalities)})"

    def __len__(self) -> int:
        """How many samples have been through all modalities; known from the shards' names alone."""
        return sum(unit.count for unit in self.units())

    @property
    def views(self) -> int:
        """How many views each sample has."""
        return self.reader.views

    def units(self, *modalities: str) -> list[Unit]:
        """The units that all of these modalities have (by default, that all have), in order."""
        return self.reader.units(modalities or None)

    def files(self, modality: str, labels: bool = False) -> list[str]:
        """The URLs of the shards that count, of the modality's tokens or labels, for other readers: paths on a local
        disk. A unit that was tried again, or merged with others, has other shards beside these.

        Raises DatasetError where a merged shard also holds rows that count no more: others can't tell them apart.
        """
        self._wanted([modality], labels)
        paths = self.reader.columns.files(modality, labels, self.reader.units([modality]))
        return [f"{self.store.address}/{path}" for path in paths]

    def iterate(
        self,
        modalities: Collection[str] | None = None,
        views: Collection[int] | None = None,
        labels: bool | Collection[str] = False,
    ) -> Iterator[Row]:
        """The samples with these modalities (default: all with tokens, or all with labels), view by view, in order.

        views: only these; by default all. labels: True for decoded labels instead of tokens, or the names of those
        modalities of which labels are wanted. Labels of whole images (`ModalityInfo.on` other than "view") are stored
        once per sample: every view of the sample gets the same label, of the whole image, not cropped to the view.

        Raises DatasetError where shards of one unit don't hold the same samples, or a shard can't be read.
        """
        names, as_labels = self._wanted(modalities, labels)
        yield from self.reader.rows(self.reader.units(names), names, views, as_labels)

    def __getitem__(self, key: str) -> Row:
        """View 0 of a sample, with the tokens of all modalities. Raises UnknownKeyError, a KeyError."""
        return self.get(key)

    def __contains__(self, key: str) -> bool:
        return self.find(key) is not None

    def find(self, key: str) -> tuple[Unit, int] | None:
        """The unit of a sample and its place there; of a key that occurs twice, the first. Reads all keys, once."""
        return self._places().find(key)

    def __iter__(self) -> Iterator[Row]:
        return self.iterate()

    def get(
        self,
        key: str,
        view: int = 0,
        modalities: Collection[str] | None = None,
        labels: bool | Collection[str] = False,
    ) -> Row:
        """One view of a sample; `modalities` and `labels` as in `iterate`.

        The first call reads the keys of the whole dataset (one column of one modality), about 150 MB for a million;
        each call reads whole shards of one unit, the latest of which are kept.

        Raises UnknownKeyError for a key that isn't there, DatasetError for a modality that its unit lacks yet.
        """
        names, as_labels = self._wanted(modalities, labels)
        if not 0 <= view < self.views:
            raise DatasetError(f"{self.store.url}: there is no view {view}; a sample has {self.views}, from 0")
        place = self.find(key)
        if place is None:
            raise UnknownKeyError(f"{self.store.url}: no finished sample has the key {key!r}")
        unit, index = place
        lacking = [name for name in names if unit not in self.reader.finished[name]]
        if lacking:
            raise DatasetError(
                f"{self.store.url}: {lacking[0]} isn't made yet for {key!r} (unit {unit.name}); run the recipe again, "
                f"or name the modalities that you need"
            )
        joined = aligned({name: self._recent_column(unit, name, name in as_labels) for name in names}, self.store.url)
        return Row(key, view, {name: column.value(index, view) for name, column in joined.items()})

    def decode(self, modality: str, tokens: Any) -> Any:
        """The label that tokens (1-d, array or CPU tensor) stand for, up to the tokenizer's stated loss."""
        self.reader.chosen([modality])
        dtype = self.modalities[modality].dtype
        return self._tokenizer(modality).decode([np.asarray(tokens).astype(dtype, copy=False)])[0]

    def decode_row(self, row: Row) -> dict[str, Any]:
        """`decode` for the tokens of every modality in a row; None stays None."""
        return {name: None if ids is None else self.decode(name, ids) for name, ids in row.values.items()}

    def torch(
        self,
        modalities: Collection[str] | None = None,
        views: Collection[int] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> TorchRows:
        """The rows as a torch IterableDataset: one dict a row, from modality to LongTensor (length,).

        A modality that the sample lacks is None, so that every row has the same names; give the DataLoader a
        `collate_fn` that masks it (torch's own refuses None). Units are dealt out to ranks and to the DataLoader's
        workers; when their number isn't a multiple of ranks x workers, some get one unit more than others.
        """
        from .torch_rows import TorchRows

        return TorchRows(self.reader, self._wanted(modalities, False)[0], views, rank, world_size)

    def ray(self, modalities: Collection[str] | None = None, views: Collection[int] | None = None) -> ray.data.Dataset:
        """The rows as a ray.data.Dataset, read lazily by one task a unit: columns key, view, and one list of token ids
        per modality, null where the sample lacks it."""
        from .ray_rows import ray_rows

        return ray_rows(self.reader, self._wanted(modalities, False)[0], views)

    def _tokenizer(self, modality: str) -> Tokenizer:
        if modality not in self._tokenizers:
            card = self.manifest.modalities[modality]
            if card.tokens is None or card.tokens.spec is None:
                raise DatasetError(f"{self.store.url}: {modality} has no tokenizer, or none that is fitted yet")
            self._tokenizers[modality] = load_tokenizer(self.store, modality, card)
        return self._tokenizers[modality]

    def _wanted(
        self, modalities: Collection[str] | None, labels: bool | Collection[str]
    ) -> tuple[list[str], frozenset[str]]:
        """The names of the modalities to read, and which of them as labels. Raises DatasetError for what isn't kept."""
        named = [labels] if isinstance(labels, str) else labels
        if modalities is None:
            chosen = [n for n, i in self.modalities.items() if (i.has_labels if labels is True else i.has_tokens)]
            chosen += [n for n in self.reader.chosen([] if isinstance(named, bool) else named) if n not in chosen]
        else:
            chosen = self.reader.chosen(modalities)
        if not chosen:
            raise DatasetError(f"{self.store.url}: no modality to read; labels=True reads those that keep labels")
        as_labels = frozenset(
            chosen if labels is True else () if isinstance(named, bool) else self.reader.chosen(named)
        )
        for name in chosen:
            info, what = self.modalities[name], "labels" if name in as_labels else "tokens"
            if not (info.has_labels if name in as_labels else info.has_tokens):
                other = f"pass labels=[{name!r}]" if what == "tokens" else "ask for its tokens"
                raise DatasetError(f"{self.store.url}: no {what} of {name} are kept; {other}, or change the recipe")
        return chosen, as_labels

    def _recent_column(self, unit: Unit, name: str, labels: bool) -> Column:
        place = (unit, name, labels)
        if place not in self._recent:
            if len(self._recent) >= _RECENT_COLUMNS:
                del self._recent[next(iter(self._recent))]
            self._recent[place] = self.reader.column(unit, name, labels)
        return self._recent[place]

    def _places(self) -> KeyIndex:
        if self._index is None:
            units = UnitSet.union(self.reader.finished.values()).in_order()
            self._index = KeyIndex(units, self._read_keys)
        return self._index

    def _read_keys(self, unit: Unit) -> list[str]:
        """The keys of a unit, from a token shard where one is kept: of that one column is enough."""
        holders = [name for name, units in self.reader.finished.items() if unit in units]
        holder = next((name for name in holders if self.modalities[name].has_tokens), holders[0])
        return self.reader.columns.keys(unit, holder)


def _info(name: str, card: ModalityCard, load: Callable[[str], Tokenizer]) -> ModalityInfo:
    spec = card.tokens.spec if card.tokens else None
    return ModalityInfo(
        name=name,
        kind=card.label_kind,
        on=card.on,
        token_type=spec.type if spec else None,
        vocabulary=spec.vocabulary if spec else None,
        length=spec.length if spec else None,
        max_length=spec.max_length if spec else None,
        grid=spec.grid if spec else None,
        dtype=spec.dtype if spec else None,
        has_tokens=card.keeps_tokens,
        has_labels=card.keeps_labels,
        generation=card.generation if card.fitted else None,
        licence=card.licence,
        weights=card.weights,
        _load=load,
    )
