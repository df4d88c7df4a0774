"""Errors of storage, and what must never stand in a message: credentials."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_CREDENTIAL_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# fmt: off
HARMLESS_OPTIONS = frozenset({
    "endpoint_url", "region_name", "region", "location", "signature_version",
    "addressing_style", "protocol", "profile", "host", "verify",
    "mode", "request_checksum_calculation", "response_checksum_validation", "requester_pays", "http",
    "https", "cache_type", "account_name", "account_host", "tenant_id",
    "project", "access", "consistency", "RequestPayer", "ACL",
    "ServerSideEncryption", "SSEKMSKeyId", "StorageClass",
})
# fmt: on
"""Options of file systems that are texts, and no secrets."""
_CREDENTIAL = re.compile(r"(?i)key|secret|token|password|credential|connection_string|auth|cookie")
_USER_PASSWORD = re.compile(r"(?<=://)[^/@\s'\"]+@")
_URL = re.compile(r"\w+://[^\s'\"]+")
_QUERY = re.compile(r"\?[\w.~%-]+=.*")
_VALUE = re.compile(r"=[^&]+")


class StorageError(OSError):
    """Storage that can't be used: what is wrong, with which URL, and the way out."""

    def __init__(self, what: str, url: str, way_out: str = "") -> None:
        super().__init__(f"{url}: {what}" + (f". {way_out}." if way_out else ""))
        self.what, self.url, self.way_out = what, url, way_out

    def __reduce__(self) -> tuple[Any, ...]:
        return StorageError, (self.what, self.url, self.way_out)


class UrlError(ValueError):
    """What is neither a URL nor a path; the message says what may be meant."""


def redact(url: str) -> str:
    """The URL, or a text with URLs, without user:password@ and without the values in queries: any may be a key."""
    return _URL.sub(
        lambda url: _QUERY.sub(lambda query: _VALUE.sub("=***", query[0]), url[0]), _USER_PASSWORD.sub("***@", url)
    )


def without_secrets(text: str, options: Mapping[str, Any]) -> str:
    """A file system's message, redacted, and also without the values of options and of AWS's variables."""
    secrets = {os.environ.get(name, "") for name in _CREDENTIAL_VARIABLES} | set(_secret_values(options))
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) > 3:
            text = text.replace(secret, "***")
    return redact(text)


def _secret_values(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _secret_values(value)
        elif name not in HARMLESS_OPTIONS:
            yield from (one for one in (value if isinstance(value, list | tuple) else [value]) if isinstance(one, str))


def may_be_credential(name: str) -> bool:
    """Whether an option's name says that it is one."""
    return bool(_CREDENTIAL.search(name))


def options_without_credentials(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, to any depth, less those whose names say that they are credentials."""
    return {
        name: options_without_credentials(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if not may_be_credential(name)
    }


def without_credentials(url: str) -> str:
    """The URL less its user, password and query, fit to be written down."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
