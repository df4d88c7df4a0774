"""History: the manifests of a dataset, and what each changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..dataset.cards import ModalityCard
from ..dataset.layout import MANIFESTS, manifest_number
from ..dataset.manifest import DatasetError, Manifest, changes, read_manifest_at, require_manifest
from ..storage.store import Store


@dataclass(frozen=True)
class Chapter:
    """One manifest. written: unix seconds, by the store's clock. changes: since the one before."""

    number: int
    written: float
    changes: list[str]


def read_history(store: Store) -> list[Chapter]:
    """All manifests, oldest first. Raises DatasetError where there are none, or the last can't be read."""
    require_manifest(store)
    chapters, before = [], None
    for entry in store.list(MANIFESTS, recursive=False):
        number = manifest_number(entry.name)
        if number is None:
            continue
        try:
            now = read_manifest_at(store, number)
        except DatasetError as error:
            chapters.append(Chapter(number, entry.modified, [f"it can't be told: {error}"]))
            continue
        chapters.append(Chapter(number, entry.modified, list(differences(before, now))))
        before = now
    return chapters


def compare(store: Store, old: int, new: int) -> list[str]:
    """What changed between two manifests. Raises DatasetError for a number that there isn't."""
    try:
        return list(differences(*(read_manifest_at(store, number) for number in (old, new))))
    except FileNotFoundError as error:
        raise DatasetError(f"{error}: `tokenloom history {store.url}` lists the manifests that there are") from None


def differences(old: Manifest | None, new: Manifest) -> Iterator[str]:
    """What differs, in words, a line each."""
    if old is None:
        yield f"begun, from {', '.join(new.corpus.url)} ({_shards(new)})"
    elif _corpus(old) != _corpus(new):
        yield f"the corpus: {_corpus(old)} -> {_corpus(new)}"
    elif old.corpus != new.corpus:
        yield f"the corpus: other files of it are taken, or aren't ({_corpus(new)})"
    for name in {**(old.modalities if old else {}), **new.modalities}:
        yield from _of_modality(name, old.modalities.get(name) if old else None, new.modalities.get(name))
    for name in {**(old.pending if old else {}), **new.pending}:
        before, now = old.pending.get(name) if old else None, new.pending.get(name)
        if before is None and now is not None:
            yield f"{name}: is being made anew"
        elif now is None and name in new.modalities and new.modalities[name] != before:
            yield f"{name}: is no longer being made anew"
        elif before is not None and now is not None:
            yield from (f"{line} (being made anew)" for line in _of_modality(name, before, now))


def _of_modality(name: str, old: ModalityCard | None, new: ModalityCard | None) -> Iterator[str]:
    if old == new:
        return
    if old is None or new is None:
        yield f"{name}: {'added' if new else 'taken away'}"
        return
    for line in changes(old, new):
        yield f"{name}: {line}"
    if old.tokens and new.tokens and not old.fitted and new.fitted:
        yield f"{name}: its tokenizer is there ({new.tokenizer_digest})"
    elif old.tokens and new.tokens and old.fitted and not new.fitted:
        yield f"{name}: its tokenizer isn't there yet"
    elif old.fitted and new.fitted and old.tokens and new.tokens and old.tokenizer_digest != new.tokenizer_digest:
        yield f"{name}: tokenizer {old.tokenizer_digest} -> {new.tokenizer_digest}"
    for what in sorted(new.kept - old.kept):
        yield f"{name}: {what} are kept{', too' if old.kept & new.kept else ''}"
    for what in sorted(old.kept - new.kept):
        yield f"{name}: {what} are no longer kept"


def _corpus(manifest: Manifest) -> str:
    corpus = manifest.corpus
    return f"{', '.join(corpus.url)} ({_shards(manifest)}, {corpus.bytes:,} bytes)"


def _shards(manifest: Manifest) -> str:
    count = manifest.corpus.shards
    return f"{count:,} shard{'' if count == 1 else 's'}"
