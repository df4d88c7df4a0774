"""Whether the machines of a cluster are alike."""

from __future__ import annotations

import pytest
from tokenloom.pipeline.cluster import alike
from tokenloom.pipeline.cluster.alike import check_nodes
from tokenloom.pipeline.cluster.nodes import NodeHere
from tokenloom.pipeline.cluster.session import EngineError

HEAD, WORKER = NodeHere("1", "head"), NodeHere("2", "worker", cpus=2)


@pytest.fixture(autouse=True)
def _on_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is asked has every version, and lacks every path."""

    def versions(names):
        return dict.fromkeys(names, "1")

    found = {"versions": versions(["tokenloom"]), "missing": ["/out"]}
    monkeypatch.setattr(alike, "own_node", lambda: HEAD.id)
    monkeypatch.setattr(alike, "versions", versions)
    monkeypatch.setattr(alike, "on_nodes", lambda work, arguments, nodes: dict.fromkeys(nodes, found[work.__name__]))


def test_one_node_beside_a_head_without_cpus_is_another_machine(monkeypatch):
    """As KubeRay's clusters begin."""
    monkeypatch.setattr(alike, "alive_nodes", lambda: [HEAD, WORKER])
    with pytest.raises(EngineError, match=r"^/out: not seen by worker, which does the work; give a URL"):
        check_nodes(["/out"])


def test_the_only_machine_is_not_asked(monkeypatch):
    monkeypatch.setattr(alike, "alive_nodes", lambda: [NodeHere(HEAD.id, "laptop", cpus=2)])
    check_nodes(["/out"])
