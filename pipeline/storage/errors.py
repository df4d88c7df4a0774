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
"""Options of file systems that are texts, and no secrets."""
HARMLESS_PARAMETERS = frozenset({
    "alt", "dl", "download", "export", "format", "generation", "inline", "lang", "page", "part", "raw", "ref", "rev",
    "revision", "snapshot", "tag", "v", "version",
})
# fmt: on
"""Parameters of queries that say which file is meant, or in what form."""
_PLAIN = re.compile(r"[\w.-]{0,40}")
"""A value that such a parameter may have."""
_CREDENTIAL = re.compile(r"(?i)key|secret|token|password|credential|connection_string|auth|cookie")
_USER_PASSWORD = re.compile(r"(?<=://)([^/\s]+|[^/\s:@]*:(?!\s|\d{1,5}([^\w@]|$))((?!\w+://).)*)@")
"""To the last @: a password may have one, and slashes and blanks, but where a port or a sentence begins."""
_URLS = re.compile(r"\w+://.*")
"""From the first URL of a line on: names may hold blanks and quotes, so that it isn't known where one ends."""
QUERY = r"\?[^=/\s]*="
"""How a query begins. Without a = the ? is one of a pattern, or of a name."""
_QUERY = re.compile(rf"{QUERY}\S*")
_FRAGMENT = re.compile(r"(?<=#)[^\s#?]*=\S*")
"""What a URL says to whom it is shown; elsewhere, as of S3, names may have a #, so that not all is hidden."""
_BEHIND = re.compile(r"[]'\"):;,.}]*$")
"""What a sentence puts behind a URL."""
_HIDDEN = re.compile(r"^\w+://\*\*\*@|[?&#][^=&]*=\*\*\*(&|$)|&\*\*\*(&|$)")
_PARAMETER = re.compile(r"(?<=[?&])[^&]*")
_OF_FRAGMENT = re.compile(r"(?<![^&])[^&]*")


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
    """The URL, or a text with URLs, without user:password@, of its queries without the values of parameters that
    aren't known to be harmless, and of its fragments without those that are called as credentials are."""
    return _URLS.sub(_without_values, _USER_PASSWORD.sub("***@", url))


def _without_values(urls: re.Match[str]) -> str:
    plain = _QUERY.sub(lambda query: _PARAMETER.sub(_hidden, query[0]), urls[0])
    return _FRAGMENT.sub(lambda found: _OF_FRAGMENT.sub(_hidden_in_fragment, found[0]), plain)


HIDDEN = "what may be a credential is hidden in it by ***, so that it leads nowhere; give it whole"


def hides_credentials(url: str) -> bool:
    """Whether the URL is one that was made to be shown, and is no address any more."""
    return bool(_HIDDEN.search(url))


def _hidden(parameter: re.Match[str]) -> str:
    """A parameter of a query as it may be shown, and what a sentence puts behind it."""
    behind = _BEHIND.search(parameter[0])
    shown = parameter[0][: behind.start()] if behind else parameter[0]
    name, equals, value = shown.partition("=")
    if not shown or (name in HARMLESS_PARAMETERS and _PLAIN.fullmatch(value)):
        return parameter[0]
    return (f"{name}=***" if equals else "***") + parameter[0][len(shown) :]


def _hidden_in_fragment(parameter: re.Match[str]) -> str:
    return _hidden(parameter) if may_be_credential(parameter[0].partition("=")[0]) else parameter[0]


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


def told_url(url: str) -> str:
    """The URL less its user and password, and the parameters of its query that may be credentials: to be written down
    where it should still lead there."""
    query = _QUERY.search(url) if "://" in url else None
    if query is None:
        return without_credentials(url)
    harmless = [one[0] for one in _PARAMETER.finditer(url[query.start() :]) if one[0] and _hidden(one) == one[0]]
    return without_credentials(url[: query.start()]) + ("?" + "&".join(harmless) if harmless else "")


def without_credentials(url: str) -> str:
    """The URL less its user, password and query, fit to be written down."""
    url = _USER_PASSWORD.sub("", url)
    scheme, found, rest = url.partition("://")
    if not found:
        return url
    if scheme in ("http", "https"):
        parts = urlsplit(url)
        return urlunsplit((scheme, parts.netloc, parts.path, "", ""))
    query = _QUERY.search(rest)
    return f"{scheme}://{rest[: query.start() if query else None]}"  # elsewhere names may have a ? and a #
