"""Names of objects that a client takes for something else."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("name", ["a.jpg?versionId=7.jpg", "?versionId=", "a?v=1#b&c%20d+e.jpg"])
def test_a_name_means_itself(place, name):
    """s3fs takes what stands behind `?versionId=` for a version, and would read, write and delete another object."""
    store = place.below("odd")
    store.replace(name.partition("?")[0] or "other", b"another")
    assert store.create(name, b"itself")
    assert not store.create(name, b"once more")
    assert store.read(name) == b"itself"
    store.replace(name, b"replaced")
    assert (store.read(name), store.read_range(name, 2, 4), store.size(name)) == (b"replaced", b"pl", 8)
    assert {(entry.name, entry.size) for entry in store.list()} >= {(name, 8)}
    assert store.exists(name)
    store.delete(name)
    assert not store.exists(name)
    assert [entry.size for entry in store.list()] == [7]


def test_a_folder_may_have_such_a_name(place):
    below = place.below("shot?versionId=3")
    assert below.create("a.jpg", b"itself")
    assert [entry.name for entry in place.list("shot?versionId=3")] == below.children() == ["a.jpg"]
    assert place.read("shot?versionId=3/a.jpg") == below.read("a.jpg") == b"itself"
    assert place.list("shot") == []
