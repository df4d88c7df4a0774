"""Reading a dataset: one modality of one unit at a time, checked against what it should be, and rows joined from them.

A training job needs no more than this to read tokens: neither Ray nor torch, nor the labelers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any, TypeVar

from ..corpus.unit_sets import UnitSet
from ..corpus.units import Unit
from ..storage.read_ahead import in_order
from ..storage.recent import RecentObjects
from ..storage.store import Store
from .cards import ModalityCard
from .finished import Finished, list_finished
from .layout import CORPUS, is_merged, label_folder, ledger_path, stem_of, token_folder
from .ledger import BrokenLedgerError, Failure, digest_of, read_ledger
from .manifest import DatasetError, GoneError, Manifest, check_modalities, naming_gone, read_manifest
from .merges import Places
from .shards import BrokenShardError, ShardMeta, read_labels, read_token_column, read_token_table, token_arrays

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

_AHEAD = 8
"""Columns that are read ahead."""


@dataclass(frozen=True)
class Row:
    """One view of one sample. values: by modality its tokens (1-d, of the modality's dtype) or, where asked for, its
    label; None where the sample lacks the modality."""

    key: str
    view: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One modality of one unit. path: of its shard; meta: what that says of itself; keys: of the samples, in order.

    values: tokens (1-d) or labels, `per_sample` of them for each sample: one for each view, or a single one for labels
    of whole images. None where the sample lacks the modality.
    """

    path: str
    meta: ShardMeta
    keys: list[str]
    per_sample: int
    values: list[Any]

    def value(self, sample: int, view: int) -> Any:
        """What a view of the sample at that index has."""
        return self.values[sample * self.per_sample + view % self.per_sample]


class ColumnReader:
    """The one reader of shards for all that use a dataset. cards: what the modalities are. views: of each sample.
    revisions: of units that were tried again, by modality. places: where units lie, if that has been looked up.
    recent: through which merged shards are read as a whole, for who goes on to their other units; else a unit's rows
    alone are read of them.

    Raises DatasetError for a shard that can't be read or isn't what its name and its card say, FileNotFoundError for a
    missing one. Flipped bits are for `verify` to find.
    """

    def __init__(
        self,
        store: Store,
        cards: Mapping[str, ModalityCard],
        views: int,
        revisions: Mapping[str, Mapping[Unit, int]] | None = None,
        places: Places | None = None,
        recent: RecentObjects | None = None,
    ) -> None:
        self.store, self.cards, self.views, self._revisions = store, cards, views, revisions or {}
        self._places, self._recent = places or Places(store), recent

    def revision(self, unit: Unit, modality: str) -> int:
        return self._revisions.get(modality, {}).get(unit, 0)

    def token_path(self, unit: Unit, modality: str) -> str:
        """Of the shard with the unit's tokens: its own, or a merged one."""
        return self._places.path(self._folder(modality, tokens=True), self._stem(unit, modality))

    def label_path(self, unit: Unit, modality: str) -> str:
        return self._places.path(self._folder(modality, tokens=False), self._stem(unit, modality))

    def files(self, modality: str, labels: bool, units: Iterable[Unit]) -> list[str]:
        """The paths of the shards that hold these units, and no others. Raises DatasetError where some hold others."""
        return self._places.files(self._folder(modality, not labels), [self._stem(unit, modality) for unit in units])

    def _folder(self, modality: str, tokens: bool) -> str:
        card = self.cards[modality]
        if tokens:
            return token_folder(modality, card.tokens_generation)
        return label_folder(modality, card.labels_generation)

    def _stem(self, unit: Unit, modality: str) -> str:
        return stem_of(unit, self.revision(unit, modality))

    def tokens(self, unit: Unit, modality: str) -> Column:
        path, meta, table = self._tokens(unit, modality)
        return Column(path, meta, table["key"].to_pylist()[:: self.views], self.views, token_arrays(table))

    def token_table(self, unit: Unit, modality: str) -> pa.Table:
        """The rows as Arrow has them: key, view, tokens."""
        return self._tokens(unit, modality)[2]

    def token_column(self, unit: Unit, modality: str) -> tuple[str, pa.Array]:
        """What `rows_digest` says of the unit's rows, and their tokens as Arrow has them, a list for each.

        Equal digests are the same keys and views in the same order, so those columns are not read.
        """
        path, (meta, rows, tokens) = self._read(
            unit, modality, True, lambda source: read_token_column(source, unit.name)
        )
        self._check(path, unit, modality, meta, self.cards[modality].tokens_generation)
        if len(tokens) != unit.count * self.views:
            raise DatasetError(
                f"{self.store.url}/{path}: it has {len(tokens)} rows, not {self.views} views of {unit.count} samples"
            )
        return rows, tokens

    def joined(self, unit: Unit, modalities: Sequence[str]) -> pa.Table:
        """The tokens of modalities side by side: key, view, and a list of ids of each, null where the sample lacks it.

        Raises DatasetError where the shards don't hold the same samples.
        """
        tables = {name: self.token_table(unit, name) for name in modalities}
        first = modalities[0]
        rows = joined = tables[first].select(["key", "view"])
        for name, table in tables.items():
            if not table.select(["key", "view"]).equals(rows):
                raise misaligned(self.store.url, self.token_path(unit, name), self.token_path(unit, first))
            joined = joined.append_column(name, table["tokens"])
        return joined

    def labels(self, unit: Unit, modality: str) -> Column:
        """Labels as they are stored; the `label_kind` of the modality's card decodes them."""
        per_sample = self.cards[modality].labels_per_sample(self.views)
        path, shard = self._read(unit, modality, False, lambda source: read_labels(source, unit.name))
        self._check(path, unit, modality, shard.meta, self.cards[modality].labels_generation)
        self._check_views(path, shard.rows.views, per_sample)
        return Column(path, shard.meta, shard.rows.keys[::per_sample], per_sample, shard.labels)

    def keys(self, unit: Unit, modality: str) -> list[str]:
        """The keys of the unit's samples, read from the key and view columns alone where the modality keeps tokens."""
        if not self.cards[modality].keeps_tokens:
            return self.labels(unit, modality).keys
        return self._tokens(unit, modality, ["key", "view"])[2]["key"].to_pylist()[:: self.views]

    def failures(self, unit: Unit, column: Column) -> list[Failure]:
        """Why values of a column are missing: the lines of the ledger that its shard refers to, and of no other."""
        meta = column.meta
        return self._ledger(
            unit, meta.modality, meta.generation, self.revision(unit, meta.modality), meta.ledger, column
        )

    def rejections(self, unit: Unit, column: Column) -> list[Failure]:
        """What the corpus reader refused in the unit, as a column's shard has it."""
        return self._ledger(
            unit, CORPUS, self.cards[column.meta.modality].corpus_generation, 0, column.meta.rejected, column
        )

    def _ledger(
        self, unit: Unit, modality: str, generation: str, revision: int, digest: str, column: Column
    ) -> list[Failure]:
        if not digest:
            return []
        path = ledger_path(modality, generation, stem_of(unit, revision), digest)
        try:
            data = self.store.read(path)
        except FileNotFoundError:
            raise self._broken(path, f"it is missing, and {column.path} refers to it") from None
        if digest_of(data) != digest:
            raise self._broken(path, f"its bytes aren't those that {column.path} refers to")
        return self._lines(path, data)

    def _lines(self, path: str, data: bytes) -> list[Failure]:
        try:
            return list(read_ledger(data))
        except BrokenLedgerError as error:
            raise self._broken(path, error) from None

    def _tokens(
        self, unit: Unit, modality: str, columns: Sequence[str] | None = None
    ) -> tuple[str, ShardMeta, pa.Table]:
        """The unit's rows, or columns of them, view among them, read by ranges."""
        path, (meta, table) = self._read(
            unit, modality, True, lambda source: read_token_table(source, columns, unit.name), whole=columns is None
        )
        self._check(path, unit, modality, meta, self.cards[modality].tokens_generation)
        self._check_views(path, table["view"].to_pylist(), self.views)
        return path, meta, table

    def _read(
        self, unit: Unit, modality: str, tokens: bool, read: Callable[[bytes | io.RawIOBase], T], whole: bool = True
    ) -> tuple[str, T]:
        """The path of a unit's shard, and what `read` makes of its bytes or, where not the whole of it is wanted, of it
        as a file. Raises DatasetError for a broken one, GoneError for a missing one."""

        def found(path: str) -> tuple[str, T]:
            merged = is_merged(path)
            try:
                if merged and self._recent:
                    return path, read(self._recent.read(path))
                return path, read(self.store.read(path) if whole and not merged else self.store.open(path))
            except BrokenShardError as error:
                raise self._broken(path, error) from None

        with naming_gone(self.store.url):
            return self._places.read(self._folder(modality, tokens), self._stem(unit, modality), found)

    def _check(self, path: str, unit: Unit, modality: str, meta: ShardMeta, generation: str) -> None:
        """Whether a shard is what its name says."""
        if (meta.unit, meta.modality, meta.generation) != (unit.name, modality, generation):
            raise DatasetError(
                f"{self.store.url}/{path}: holds {meta.modality} of {meta.unit}, generation {meta.generation}: not "
                f"what its name says"
            )

    def _check_views(self, path: str, views: list[int], per_sample: int) -> None:
        if views != list(range(per_sample)) * (len(views) // per_sample):
            rows = f"{per_sample} views of each sample" if per_sample > 1 else "one for each sample"
            raise DatasetError(f"{self.store.url}/{path}: its rows aren't {rows}")

    def _broken(self, path: str, error: Exception | str) -> DatasetError:
        return DatasetError(f"{self.store.url}/{path}: {error}; `tokenloom verify` tells what else is broken")


class DatasetReader:
    """The units of a dataset, and its rows joined from the modalities' columns. May be pickled."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store, self.cards, self.views = store, manifest.modalities, int(manifest.views["count"])
        self._retired, self._places = manifest.corpus.retired, Places(store)
        self._listed: dict[str, Finished] | None = None

    @property
    def listed(self) -> dict[str, Finished]:
        """What each modality has, as it is listed when this is first asked for."""
        if self._listed is None:
            self._listed = list_finished(self.store, self.cards, self._retired)
            self._refuse_replaced([name for name, found in self._listed.items() if not found.units])
        return self._listed

    @property
    def finished(self) -> dict[str, Set[Unit]]:
        """The units that each modality has."""
        return {name: found.units for name, found in self.listed.items()}

    @property
    def columns(self) -> ColumnReader:
        """For units here and there."""
        return self._columns(None)

    def columns_in_order(self, modalities: Collection[str]) -> ColumnReader:
        """For one unit after the other: each merged shard of these modalities is read once, as a whole, and kept until
        the next one comes."""
        return self._columns(RecentObjects(self.store, len(modalities) + min(_AHEAD, len(modalities))))

    def _columns(self, recent: RecentObjects | None) -> ColumnReader:
        revisions = {name: found.revisions for name, found in self.listed.items()}
        return ColumnReader(self.store, self.cards, self.views, revisions, self._places, recent)

    def _refuse_replaced(self, empty: Collection[str]) -> None:
        """Raises GoneError where modalities are empty, since others have taken their places and `gc` what there was."""
        now = read_manifest(self.store) if empty else None
        for name in empty:
            cards = [self.cards[name], now.modalities.get(name) if now else None]
            if len({card.generation for card in cards if card and card.fitted}) == 2:
                raise GoneError(f"{self.store.url}: {name} was replaced since the dataset was opened: open it again")

    def units(self, modalities: Collection[str] | None = None) -> list[Unit]:
        """The units that all of these modalities have (by default, that all have), in order."""
        sets = [self.finished[name] for name in self.chosen(modalities)]
        return list(UnitSet.of(reduce(and_, sets)).in_order()) if sets else []

    def chosen(self, modalities: Collection[str] | None) -> list[str]:
        """These modalities; None: all. Raises DatasetError for one that the dataset hasn't."""
        if isinstance(modalities, str):
            modalities = [modalities]
        names = list(self.cards if modalities is None else modalities)
        check_modalities(self.store.url, names, self.cards)
        return names

    def column(self, unit: Unit, modality: str, label: bool, columns: ColumnReader | None = None) -> Column:
        """Tokens, or decoded labels. columns: through which they are read."""
        columns = columns or self.columns
        if not label:
            return columns.tokens(unit, modality)
        column, kind = columns.labels(unit, modality), self.cards[modality].label_kind
        return replace(column, values=[None if value is None else kind.decode(value) for value in column.values])

    def rows(
        self,
        units: Iterable[Unit],
        modalities: Sequence[str],
        views: Collection[int] | None = None,
        labels: Collection[str] = (),
    ) -> Iterator[Row]:
        """The rows of some units, sample by sample and view by view. labels: of which modalities labels are wanted.

        Raises DatasetError where shards of one unit don't hold the same samples, and what ColumnReader raises.
        """
        units, reader = list(units), self.columns_in_order(modalities)
        tasks = ((unit, name, name in labels, reader) for unit in units for name in modalities)
        columns = in_order(lambda task: self.column(*task), tasks, threads=_AHEAD)
        chosen = [view for view in range(self.views) if views is None or view in views]
        for _ in units:
            joined = aligned({name: next(columns) for name in modalities}, self.store.url)
            keys = next(iter(joined.values())).keys if joined else []
            for sample, key in enumerate(keys):
                for view in chosen:
                    yield Row(key, view, {name: column.value(sample, view) for name, column in joined.items()})


def aligned(columns: dict[str, Column], url: str) -> dict[str, Column]:
    """The columns, if they are of the same samples in the same order. Raises DatasetError naming two that aren't."""
    first = next(iter(columns.values()), None)
    for column in columns.values():
        if first is not None and column.keys != first.keys:
            raise misaligned(url, column.path, first.path)
    return columns


def misaligned(url: str, one: str, other: str) -> DatasetError:
    """What to raise for two shards that can't be joined; `one` and `other` are paths in the dataset."""
    return DatasetError(
        f"{url}/{one} and {url}/{other} don't hold the same samples in the same order: `tokenloom verify {url}` tells "
        f"which of them is broken"
    )
