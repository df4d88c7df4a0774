"""Names of objects that a client of S3 takes for something else."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "name", ["a.jpg?versionId=7.jpg", "?versionId=", "shot?versionId=3/a.jpg", "a?v=1#b&c%20d+e.jpg"]
)
def test_a_name_means_itself(place, name):
    """s3fs takes what stands behind `?versionId=` for a version, and would read, write and delete another object."""
    store = place.below("odd")
    other = name.partition("?")[0] or "other"
    assert store.create(other if "/" not in name else "shot", b"another") and store.create(name, b"itself")
    assert not store.create(name, b"once more") and store.read(name) == b"itself"
    store.replace(name, b"replaced")
    assert (store.read(name), store.read_range(name, 2, 4), store.size(name)) == (b"replaced", b"pl", 8)
    assert name in [entry.name for entry in store.list()] and store.exists(name)
    folder, slash, last = name.partition("/")
    if slash:
        below = store.below(folder)
        assert [entry.name for entry in below.list()] == below.children() == [last]
        assert below.read(last) == b"replaced" and below.create("b.jpg", b"") and below.exists("b.jpg")
        below.delete("b.jpg")
        assert [entry.name for entry in store.list(folder)] == [last]
    store.delete(name)
    assert not store.exists(name) and [entry.size for entry in store.list()] == [7]
