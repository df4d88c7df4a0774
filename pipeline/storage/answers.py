"""What object stores answer where they fail: whether it passes by itself, and what the user can do about it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

_PASSING_STATUSES = {408, 409, 425, 429, 500, 502, 503, 504}
_PASSING_CODES = {"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"}
"""Of requests that got lost or damaged on their way, which S3 calls the client's fault (400)."""

_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken")
_UNKNOWN = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed", "AuthorizationFailure")
_ELSEWHERE = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")

NO_CREDENTIALS = "Set the credentials in the environment, or in `storage_options` in the recipe"
NO_BUCKET = "The bucket does not exist: create it, or correct its name or the endpoint"

_WAYS_OUT = {
    **dict.fromkeys(
        _EXPIRED, "The credentials have expired: get new ones, and run it again, which goes on where this stopped"
    ),
    **dict.fromkeys(
        _UNKNOWN, "These credentials aren't known there: check them, and that they are meant for this endpoint"
    ),
    **dict.fromkeys(_ELSEWHERE, "The bucket is in another region: set AWS_REGION to that, or correct the endpoint"),
    "RequestTimeTooSkewed": "The clocks of this machine and of the store differ: set this one's",
    **dict.fromkeys(("NoSuchBucket", "ContainerNotFound"), NO_BUCKET),
    **dict.fromkeys(
        ("NotImplemented", "501"),
        "The store can't do that; one is needed that creates objects only where there is none (If-None-Match)",
    ),
}


def is_passing(error: BaseException) -> bool:
    """Whether to try again: anything but an answer of the service that will be the same next time."""
    if isinstance(error, (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, ValueError)):
        return False
    if error_code(error) in _PASSING_CODES:
        return True
    if (status := http_status(error)) is not None:
        return status in _PASSING_STATUSES
    if any(word in type(error).__name__ for word in ("Credential", "SSL", "Certificate")):
        return False
    return isinstance(error, (OSError, asyncio.TimeoutError, *_connection_errors()))


def may_be_expired(error: BaseException) -> bool:
    """Whether other credentials, which may have been put in the place of these since, might do."""
    return error_code(error) in (*_EXPIRED, *_UNKNOWN)


def way_out(error: BaseException, is_s3: bool) -> str:
    """What the user can do about `error`; empty when there is nothing special to say."""
    name = type(error).__name__
    if "Credential" in name:
        aws = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or `storage_options` in the recipe"
        return aws if is_s3 else NO_CREDENTIALS
    if found := _WAYS_OUT.get(error_code(error) or ""):
        return found
    if isinstance(error, PermissionError):
        return "Check the credentials, and that they may list, read, write and delete there"
    if name in ("EndpointConnectionError", "ConnectTimeoutError", "ClientConnectorError", "ServiceRequestError"):
        where = "AWS_ENDPOINT_URL, or `endpoint_url` in `storage_options`" if is_s3 else "the URL"
        return f"Nothing answers there: check {where}"
    if name in ("ReadTimeoutError", "ServerTimeoutError", "ConnectionTimeoutError", "ServiceResponseTimeoutError"):
        return "Requests are taken there, and not answered: look after the store, or run it again later"
    if not is_s3 and http_status(error) in (401, 403):
        return (
            "It refuses access: a signed URL may have expired, for which the recipe takes a new one; or check the "
            "credentials"
        )
    if http_status(error) in _PASSING_STATUSES:
        return "The store is overloaded or down: run it again later, which goes on where this stopped"
    return ""


def http_status(error: BaseException) -> int | None:
    """That of S3's answer, or as the clients of others call it."""
    found = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode")
    for name in ("status", "status_code", "code"):  # aiohttp, Azure's, gcsfs
        found = getattr(error, name, None) if found is None else found
    return found if isinstance(found, int) else None


def error_code(error: BaseException) -> str | None:
    """S3's word for it, of an answer to a HEAD, which has no body, the status; or Azure's."""
    found = _response(error).get("Error", {}).get("Code") or getattr(error, "error_code", None)
    return None if found is None else str(getattr(found, "value", found))


def _response(error: BaseException) -> Mapping[str, Any]:
    """What S3 answered, from an error of its client or one that s3fs translated."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, Mapping):
            return response
    return {}


def _connection_errors() -> tuple[type[BaseException], ...]:
    """What clients raise beside OSErrors when a connection fails or an answer is cut off."""
    found: tuple[type[BaseException], ...] = ()
    if azure := sys.modules.get("azure.core.exceptions"):
        found += (azure.ServiceRequestError, azure.ServiceResponseError)
    try:
        from aiohttp import ClientError

        found += (ClientError,)
        from botocore.exceptions import ChecksumError, ConnectionError, HTTPClientError, IncompleteReadError
        from botocore.parsers import ResponseParserError

        found += (ChecksumError, ConnectionError, HTTPClientError, IncompleteReadError, ResponseParserError)
    except ImportError:
        pass
    return found
