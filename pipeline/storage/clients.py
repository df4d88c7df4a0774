"""What clients of object stores do that a store must not: undone."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from . import answers

_VERSIONS = {"s3": "?versionId=", "abfs": "?versionid="}
"""Behind which the clients of protocols take a name to go on with a version, which names may hold as anything else."""


def tame(fs: Any, protocols: tuple[str, ...]) -> None:
    """Has fsspec's client of an object store take names for what they are, and log no errors that it raises."""
    for protocol in protocols:
        if mark := _VERSIONS.get(protocol):
            fs.version_aware, fs.split_path = False, partial(_split, fs, mark)
    if "gs" in protocols:
        logging.getLogger("gcsfs").addFilter(_is_no_traceback)


def _split(fs: Any, mark: str, path: str, *given: Any, **named: Any) -> tuple[str, str, None]:
    """Bucket and name, and no version."""
    before, found, after = path.partition(mark)
    bucket, name, _ = type(fs).split_path(fs, before + "." * bool(found), *given, **named)  # it may strip slashes
    return bucket, (name[:-1] + found + after if found else name), None


def _is_no_traceback(record: logging.LogRecord) -> bool:
    return not record.exc_info


def hides_missing_buckets(protocols: tuple[str, ...]) -> bool:
    """Whether the client takes a bucket that isn't there for one without objects."""
    return bool({"gs", "abfs"} & {*protocols})


def lacks_bucket(fs: Any, root: str) -> bool:
    """Whether there is no bucket of that name, of a client that hides it. It asks for a listing, to which who works
    with its objects has the right."""
    bucket = root.partition("/")[0]
    asked = _first_of_azure(fs, bucket) if "abfs" in fs.protocol else fs._call("GET", "b/{}/o", bucket, maxResults=1)
    try:
        asyncio.run_coroutine_threadsafe(asked, fs.loop).result()
    except Exception as error:  # of all else the request that failed has told
        return isinstance(error, FileNotFoundError) or answers.http_status(error) == 404
    return False


async def _first_of_azure(fs: Any, container: str) -> None:
    async with fs.service_client.get_container_client(container=container) as client:
        async for _ in client.list_blobs(results_per_page=1):
            return
