"""S3's listings, read ten times as quickly as its client does it: of 20 million names that is most of an hour.

The client makes what a page tells of each object into Python by the service's model, value by value, has dateutil find
out how each time is written, and before that parses the page once more, to see whether it tells of an error. Here the
page's objects are taken out of the answer before the client looks at the rest. A page that isn't written as S3 writes
it is left to the client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import unquote_plus
from xml.sax.saxutils import unescape

_EVENT = "before-parse.*.ListObjectsV2"
"""What a client tells of each answer; one that doesn't parses all. By its stars this comes before
`before-parse.s3.*`, at which the client parses the page for the first time."""
_TAKEN = "objects taken by tokenloom"
_VALUES = [re.compile(rf"<{name}>([^<]*)</{name}>") for name in ("Key", "Size", "LastModified", "ETag")]


class PageObject(NamedTuple):
    """An object of a page. modified: seconds since the epoch; tag: with its quotes."""

    key: str
    size: int
    modified: float
    tag: str


def read_quickly(client: Any) -> None:
    """Has an S3 client's listings read so from now on; once more does nothing."""
    client.meta.events.register_first(_EVENT, _take_objects, unique_id="tokenloom")


def objects_of(page: Mapping[str, Any]) -> list[PageObject]:
    """Those of a page as the client gives it, whoever has read it."""
    found = page.get("Contents", ())
    parsed = [
        PageObject(one["Key"], one["Size"], one["LastModified"].timestamp(), one.get("ETag", "")) for one in found
    ]
    return page.get(_TAKEN, []) + parsed


def _take_objects(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Puts the page's objects into the parsed answer."""
    if response_dict["status_code"] != 200:
        return
    page = response_dict["body"].decode().replace("&quot;", '"')
    before, first, after = page.partition("<Contents>")
    count = page.count(first) if first else 0
    if "&#" in page or after.count("</Contents><Contents>") != count - 1:
        return
    rest = before + after.rpartition("</Contents>")[2]
    keys, sizes, times, tags = (value.findall(page) for value in _VALUES)
    if "&" in page:
        keys, tags = ([unescape(text, {"&apos;": "'"}) for text in texts] for texts in (keys, tags))
    if "<EncodingType>url</EncodingType>" in rest:  # which the client asks for
        keys = [unquote_plus(key) if "%" in key or "+" in key else key for key in keys]
    try:
        rows = zip(keys, map(int, sizes), map(_seconds, times), tags, strict=True)
        found = list(map(PageObject._make, rows))
    except ValueError:
        return
    if len(found) == count:
        response_dict["body"], customized_response_dict[_TAKEN] = rest.encode(), found


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()  # as Python 3.10 reads it
