"""What workers get of the cluster: whole GPUs or one GPU's n-th part, and room on its nodes for those of all stages."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from in_process import weave
from tokenloom.pipeline.cluster.size import ClusterSize, Node
from tokenloom.pipeline.plan.recipe import RecipeError
from tokenloom.pipeline.plan.stages import UNBOUNDED, Stage, have_room, stages, that_fit, workers_at_once
from tokenloom.pipeline.plan.steps import step_graph
from weaving import odd, recipe

WISHES = st.lists(st.tuples(st.one_of(st.just(0.0), st.floats(0.01, 3.5)), st.integers(1, 3)), min_size=1, max_size=6)
NODES = st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any)
AMOUNTS = st.tuples(st.integers(1, 6), st.integers(1, 5))
"""CPUs and GiB."""


def is_dividing(share: float) -> bool:
    return share == 0 or share == int(share) or abs(1 / share - round(1 / share)) < 1e-9


def gpu_shares(wishes: list[tuple[float, int]], nodes: list[int]) -> list[float]:
    """What is left of (share, workers) on nodes with so many GPUs."""
    groups = [Stage("", (), 0, share, 0, count, count) for share, count in wishes]
    return [stage.num_gpus for stage in that_fit(groups, ClusterSize(tuple(Node(0, gpus) for gpus in nodes)))]


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


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=6), NODES)
@example([3.0, 2.0, 2.0, 2.0], [5, 4])
@example([0.5, 0.5, 1.0], [1, 1])
def test_what_fits_as_asked_is_not_cut(wishes, nodes):
    """In whatever order it is that it fits."""
    left = gpu_shares([(wish, 1) for wish in wishes], nodes)
    assert (left == wishes) == packs(wishes, nodes)


def start_as_ray_does(workers: list[tuple[float, str]], nodes: list[int]) -> bool:
    """Whether workers of (share, node) all start, in this order: each on the fullest GPUs of its node with room."""
    left = {str(node): [1.0] * gpus for node, gpus in enumerate(nodes)}
    for share, node in workers:
        part = min(share, 1.0)
        fullest = sorted((rest, gpu) for gpu, rest in enumerate(left[node]) if rest >= part - 1e-6)
        if len(fullest) < max(1, share):
            return False
        for _, gpu in fullest[: max(1, int(share))]:
            left[node][gpu] -= part
    return True


@given(WISHES, NODES, st.randoms(use_true_random=False))
@example([(1 / 3, 1), (0.5, 1), (0.5, 1), (1 / 3, 1), (1 / 3, 1)], [2, 0], random.Random(0))
@example([(0.25, 1), (0.25, 1), (0.5, 1), (0.25, 1), (0.25, 1), (0.25, 1), (0.5, 1)], [2, 1], random.Random(0))
def test_all_find_room_in_whatever_order_they_start(wishes, nodes, chance):
    groups = [Stage("", (), 0, share, 0, count, count) for share, count in wishes]
    size = ClusterSize(tuple(Node(0, gpus, id=str(index)) for index, gpus in enumerate((*nodes, 0))))
    workers = [(one.num_gpus, node) for one in that_fit(groups, size) for node in one.nodes if one.num_gpus]
    for _ in range(4):
        assert start_as_ray_does(workers, nodes)
        chance.shuffle(workers)


@given(st.lists(AMOUNTS, min_size=1, max_size=4), st.lists(AMOUNTS, min_size=1, max_size=3))
def test_cpus_and_memory_that_fit_as_asked_are_not_cut(demands, nodes):
    size = ClusterSize(tuple(Node(cpus, 0, memory * 2**30) for cpus, memory in nodes))
    groups = [Stage("", (), cpus, 0, memory * 2**30, 1, 1) for cpus, memory in demands]
    left = [stage.demand for stage in that_fit(groups, size)]
    assert (left == [stage.demand for stage in groups]) == finds_room(groups, size)


@pytest.mark.parametrize(
    ("demands", "nodes", "places"),
    [
        ([(1, 0.5), (1, 0.5), (1, 1)], [(2, 1), (2, 1)], "aab"),
        ([(1, 1), (1, 0.5), (1, 1), (1, 0.5)], [(2, 1), (3, 2)], "abbb"),
        ([(1, 0), (1, 0), (2, 0)], [(2, 0), (2, 0)], "aab"),
        ([(2, 0), (1, 1)], [(3, 1), (4, 0)], "ab"),
    ],
)
def test_workers_are_told_the_nodes_on_which_all_find_room(demands, nodes, places):
    """Of the first three Ray puts a half on either node, and the whole one then waits for ever; so it does with the
    second (both seen on 2.60)."""
    size = ClusterSize(tuple(Node(*node, id=str(index)) for index, node in enumerate(nodes)))
    groups = [Stage("", (), cpus, gpus, 0, 1, 1) for cpus, gpus in demands]
    told = [node for stage in that_fit(groups, size) for node in stage.nodes]
    letters = dict(zip(dict.fromkeys(told), "ab", strict=True))
    assert "".join(map(letters.__getitem__, told)) == places


def test_workers_that_wait_for_the_autoscaler_are_told_no_node():
    size = ClusterSize((Node(2, id="a"), Node(0.5, id="b")), scales=True)
    found = that_fit([Stage("", (), 1, 0.5, 0, 1, 1), Stage("", (), 1, 0, 0, 1, 1)], size)
    assert [stage.nodes for stage in found] == [(), ("a",)]


def test_workers_on_the_only_node_are_told_none():
    (stage,) = that_fit([Stage("", (), 1, 0.5, 0, 2, 2)], ClusterSize((Node(2, 1, id="a"),)))
    assert stage.nodes == ()


@pytest.mark.parametrize(("share", "gpus", "most"), [(0.5, [1, 2], 6), (2, [3, 3], 2), (1, [4], 4), (0.3, [1, 0], 3)])
def test_a_stage_on_gpus_has_no_more_workers_than_they_hold(share, gpus, most):
    size = ClusterSize(tuple(Node(8, count) for count in gpus))
    (stage,) = that_fit([Stage("", (), 1, share, 0, 1, 100)], size)
    assert stage.max_workers == most


@pytest.mark.parametrize(
    ("demands", "seconds", "nodes", "counts"),
    [
        ([(1, 1, 1, 99), (1, 0, 1, 8)], [10, 4], [(8, 1)], [1, 1]),
        ([(1, 0.5, 1, 99), (1, 0, 1, 8)], [10, 10], [(8, 1)], [2, 2]),
        ([(1, 0, 1, 5)], [10], [(2, 0)], [2]),
        ([(1, 0, 1, 8), (1, 0, 1, 8)], [2, 6], [(8, 0)], [2, 6]),
        ([(1, 0, 3, 4), (1, 0, 1, 2)], [9, 1], [(8, 0)], [4, 1]),
        ([(2, 0, 1, 8)], [9], [(3, 0), (3, 0)], [2]),
        ([(1, 0, 1, 8), (1, 1, 1, 99)], [9, 0], [(2, 1), (2, 0)], [3, 1]),
        ([(1, 0, 1, 7)], [9], [(0, 0)], [7]),
        ([(1, 0, 2, UNBOUNDED)], [9], [(0, 0)], [2]),
        ([(1, 0, 2, UNBOUNDED)], [9], [(3, 0)], [3]),
    ],
)
def test_workers_at_once_are_those_that_have_room(demands, seconds, nodes, counts):
    """Of (CPUs, GPUs, least, most) on nodes of CPUs and GPUs; an autoscaler brings what no node has."""
    size = ClusterSize(tuple(Node(*node) for node in nodes), scales=True)
    groups = that_fit([Stage("", (), cpus, gpus, 0, *bounds) for cpus, gpus, *bounds in demands], size)
    assert workers_at_once(groups, seconds, size) == counts


def test_shares_divide_a_gpu_that_the_autoscaler_has_yet_to_bring():
    wish = {"stages": [{"modalities": ["mean_colour"], "num_gpus": 0.3, "max_workers": 3}]}
    made = recipe("photos", "out", {"mean_colour": odd("MeanColour")}, resources=wish)
    (stage,) = stages(step_graph(made), made, ClusterSize((Node(8),), scales=True))
    assert (stage.num_gpus, stage.max_workers) == (pytest.approx(1 / 3), 3)


@pytest.mark.parametrize(
    ("wish", "nodes"),
    [({"num_gpus": 1}, [Node(8)]), ({"num_gpus": 2}, [Node(8, 1)]), ({"num_cpus": 4}, [Node(2), Node(2)])],
)
def test_what_no_node_has_waits_for_an_autoscaler_and_is_refused_without(wish, nodes):
    size = ClusterSize(tuple(nodes), scales=True)
    found = planned(size, {"modalities": ["canny_edge"], **wish})
    assert not have_room(found, size)
    assert have_room(found, ClusterSize((*nodes, Node(8, 2)), scales=True))
    (own,) = (stage for stage in found if stage.name == "canny_edge")
    assert {name: getattr(own, name) for name in wish} == wish
    assert own.nodes == ()
    with pytest.raises(RecipeError, match="run on a larger cluster"):
        planned(ClusterSize(tuple(nodes)), {"modalities": ["canny_edge"], **wish})


def test_a_cluster_that_others_may_join_bounds_no_pool():
    here, joined = (planned(ClusterSize((Node(4, 2),), grows), {"modalities": ["rgb"]}) for grows in (False, True))
    assert {stage.max_workers for stage in here} == {4}
    assert {stage.max_workers for stage in joined} == {UNBOUNDED}
    assert {stage.max_workers for stage in planned(ClusterSize((Node(4),), True), workers=3)} == {3}


def planned(size: ClusterSize, *wishes: dict[str, Any], **more: Any) -> list[Stage]:
    """Of three modalities; a wish is of one of them."""
    modalities = {"mean_colour": odd("MeanColour"), "canny_edge": {}, "rgb": {}}
    made = recipe("photos", "out", modalities, resources={"stages": list(wishes), **more})
    return stages(step_graph(made), made, size)


def finds_room(found: list[Stage], size: ClusterSize) -> bool:
    """By trying every node for every worker of stages on CPUs."""
    workers = [stage for stage in found for _ in range(stage.min_workers)]
    return any(
        all(
            sum(one.num_cpus for one, own in zip(workers, chosen, strict=True) if own == index) <= node.cpus + 1e-6
            and sum(one.memory for one, own in zip(workers, chosen, strict=True) if own == index)
            <= (node.memory or float("inf"))
            for index, node in enumerate(size.nodes)
        )
        for chosen in itertools.product(range(len(size.nodes)), repeat=len(workers))
    )


@pytest.mark.parametrize("nodes", [(2, 2), (1, 1, 1), (0.5, 0.5), (1, 2)])
@pytest.mark.parametrize("asked", [0.7, 3.0, 16.0])
def test_a_worker_that_the_planner_made_fits_a_node_and_not_the_sum_of_them(nodes, asked):
    groups = [Stage(str(index), (), asked, 0, 0, 1, 1) for index in range(3)]
    size = ClusterSize(tuple(map(Node, nodes)))
    assert finds_room(that_fit(groups, size), size)


@pytest.mark.parametrize("asked", [9e9, 20e9])
@pytest.mark.parametrize("count", [1, 3])
def test_memory_is_that_of_a_node(asked, count):
    groups = [Stage(str(index), (), 0.1, 0, asked, 1, 1) for index in range(count)]
    size = ClusterSize((Node(2, 0, 6 * 2**30), Node(2, 0, 6 * 2**30)))
    assert finds_room(that_fit(groups, size), size)


def test_cpus_are_wanted_where_the_gpu_is():
    """A node with a GPU and one CPU, beside one with many CPUs."""
    size = ClusterSize((Node(8), Node(1, 1)))
    (stage,) = that_fit([Stage("heavy", (), 4.0, 0.5, 0, 1, 2)], size)
    assert (stage.num_gpus, stage.num_cpus) == (0.5, 1.0)


@pytest.mark.parametrize("most", [2, 6])
def test_least_workers_that_the_recipe_asks_for_are_no_more_than_the_most(most):
    found = planned(ClusterSize((Node(2),)), {"modalities": ["mean_colour"], "min_workers": 6}, workers=most)
    assert all(stage.min_workers <= stage.max_workers for stage in found)
    (own,) = (stage for stage in found if stage.name == "mean_colour")
    assert (own.min_workers, own.max_workers) == (6, 6)
    assert finds_room(found, ClusterSize((Node(2),)))


@pytest.mark.parametrize(
    ("wish", "key", "nodes"),
    [
        ({"num_cpus": 3}, "num_cpus", [Node(2), Node(2)]),
        ({"num_cpus": 3, "min_workers": 2}, "min_workers or num_cpus", [Node(5)]),
        ({"num_gpus": 2}, "num_gpus", [Node(8, 1), Node(8, 1)]),
        ({"num_gpus": 1, "min_workers": 3}, "min_workers or num_gpus", [Node(8, 2)]),
        ({"num_cpus": 2, "num_gpus": 1}, "num_cpus or num_gpus", [Node(8), Node(1, 1)]),
    ],
)
def test_what_the_recipe_asks_for_and_no_node_has_is_refused(wish, key, nodes):
    size = ClusterSize(tuple(nodes))
    with pytest.raises(RecipeError, match=rf"resources\.stages\.1: .*write a smaller {key}, or ") as error:
        planned(size, {"modalities": ["rgb"]}, {"modalities": ["canny_edge"], **wish})
    assert len(str(error.value).splitlines()) == 1


def test_what_the_planner_chose_makes_room_for_what_the_recipe_asks_for():
    size = ClusterSize((Node(2), Node(2)))
    found = planned(size, {"modalities": ["canny_edge"], "num_cpus": 1.75})
    assert {stage.num_cpus for stage in found if stage.name == "canny_edge"} == {1.75}
    assert finds_room(found, size)


def test_a_run_is_refused_before_anything_is_written(corpus, tmp_path):
    wish = {"modalities": ["mean_colour"], "num_cpus": 3}
    made = recipe(corpus, tmp_path / "out", {"mean_colour": odd("MeanColour")}, resources={"stages": [wish]})
    with pytest.raises(RecipeError, match=r"resources\.stages\.0: 1 worker of 3 CPUs.* on nodes of 2 CPUs and 0 GPUs"):
        weave(made)
    assert not (tmp_path / "out").exists()
