"""A lost manifest: what lies in a dataset that one must have named, and none of those that are there does.

Whatever a run writes for good, it writes after the manifest that names it; and no manifest is ever deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..corpus.left_out import few
from ..corpus.taken import shards_of
from ..dataset.finished import Stock
from ..dataset.layout import CORPUS, LEDGER, label_folder, listing_path, token_folder
from ..dataset.listings import BrokenListingError, read_listing
from ..dataset.manifest import Manifest, manifest_numbers
from ..storage.store import Store

WAY_OUT = (
    "put back a copy of the manifest that names it, or run the recipe that made it again, which goes on from what is "
    "there; what nobody wants of it, delete by hand"
)


def modalities_there(store: Store, manifests: Sequence[Manifest]) -> list[str]:
    """The modalities that the manifests name, and the folders that look like those of others."""
    names = dict.fromkeys(name for one in manifests for name in (*one.modalities, *one.pending))
    folders = (child.rstrip("/") for child in store.children() if child.endswith("/"))
    others = (folder for folder in folders if folder not in names and _looks_like_modality(store, folder))
    return [*names, *others]


def unnamed(store: Store, stocks: Mapping[str, Stock], manifests: Sequence[Manifest]) -> list[str]:
    """The folders with shards of generations that none of the manifests names, and the listings of parts of the corpus
    that there are shards of. manifests: all, read after the stock was taken."""
    named = {path for one in manifests for name in stocks for path in folders_named(one, name)}
    folders = {path: folder for stock in stocks.values() for path, folder in stock.folders.items()}
    found = [path for path, folder in sorted(folders.items()) if path not in named and not folder.is_empty]
    return found + list(_unnamed_listings(store, stocks, manifests))


def told(store: Store, paths: Sequence[str]) -> str:
    """That no manifest names what lies at these paths, of which there are some."""
    numbers = few([str(number) for number in manifest_numbers(store)])
    return f"no manifest names {few(paths)}, and there are those of the numbers {numbers}: has a later one been lost?"


def folders_named(manifest: Manifest, name: str) -> Iterator[str]:
    """The folders of a modality that a manifest knows of, whether it has shards kept there or not."""
    for card in manifest.cards_of(name):
        yield label_folder(name, card.labels_generation)
        if card.tokens and card.fitted:
            yield token_folder(name, card.tokens_generation)


def _looks_like_modality(store: Store, folder: str) -> bool:
    return any(child.startswith(("labels-", "tokens-")) for child in store.children(folder))


def _unnamed_listings(store: Store, stocks: Mapping[str, Stock], manifests: Sequence[Manifest]) -> Iterator[str]:
    named = {digest for one in manifests for digest in one.corpus.listings}
    others = [entry.name.removesuffix(f".{LEDGER}") for entry in store.list(CORPUS)]
    others = [digest for digest in others if digest not in named]
    if not others:
        return
    folders = (folder for stock in stocks.values() for folder in stock.folders.values())
    there = {shard for folder in folders for shard in folder.shard_ids()}
    there -= {id for digest in named for id in _ids(store, digest, manifests[-1])}
    yield from (listing_path(digest) for digest in others if there.intersection(_ids(store, digest, manifests[-1])))


def _ids(store: Store, digest: str, manifest: Manifest) -> list[str]:
    """The ids of the shards of a listing; none of one that nobody can read."""
    try:
        listing = read_listing(store, digest)
    except BrokenListingError:
        return []
    corpus = manifest.corpus
    return [shard.id for shard in shards_of(listing, corpus.root, corpus.reading.get("image"))]
