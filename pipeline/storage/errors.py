"""Errors of storage, and what must never stand in a message: credentials."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_CREDENTIAL_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_HARMLESS_OPTIONS = {"endpoint_url", "region_name", "region", "signature_version", "addressing_style", "protocol"}
_CREDENTIAL = re.compile(r"(?i)key|secret|token|password|credential")
_USER_PASSWORD = re.compile(r"(?<=://)[^/@\s'\"]+@")
_SIGNED_QUERY = re.compile(r"(?i)(?<=[?&])((?:x-amz-|x-goog-)[\w-]+|sig|signature|token|key|password)=[^&\s'\"]+")


class StorageError(OSError):
    """Storage that can't be used: what is wrong, with which URL, and the way out."""

    def __init__(self, what: str, url: str, way_out: str = "") -> None:
        super().__init__(f"{url}: {what}" + (f". {way_out}." if way_out else ""))
        self.what, self.url, self.way_out = what, url, way_out

    def __reduce__(self) -> tuple[Any, ...]:
        return StorageError, (self.what, self.url, self.way_out)


def redact(url: str) -> str:
    """The URL, or a text with URLs, without user:password@ and without the keys and signatures in queries."""
    return _SIGNED_QUERY.sub(r"\1=***", _USER_PASSWORD.sub("***@", url))


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
        elif isinstance(value, str) and name not in _HARMLESS_OPTIONS:
            yield value


def options_without_credentials(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, to any depth, less those whose names say that they are credentials."""
    return {
        name: options_without_credentials(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if not _CREDENTIAL.search(name)
    }


def without_credentials(url: str) -> str:
    """The URL less its user, password and query, fit to be written down."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
