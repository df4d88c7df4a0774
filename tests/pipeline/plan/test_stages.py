"""Shares of GPUs: whole GPUs or one GPU's n-th part, and room for all."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenloom.pipeline.cluster.size import ClusterSize, Node
from tokenloom.pipeline.plan.stages import gpu_shares, stages
from tokenloom.pipeline.plan.steps import step_graph
from weaving import odd, recipe

WISHES = st.lists(st.tuples(st.one_of(st.just(0.0), st.floats(0.01, 3.5)), st.integers(1, 3)), min_size=1, max_size=6)
NODES = st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any)


def is_dividing(share: float) -> bool:
    return share == 0 or share == int(share) or abs(1 / share - round(1 / share)) < 1e-9


def packs(workers: list[float], nodes: list[int]) -> bool:
    """By trying every place for every worker, GPU by GPU: an independent answer for few of them."""

    def place(rest: list[float], left: list[list[float]]) -> bool:
        if not rest:
            return True
        share, others = rest[0], rest[1:]
        for node in range(len(left)):
            count, part = max(1, int(share)), min(share, 1.0)
            for chosen in itertools.combinations(range(len(left[node])), count):
                if all(left[node][gpu] >= part - 1e-6 for gpu in chosen):
                    tried = [list(gpus) for gpus in left]
                    for gpu in chosen:
                        tried[node][gpu] -= part
                    if place(others, tried):
                        return True
        return False

    return place(sorted(workers, reverse=True), [[1.0] * count for count in nodes])


@given(WISHES, NODES)
def test_shares_divide_gpus_and_leave_room_for_all(wishes, nodes):
    shares = gpu_shares(wishes, nodes)
    assert all(map(is_dividing, shares))
    assert [share == 0 for share in shares] == [wish == 0 for wish, _ in wishes]
    assert all(share <= max(1.0, -(-wish // 1)) for share, (wish, _) in zip(shares, wishes, strict=True))
    workers = [share for share, (_, count) in zip(shares, wishes, strict=True) for _ in range(count) if share]
    if len(workers) <= 6:
        assert packs(workers, nodes)


@pytest.mark.parametrize(
    ("wishes", "nodes", "shares"),
    [
        ([0.6, 0.6, 0.6], [2], [0.5, 0.5, 1.0]),
        ([0.25, 0.25], [1], [0.25, 0.25]),
        ([0.3], [1], [1 / 3]),
        ([0.0, 0.5], [1], [0.0, 0.5]),
        ([2.0], [1, 1], [1.0]),
        ([1.0, 0.5, 0.5, 0.25], [1], [0.25, 0.25, 0.25, 0.25]),
    ],
)
def test_shares_that_are_known(wishes, nodes, shares):
    assert sorted(gpu_shares([(wish, 1) for wish in wishes], nodes)) == pytest.approx(sorted(shares))


def test_shares_divide_a_gpu_that_the_autoscaler_has_yet_to_bring():
    wish = {"stages": [{"modalities": ["mean_colour"], "num_gpus": 0.3, "max_workers": 3}]}
    made = recipe("photos", "out", {"mean_colour": odd("MeanColour")}, resources=wish)
    (stage,) = stages(step_graph(made), made, ClusterSize((Node(8),)))
    assert (stage.num_gpus, stage.max_workers) == (pytest.approx(1 / 3), 3)
