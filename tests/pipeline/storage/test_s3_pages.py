"""Pages of S3's listings that are read quickly tell what its client tells of them."""

from __future__ import annotations

import pytest
from tokenloom.pipeline.storage import objects
from tokenloom.pipeline.storage.s3_pages import _take_objects, objects_of, read_quickly
from tokenloom.pipeline.storage.store import Store

NAMES = ["a", "below/b", "two words", "plus+sign", "100%", "ümlaut", "<tag>&'\"", "=?:@", "b" * 200]
PAGE = (
    b"<ListBucketResult><Contents><Key>%s</Key><Size>1</Size><LastModified>%s</LastModified>%s</Contents>"
    b"</ListBucketResult>"
)
TAG, TIME = b"<ETag>t</ETag>", b"2026-11-27T10:00:00Z"


@pytest.mark.s3
def test_they_are_told_as_the_client_tells_them(s3_url, monkeypatch):
    import s3fs

    store = Store(s3_url)
    for name in NAMES:
        store.create(name, name.encode())
    quick = store.list()
    assert sorted(NAMES) == [entry.name for entry in quick]
    assert store.children() == sorted({name.partition("/")[0] + "/" * ("/" in name) for name in NAMES})
    monkeypatch.setattr(objects, "read_quickly", lambda client: None)
    s3fs.S3FileSystem.clear_instance_cache()
    assert Store(s3_url).list() == quick


@pytest.mark.parametrize(
    "page",
    [
        PAGE % (b"a", b"yesterday", TAG),
        PAGE % (b"a&#13;", TIME, TAG),
        PAGE % (b"a", TIME, b""),
        b"<Key>a</Key>",
        (PAGE % (b"a", TIME, TAG)).replace(b"</List", b"<CommonPrefixes/><Contents></Contents></List"),
    ],
)
def test_a_page_that_is_written_otherwise_is_left_to_the_client(page):
    answer, taken = {"status_code": 200, "body": page}, {}
    _take_objects(response_dict=answer, customized_response_dict=taken)
    assert (answer["body"], taken) == (page, {})


def test_of_a_page_that_is_taken_the_rest_is_left():
    answer, taken = {"status_code": 200, "body": PAGE % (b"&lt;a&quot;", TIME, TAG)}, {}
    _take_objects(response_dict=answer, customized_response_dict=taken)
    assert objects_of(taken) == [('<a"', 1, 1795773600, "t")]
    assert answer["body"] == b"<ListBucketResult></ListBucketResult>"


def test_they_are_taken_before_the_client_parses_the_page():
    import botocore.session

    client = botocore.session.get_session().create_client("s3", region_name="us-east-1")
    read_quickly(client)
    answer, model = {"status_code": 200, "body": PAGE % (b"a", TIME, TAG)}, client.meta.service_model
    called = client.meta.events.emit(
        "before-parse.s3.ListObjectsV2",
        operation_model=model.operation_model("ListObjectsV2"),
        response_dict=answer,
        customized_response_dict={},
    )
    assert called[0][0] is _take_objects
