"""What looks like a URL and isn't: it would be taken for a folder, on the disk of each machine."""

from __future__ import annotations

import pytest
from tokenloom.pipeline.storage.errors import UrlError
from tokenloom.pipeline.storage.store import Store, url_problem


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("s3:/bucket/x", "s3://bucket/x"),
        ("s3//bucket/x", "s3://bucket/x"),
        ("gs:/bucket", "gs://bucket"),
        ("https:/host/x", "https://host/x"),
        ("file:/tmp/x", "file:///tmp/x"),
        ("s3:/key:word@bucket/x", "s3://***@bucket/x"),
    ],
)
def test_a_url_that_lost_a_character_is_no_folder(url, meant):
    assert f": a URL has :// in it: write {meant}, or ./" in (url_problem(url) or "")
    assert "word" not in (url_problem(url) or "")
    with pytest.raises(UrlError, match="a URL has :// in it"):
        Store(url)


def test_paths_that_look_like_urls_are_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()  # fsspec has a data://, too
    for path in ("./s3:/x", "data//x", "runs//x", "a:b/c", "/s3:/x"):
        assert url_problem(path) is None
        assert Store(path).is_local
