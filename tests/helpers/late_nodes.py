"""Pretended nodes that come only once they are let: Ray's own provider of such nodes, with a gate."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class LateNodes(FakeMultiNodeProvider):
    """Notes in the gate's folder what it is asked for, a line each: how many, and of which resources."""

    def create_node_with_resources_and_labels(self, node_config, tags, count, resources, labels):
        gate = Path(os.environ["LATE_NODES_GATE"])
        with gate.with_suffix(".asked").open("a") as file:
            print(count, dict(resources), file=file)
        while not gate.exists():
            time.sleep(0.1)
        own = {name: amount for name, amount in resources.items() if name != "memory"}  # a raylet finds that by itself
        super().create_node_with_resources_and_labels(node_config, tags, count, own, labels)
