"""What reading tasks are told of their work, and where they are."""

from __future__ import annotations

import json
import traceback

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from tokenloom.pipeline.cluster.session import EngineError
from tokenloom.pipeline.corpus.corpus import Shard
from tokenloom.pipeline.engine import stream
from tokenloom.pipeline.engine.stream import _works_in, cause, works_as_text
from tokenloom.pipeline.plan.stages import Stage
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


@pytest.mark.parametrize(
    ("fixed", "most", "there", "turns"),
    [
        ((), 9, ["a", "b"], ["a", "b", "a"]),
        ((), 9, [], [None, None, None]),
        (("c",), 9, ["a", "c"], ["a", "c", "a"]),
        (("c", "d"), 2, ["a", "c", "d"], ["c", "d", "c"]),
        (("c", "d"), 2, ["a", "b"], ["a", "b", "a"]),
    ],
)
def test_units_are_read_where_the_first_stage_may_have_workers(monkeypatch, fixed, most, there, turns):
    """Where it has them, if it may have no more than the least, whose nodes it was told. A letter is a node."""
    asked = []
    ids = [letter * 56 for letter in there]
    monkeypatch.setattr(stream, "nodes_for", lambda request, head: asked.append(request) or ids)
    nodes = tuple(letter * 56 for letter in fixed)
    place = stream._beside(Stage("", (), 1, 0.5, 0, len(fixed) or 1, most, nodes=nodes), "")
    told = [place().get("scheduling_strategy") for _ in turns]
    assert [one and one.node_id[0] for one in told] == turns
    assert all(one is None or one.soft for one in told)
    assert all(request == {"CPU": 1, "GPU": 0.5} for request in asked)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (EngineError("no GPU is there:\n  get one\nor File a claim"), "no GPU is there:\n  get one\nor File a claim"),
        (OSError(28, "No space left on device", "/w/model"), "OSError: [Errno 28] No space left on device: '/w/model'"),
        (AssertionError(), "AssertionError: no message"),
        (json.JSONDecodeError("not JSON", "{", 1), "JSONDecodeError: not JSON: line 1 column 2 (char 1)"),
    ],
)
def test_of_a_worker_that_cannot_be_made_what_it_raised_is_told(error: Exception, told: str):
    """Ray keeps the text of a traceback alone."""
    try:
        try:
            raise KeyError("before")
        except KeyError as before:
            raise error from before
    except Exception:
        text = traceback.format_exc()
    assert cause(ActorDiedError(RayTaskError("MapWorker.__init__", text, error))) == told
