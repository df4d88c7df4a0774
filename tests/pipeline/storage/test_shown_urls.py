"""URLs as they are shown and written down: without credentials."""

from __future__ import annotations

import pytest
from tokenloom.pipeline.storage.errors import hides_credentials, redact, told_url, without_credentials
from tokenloom.pipeline.storage.store import Store


def test_urls_are_shown_without_credentials():
    url = redact("ftp://me:word@host/x?X-Amz-Signature=abc&sig=d&page=2&version=a/b&raw=1#k=v")
    assert url == "ftp://***@host/x?X-Amz-Signature=***&sig=***&page=2&version=***&raw=***"
    assert redact("https://host/x?download=true: gone; see https://host/y?v=1.2, too") == (
        "https://host/x?download=true: gone; see https://host/y?v=1.2, too"
    )
    assert told_url("https://me:word@host/x?dl=1&sig=d&raw=1") == "https://host/x?dl=1&raw=1"
    assert told_url("https://host/x?sig=d") == "https://host/x"
    assert without_credentials("s3://bucket/a#1/0?.tar") == "s3://bucket/a#1/0?.tar"  # a name and a pattern
    assert redact("memory://R&D=2024/out") == "memory://R&D=2024/out"  # no query: a path
    assert repr(Store("sftp://me:word@host/x")) == "Store('sftp://***@host/x')"


@pytest.mark.parametrize(
    "text",
    [
        "--address http://head:8265: ask me@host",
        "s3://bucket/a:b@c.jpg",
        "s3://bucket/lr#a=0.1&b=2/x",
        "https://host:8443/a/@b",
        "s3://bucket: could not list it (PermissionError: me@host)",
        "ray://head:10001 and me@host",
    ],
)
def test_what_looks_like_a_credential_is_shown(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    "url",
    [
        "https://host/it's.tar?X-Amz-Signature=SECRET",
        'https://host/a"b.tar?sig=SECRET&raw=1',
        "https://host/my images/a.tar?sig=SECRET",
        "https://host/a.tar?&sig=SECRET",
        "https://host/a.tar?f[x]=1&sig=SECRET",
        "https://host/a.tar?raw=1&SECRET",
        "https://host/a.tar?raw=1&sig=a'SECRET",
        "ftp://me:p@SECRET@host/x",
        "ftp://me:it'SECRET@host/x",
        "ftp://me:my SECRET@host/x",
        "s3://AKIA:ab/SECRET@bucket/x",
        "https://host/a.tar#access_token=SECRET",
        "https://host/a.tar#state=1&token=SECRET",
        "https://host/a.tar?raw=1#token=SECRET",
    ],
)
def test_odd_urls_hide_credentials_too(url):
    for text in (redact(url), redact(f"403, url='{url}'), twice"), told_url(url), without_credentials(url)):
        assert "SECRET" not in text
    assert redact(f"403, url='{url}'), twice").endswith("'), twice")
    assert hides_credentials(redact(url))
