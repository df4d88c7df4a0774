"""Retries: what each has begun is listed until it ends, so that the next one finishes it.

A retry mends a sample's modalities one after another, in stages. Where it dies between two, the ledger of the first
tells no more that what is made from it is still as it was.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..storage.store import Store
from .layout import RETRIES, retry_path
from .ledger import Failure, digest_of, write_ledger
from .standing import read_failures


def begin_retry(store: Store, failures: Iterable[Failure]) -> str:
    """Lists what a retry is about to try again; the path of the list, to be deleted when all of it was tried."""
    data = write_ledger(failures)
    path = retry_path(digest_of(data))
    store.create(path, data)
    return path


def unfinished_retries(store: Store) -> dict[str, list[Failure]]:
    """The lists that are there, by path: of retries that died, or that are at work. Raises as `read_failures`."""
    paths = (f"{RETRIES}/{entry.name}" for entry in store.list(RETRIES))
    return {path: read_failures(store, path) for path in paths}
