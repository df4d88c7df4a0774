"""Manifests: what a dataset holds, from what, made by what. Each is created once; the highest number wins.

Who loses the race for a number reads the winner and takes the next. A manifest is written only when something changes,
and holds no clock and no host: a run that was killed leaves the same manifests as one that was not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from ..storage.store import Store
from .cards import ModalityCard, card_from
from .layout import MANIFESTS, manifest_number, manifest_path

FORMAT_VERSION = 2


class DatasetError(ValueError):
    """A dataset that can't be read or written as asked; the message says what to do."""


class NoDatasetError(DatasetError):
    """There is no dataset, as far as one can see: a run may be about to begin it."""


class GoneError(FileNotFoundError, DatasetError):
    """An object that the manifest names, or did when the dataset was opened, and that isn't there."""


@contextmanager
def naming_gone(url: str) -> Iterator[None]:
    """Around reading an object of the dataset at `url`: where it isn't there, a GoneError says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise GoneError(
            f"{error}: if `tokenloom gc` has deleted it since the dataset was opened, open it again, or run the same "
            f"command again; else `tokenloom verify {url}` tells what is missing"
        ) from None


@dataclass(frozen=True)
class CorpusCard:
    """The corpus as it was taken up. shards, bytes: of what counts.

    url: as the recipe has it. root: the folder that paths are relative to. listings: digests of those of its files,
    oldest first. retired: the ids of their shards that count no more. reading: the rest of the recipe's corpus
    settings, less its storage options. left_out: what of it isn't taken, as far as listings and the first shard tell,
    a line for each reason.
    """

    url: list[str]
    root: str
    shards: int
    bytes: int
    listings: list[str] = field(default_factory=list)
    retired: list[str] = field(default_factory=list)
    reading: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Manifest:
    """What a dataset is. modalities: what readers get. pending: what is being made to take their places, once it is
    complete."""

    corpus: CorpusCard
    seed: int
    views: dict[str, Any]
    units: dict[str, int]
    modalities: dict[str, ModalityCard]
    pending: dict[str, ModalityCard] = field(default_factory=dict)

    def cards_of(self, modality: str) -> list[ModalityCard]:
        """The current card, and the pending one."""
        return [cards[modality] for cards in (self.modalities, self.pending) if modality in cards]

    def to_bytes(self) -> bytes:
        data = {"format": "tokenloom", "version": FORMAT_VERSION, **asdict(self)}
        for place, cards in (("modalities", self.modalities), ("pending", self.pending)):
            for name, card in cards.items():
                data[place][name]["generations"] = _generations(card)
                if not card.environment:
                    del data[place][name]["environment"]  # so that manifests without any stay as they were
        data["checksum"] = _checksum(data)
        return written(data)

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> Manifest:
        try:
            raw = json.loads(data)
            if raw.get("format") != "tokenloom" or raw.get("version") != FORMAT_VERSION:
                raise DatasetError(
                    f"{source}: format {raw.get('format')!r} version {raw.get('version')!r}; this tokenloom reads "
                    f"'tokenloom' version {FORMAT_VERSION}"
                )
            if raw.pop("checksum", None) != _checksum(raw):
                raise DatasetError(f"{source}: its checksum doesn't match: changed by hand, or flipped bits")
            modalities, pending = (_cards(raw[place]) for place in ("modalities", "pending"))
            return cls(CorpusCard(**raw["corpus"]), raw["seed"], raw["views"], raw["units"], modalities, pending)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{source}: not a readable manifest ({error})") from None


def written(data: Mapping[str, Any]) -> bytes:
    """A manifest's bytes, whatever the names in it: what UTF-8 can't hold of them is escaped as JSON does."""
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def manifest_numbers(store: Store) -> list[int]:
    """The numbers of the manifests that there are, in order."""
    numbers = (manifest_number(entry.name) for entry in store.list(MANIFESTS, recursive=False))
    return sorted(number for number in numbers if number is not None)


def read_manifest_at(store: Store, number: int) -> Manifest:
    """Raises DatasetError for one that can't be read, FileNotFoundError where there is none."""
    path = manifest_path(number)
    return Manifest.from_bytes(store.read(path), f"{store.url}/{path}")


def read_manifests(store: Store) -> list[Manifest]:
    """All that there are, oldest first. Raises DatasetError for one that can't be read."""
    return [read_manifest_at(store, number) for number in manifest_numbers(store)]


