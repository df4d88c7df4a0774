"""Workers that wait for what no node has are told, those that only wait for their turn are not."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from tokenloom.pipeline.cluster import waiting
from tokenloom.pipeline.cluster.size import Node
from tokenloom.pipeline.cluster.turn import Turn, turn_of
from tokenloom.pipeline.cluster.waiting import Cluster, Pool, explained, waits_told, without_room

NODES = [Node(2, 0, 8 * 2**30), Node(4, 1, 4 * 2**30)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster is taken to be there, and looked at quickly."""
    here = SimpleNamespace(gcs_address="nowhere", get_job_id=lambda: "01")
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.get_runtime_context", lambda: here)
    monkeypatch.setattr(waiting, "_EVERY", 0.01)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"CPU": 4.0}, False),
        ({"CPU": 4.5}, True),
        ({"CPU": 0.5, "GPU": 1.0}, False),
        ({"GPU": 2.0}, True),
        ({"CPU": 1.0, "memory": 6.0 * 2**30}, False),
        ({"GPU": 1.0, "memory": 6.0 * 2**30}, True),
    ],
)
def test_a_worker_needs_one_node_that_has_it_all(asked, told):
    assert bool(without_room({"depth": Pool(asked)}, NODES)) is told


@pytest.mark.parametrize(
    ("pools", "told"),
    [
        ({"a": Pool({"CPU": 2.0}), "b": Pool({"CPU": 4.0})}, set()),
        ({"a": Pool({"CPU": 3.0}), "b": Pool({"CPU": 3.0})}, {"a", "b"}),  # either alone has a node
        ({"a": Pool({"CPU": 2.0}, least=3)}, set()),
        ({"a": Pool({"CPU": 2.0}, least=4)}, {"a"}),
        ({"a": Pool({"GPU": 0.5}), "b": Pool({"GPU": 1.0})}, {"a", "b"}),
        ({"a": Pool({"CPU": 1.0, "memory": 5.0 * 2**30}), "b": Pool({"memory": 4.0 * 2**30})}, set()),
        ({"a": Pool({"CPU": 1.0, "memory": 5.0 * 2**30}), "b": Pool({"memory": 5.0 * 2**30})}, {"a", "b"}),
        ({"a": Pool({"GPU": 2.0}), "b": Pool({"CPU": 4.0}), "c": Pool({"CPU": 1.0})}, {"a"}),
    ],
)
def test_the_least_workers_of_all_need_room_together(pools, told):
    assert without_room(pools, NODES).keys() == told
    assert all("end this run and start it again" in reason for reason in without_room(pools, NODES).values())


def test_what_is_asked_for_and_what_there_is_are_told():
    said = explained("depth, normal", {"CPU": 1.0, "GPU": 2.0}, NODES)
    assert said == (
        "a worker for depth, normal asks for 1 CPUs, 2 GPUs; "
        "nodes have 2 CPUs, 0 GPUs and 8.0 GiB, 4 CPUs, 1 GPUs and 4.0 GiB"
    )


def test_a_worker_is_told_once_until_it_has_a_node(quick, monkeypatch):
    """Ray's answers, one after another: for a third of a second each the worker waits, has a node, and waits again."""
    monkeypatch.setattr(waiting, "PATIENCE", 0.03)
    lost, there = Cluster([{"GPU": 1.0}], [Node(8)]), Cluster([], [Node(8, 1)])
    answers = iter([lost] * 8 + [there] + [lost] * 8)
    over, told = threading.Event(), []

    def cluster(head: str):
        answer = next(answers, None)
        if answer is None:
            over.set()
            return there
        return answer

    monkeypatch.setattr(waiting, "_cluster", cluster)
    with waits_told({"depth": Pool({"GPU": 1.0}), "rgb": Pool({"CPU": 1.0})}, told.append):
        assert over.wait(30)
    assert len(told) == 2
    assert all(text.startswith("waiting for a node: a worker for depth asks for 0 CPUs, 1 GPUs") for text in told)


def test_what_another_job_waits_for_is_not_taken_for_ones_own(quick, monkeypatch):
    """No node has a GPU, for which workers of `depth` ask that have all started by then."""
    monkeypatch.setattr(waiting, "PATIENCE", 0.03)
    over, told, asked = threading.Event(), [], iter(range(9))

    def cluster(head: str):
        over.set() if next(asked, None) is None else None
        return Cluster([{"GPU": 2.0}, {"CPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}, {"GPU": 0.5}], [Node(8)])

    monkeypatch.setattr(waiting, "_cluster", cluster)
    with waits_told({"depth": Pool({"GPU": 1.0}), "rgb": Pool({"CPU": 0.5})}, told.append):
        assert over.wait(30)
    assert not told


def test_a_node_that_is_about_to_go_is_told_once(quick, monkeypatch):
    over, told, asked = threading.Event(), [], iter(range(9))

    def cluster(head: str):
        over.set() if next(asked, None) is None else None
        return Cluster([], [Node(8)], {"a": Node(2, 1, 2**30)})

    monkeypatch.setattr(waiting, "_cluster", cluster)
    with waits_told({"rgb": Pool({"CPU": 1.0})}, told.append):
        assert over.wait(30)
    assert told == ["a node of 2 CPUs, 1 GPUs and 1.0 GiB is about to go: its work goes on elsewhere"]


def test_what_other_jobs_have_is_told_once_while_nothing_is_done(quick, monkeypatch):
    """And not where the run has workers that are at work, while others wait for their turn."""
    monkeypatch.setattr(waiting, "_TURN", 0.03)
    over, told, asked = threading.Event(), [], iter(range(9))

    def cluster(head: str):
        over.set() if next(asked, None) is None else None
        return Cluster([{"CPU": 1.0}], [Node(2)])

    monkeypatch.setattr(waiting, "_cluster", cluster)
    for turn in (Turn(False, ["tokenloom-a-1"]), Turn(True, ["tokenloom-a-1"])):
        over, asked = threading.Event(), iter(range(9))
        monkeypatch.setattr(waiting, "turn_of", lambda job, head, turn=turn: turn)
        with waits_told({"rgb": Pool({"CPU": 1.0})}, told.append):
            assert over.wait(30)
    assert told == [
        "waiting for 1 CPUs, 0 GPUs: what the cluster has is in use by other jobs (tokenloom-a-1)",
    ]


def test_whose_turn_it_is_ray_tells(ray_session):
    import ray

    class Worker:
        def here(self) -> None:
            pass

    worker: Any = ray.remote(Worker)
    holds = worker.options(num_cpus=2).remote()
    ray.get(holds.here.remote())
    waits = worker.options(num_cpus=1).remote()
    here = ray.get_runtime_context()
    job = here.get_job_id()
    assert turn_of(job, here.gcs_address) == Turn(False, [])
    assert job in turn_of("ff" * 4, here.gcs_address).others
    ray.kill(holds)
    ray.kill(waits)
