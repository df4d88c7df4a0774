"""A cluster's actors of Ray Data, when the node is gone whose driver was the first to need them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

# A driver beside the head, and functions that run on another node as if a driver were there.
_SCRIPT = """
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tokenloom.pipeline.cluster.ray_data import _MAKERS, _known, keep_on_head, provide

one = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "no_monitor": True, "include_log_monitor": False}
cluster = Cluster(initialize_head=True, head_node_args={**one, "include_dashboard": False})
ray.init(cluster.address, log_to_driver=False)

def on_a_node_that_then_dies(work):
    node = cluster.add_node(**one)
    cluster.wait_for_nodes()
    place = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    ray.get(ray.remote(work).options(num_cpus=0, scheduling_strategy=place).remote())
    cluster.remove_node(node, allow_graceful=False)

def answering():
    asked = [make().__ray_ready__.remote() for make in _known(_MAKERS)]
    return len(ray.wait(asked, num_returns=len(asked), timeout=15)[0])

on_a_node_that_then_dies(keep_on_head)
print("kept on the head", answering(), flush=True)
for make in _known(_MAKERS):
    ray.kill(make())
on_a_node_that_then_dies(lambda: ray.get([make().__ray_ready__.remote() for make in _known(_MAKERS)]))
provide(_MAKERS, 3.0)
print("made anew", answering(), flush=True)
cluster.shutdown()
"""


def test_they_are_made_on_the_head_and_anew_where_their_node_is_gone():
    with tempfile.TemporaryDirectory(prefix="loom-data-") as folder:  # short: sockets lie in it
        environment = {**os.environ, "RAY_TMPDIR": folder, "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1"}
        ended = subprocess.run(
            [sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, timeout=200
        )
    assert "kept on the head 3" in ended.stdout, ended.stdout + ended.stderr
    assert "made anew 3" in ended.stdout, ended.stdout + ended.stderr