def read_manifest(store: Store) -> Manifest | None:
    """The manifest of the dataset in `store`, or None where there is none yet."""
    numbers = manifest_numbers(store)
    return read_manifest_at(store, numbers[-1]) if numbers else None


def require_manifest(store: Store) -> Manifest:
    """The manifest; DatasetError where the URL holds no dataset."""
    manifest = read_manifest(store)
    if manifest is None:
        more = f"(no {MANIFESTS}/); a dataset is what `tokenloom run` writes"
        if store.exists("dataset.json"):
            raise DatasetError(
                f"{store.url}: this dataset is of a format before the first release: make it anew {more}"
            )
        raise NoDatasetError(f"{store.url}: no dataset here {more}")
    return manifest


def check_modalities(url: str, names: Iterable[str], known: Collection[str]) -> None:
    """Raises DatasetError for a name that isn't one of the dataset's."""
    for name in names:
        if name not in known:
            raise DatasetError(f"{url}: there is no modality {name!r}; it has {', '.join(known)}")


def publish(store: Store, change: Callable[[Manifest | None], Manifest]) -> Manifest:
    """Writes the manifest that `change` makes of the present one, unless they are equal; the one that then holds.

    Called again with the winner's where somebody else was quicker. What `change` raises passes through.
    """
    while True:
        numbers = manifest_numbers(store)
        now = read_manifest_at(store, numbers[-1]) if numbers else None
        new = change(now)
        if new == now:
            return new
        path, data = manifest_path(numbers[-1] + 1 if numbers else 1), new.to_bytes()
        if store.create(path, data):
            return new


def changes(old: ModalityCard, new: ModalityCard) -> list[str]:
    """What of how a modality is made differs, each as "name: old -> new"."""
    return list(_differences(old.parts(), new.parts(), ""))


def stale(manifest: Manifest) -> dict[str, list[str]]:
    """Why modalities aren't made from what the dataset holds now, by name; only those that aren't."""
    cards = manifest.modalities
    found = {name: list(_reasons(manifest, name, card)) for name, card in cards.items()}
    return {name: reasons for name, reasons in found.items() if reasons}


def replace_options(names: Iterable[str]) -> str:
    """To be copied into a command."""
    return " ".join(f"--replace {name}" for name in names)


def ways_on(pending: Iterable[str]) -> str:
    """What becomes of modalities that are being made anew, in words."""
    return (
        f"run the recipe that asks for it, without --replace, to finish it; or one that asks for what readers get, "
        f"with {replace_options(pending)}, to drop it"
    )


def vocabulary_digest(cards: Mapping[str, ModalityCard]) -> str | None:
    """That of the text vocabulary that modalities share: the one of texts; where there are none, of the first."""
    using = [c for c in cards.values() if c.fitted and c.tokens and c.tokens.vocabulary]
    using.sort(key=lambda card: card.kind["kind"] != "text")
    return using[0].tokens.vocabulary.digest if using and using[0].tokens and using[0].tokens.vocabulary else None


def _reasons(manifest: Manifest, name: str, card: ModalityCard):
    for need, generation in card.requires.items():
        made_anew = manifest.modalities.get(need)
        if made_anew is not None and made_anew.labels_generation != generation:
            yield f"it was made from {need} as it was before"
    reading = card.common.get("corpus", {})
    if reading != manifest.corpus.reading:
        yield f"the corpus was read otherwise: {', '.join(_differences(reading, manifest.corpus.reading, 'corpus'))}"
    if card.fitted and card.tokens and card.tokens.vocabulary:
        shared = vocabulary_digest(manifest.modalities)
        if card.tokens.vocabulary.digest != shared:
            yield f"its text vocabulary isn't that of the other modalities ({shared[:8] if shared else 'none'}...)"


def _generations(card: ModalityCard) -> dict[str, str]:
    found = {"labels": card.labels_generation}
    return {**found, "tokens": card.tokens_generation} if card.tokens and card.fitted else found


def _differences(old: Any, new: Any, path: str):
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in {**old, **new}:
            yield from _differences(old.get(name), new.get(name), f"{path}.{name}" if path else str(name))
    elif old != new:
        yield f"{path}: {json.dumps(old)} -> {json.dumps(new)}"


def _checksum(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _cards(raw: Mapping[str, dict[str, Any]]) -> dict[str, ModalityCard]:
    return {name: card_from({k: v for k, v in card.items() if k != "generations"}) for name, card in raw.items()}
