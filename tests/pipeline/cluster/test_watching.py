"""A cluster whose nodes go while a run begins, or while it is at work."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenloom.pipeline.cluster import head
from tokenloom.pipeline.cluster.alike import check_nodes
from tokenloom.pipeline.cluster.head import head_watched
from tokenloom.pipeline.cluster.nodes import NodeError, NodeHere, answers
from tokenloom.pipeline.cluster.session import EngineError


def test_a_node_that_has_died_since_it_was_listed_lacks_no_path(ray_session, monkeypatch, tmp_path: Path):
    import ray

    (here,) = [node for node in ray.nodes() if node["Alive"]]
    monkeypatch.setattr(ray, "nodes", lambda: [{**here, "NodeID": "0f" * 28}, here])
    check_nodes([str(tmp_path)])
    with pytest.raises(EngineError, match="gone: not seen by"):
        check_nodes([str(tmp_path / "gone")])


def test_a_node_that_falls_silent_while_it_is_asked_is_gone_once_ray_takes_it_for_dead(ray_session):
    import ray

    never = ray.remote(resources={"nowhere": 1})(lambda: None).remote()
    node, began = NodeHere("0f" * 28, "silent"), time.monotonic()
    error = answers({node: never}, seconds=60.0)[node]
    ray.cancel(never)
    assert error == NodeError("it died", gone=True)
    assert time.monotonic() - began < 20


def test_a_head_that_does_not_answer_is_told_of_once_and_again_when_it_does(monkeypatch, capfd):
    monkeypatch.setattr(head, "_PERIOD", 0.05)
    monkeypatch.setattr(head, "_PATIENCE", 0.2)
    heard = ""

    def hears(words: str) -> bool:
        nonlocal heard
        heard += capfd.readouterr().err
        return words in heard

    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    with head_watched(f"127.0.0.1:{port}"):
        time.sleep(0.4)
        assert not hears("tokenloom")
        server.close()
        wait_until(lambda: hears(f"tokenloom: the cluster's head, 127.0.0.1:{port}, doesn't answer"))
        with socket.create_server(("127.0.0.1", port)):
            wait_until(lambda: hears("answers again"))
    assert heard.count("\n") == 2


def wait_until(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)
