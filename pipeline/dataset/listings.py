"""The listings of a corpus' files that a dataset has taken up: each written once, and named by manifests."""

from __future__ import annotations

from ..corpus.taken import Listing, Shard, Taken
from ..storage.store import Store
from .layout import listing_path
from .manifest import CorpusCard, DatasetError


class BrokenListingError(DatasetError):
    """path: in the dataset; what: is wrong with it."""

    def __init__(self, store: Store, path: str, what: str) -> None:
        super().__init__(f"{store.url}/{path}: {what}; without it nobody knows what the dataset is of: put back a copy")
        self.path, self.what = path, what


def read_taken(store: Store, corpus: CorpusCard) -> Taken:
    """What a manifest says that the dataset has taken up. Raises BrokenListingError."""
    return Taken(tuple(read_listing(store, digest) for digest in corpus.listings), frozenset(corpus.retired))


def taken_shards(store: Store, corpus: CorpusCard) -> dict[str, Shard]:
    """The shards that count, by their ids; the corpus itself isn't looked at. Raises BrokenListingError."""
    shards = read_taken(store, corpus).shards(corpus.root, corpus.reading.get("image"))
    return {shard.id: shard for shard in shards}


def store_listing(store: Store, listing: Listing) -> None:
    store.create(listing_path(listing.digest), listing.to_bytes())


def read_listing(store: Store, digest: str) -> Listing:
    """Raises BrokenListingError for one that is missing, or of other bytes."""
    path = listing_path(digest)
    try:
        listing = Listing.from_bytes(store.read(path))
        if listing.digest == digest:
            return listing
    except FileNotFoundError:
        raise BrokenListingError(store, path, "it is missing") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        pass
    raise BrokenListingError(store, path, "its bytes aren't those that the manifest names")
