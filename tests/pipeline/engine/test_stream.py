"""What reading tasks are told of their work."""

from __future__ import annotations

import json

from tokenloom.pipeline.corpus.corpus import Shard
from tokenloom.pipeline.engine.stream import _works_in, works_as_text
from tokenloom.pipeline.plan.worklist import Work

PHOTOS = Shard("photos-0123456789ab", "/corpus", "photos", "folder", 3, files=[("a.jpg", 1), ("b.jpg", 2)])
OTHERS = Shard("others-0123456789ab", "/corpus", "others.tar", "tar", 9)


def test_a_shard_is_told_once_for_all_its_pieces_that_follow_each_other():
    works = [
        Work(PHOTOS, 0, 1, ("rgb",), ("depth",), (("depth", 0, 2),)),
        Work(PHOTOS, 1, None, ("rgb", "depth")),
        Work(OTHERS, 512, None, ("rgb",), keys={"rgb": ("a",)}),
    ]
    text = works_as_text(works)
    assert text.count("a.jpg") == 1
    found = [Work(shard, **piece) for shard, piece in _works_in(text)]
    assert [one.shard.id for one in found] == [one.shard.id for one in works]
    assert json.loads(works_as_text(found)) == json.loads(text)
    assert [*map(tuple, found[0].shard.files or ())] == PHOTOS.files
    assert [(one.start, one.stop, one.todo, one.kept) for one in found] == [
        (one.start, one.stop, one.todo, one.kept) for one in works
    ]


def test_what_pieces_lack_is_told_once_for_all_that_are_alike():
    works = [Work(OTHERS, n, n + 1, ("depth", "caption") if n % 2 else ("depth",), ("rgb",)) for n in range(100)]
    text = works_as_text(works)
    assert (text.count("caption"), text.count("rgb")) == (1, 2)
    assert [(one["start"], one["todo"]) for _, one in _works_in(text)] == [(one.start, one.todo) for one in works]
