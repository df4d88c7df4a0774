"""How the files of a corpus are reached: by options of their file system, and on web servers by queries.

A query, such as a signature or `?download=true`, is what a file is asked for with, and no part of its name: a dataset's
listings, shards and keys are the same with another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..storage.errors import QUERY, redact
from ..storage.store import Store, absolute_url
from .samples import CorpusError

_QUERY = re.compile(rf"(https?://[^?]+)({QUERY}.*)", re.DOTALL)


@dataclass(frozen=True)
class Reach:
    """options: of the file system. queries: by the addresses of files, each with its question mark."""

    options: Mapping[str, Any] = field(repr=False)
    queries: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, urls: Iterable[str], options: Mapping[str, Any]) -> Reach:
        """How what the URLs of a corpus name is reached. Raises CorpusError where a query can't be a file's own."""
        queries: dict[str, str] = {}
        for url in urls:
            address, query = parted(url)
            for one in braces(absolute_url(address)) if query else ():
                if "*" in one:
                    raise CorpusError(
                        f"{redact(url)}: a URL with a query names files, by {{000..123}} where they are many; a web "
                        f"server lists none by it"
                    )
                if queries.setdefault(one, query) != query:
                    raise CorpusError(
                        f"{redact(one)}: two URLs of the corpus differ in their queries alone, which are no part of a "
                        f"file's name: download these files, and give their folder"
                    )
        return cls(options, queries)

    def store(self, url: str) -> Store:
        return Store(url, self.options, self.queries)


def parted(url: str) -> tuple[str, str]:
    """The URL of a file on a web server without its query, and this, which is "" where there is none."""
    found = _QUERY.fullmatch(url)
    return (found[1], found[2]) if found else (url, "")


def braces(address: str) -> list[str]:
    """The addresses that one with {000..123} or {a,b} stands for. CorpusError."""
    from braceexpand import braceexpand

    try:
        return list(braceexpand(address))
    except ValueError:
        raise CorpusError(f"{redact(address)}: there is a {{ without its }}, or the other way round") from None
