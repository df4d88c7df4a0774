"""A cluster's actors of Ray Data, when the node is gone whose driver was the first to need them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

# What `keep_on_head` does for a driver on another node than the head, which then dies: are they still there?
_SCRIPT = """
import time
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tokenloom.pipeline.cluster.ray_data import keep_on_head, makers

one = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "no_monitor": True, "include_log_monitor": False}
cluster = Cluster(initialize_head=True, head_node_args={**one, "include_dashboard": False})
node = cluster.add_node(**one)
ray.init(cluster.address, log_to_driver=False)

def driver():
    keep_on_head()
    return ray.get([make().__ray_ready__.remote() for make in makers()])

there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
ray.get(ray.remote(driver).options(num_cpus=0, scheduling_strategy=there).remote())
actors = [make() for make in makers()]
cluster.remove_node(node, allow_graceful=False)
while any(one["Alive"] for one in ray.nodes() if one["NodeID"] == node.node_id):
    time.sleep(0.2)
ray.get([actor.__ray_ready__.remote() for actor in actors], timeout=30)
print("alive:", len(actors), flush=True)
ray.shutdown()
cluster.shutdown()
"""


def test_they_are_made_on_the_head_wherever_the_driver_is():
    with tempfile.TemporaryDirectory(prefix="loom-data-") as folder:  # short: sockets lie in it
        environment = {**os.environ, "RAY_TMPDIR": folder, "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1"}
        ended = subprocess.run(
            [sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True, timeout=200
        )
    assert "alive: 3" in ended.stdout, ended.stdout + ended.stderr
