"""How often encoded images cross the network: what hosts receive during a run, by the bytes of the corpus.

    python tests/chaos/crossings.py [--quick] [--case NAME]...

Three hosts in network namespaces form a cluster, and claim so many CPUs and GPUs that a stage can be given one of them
by what its worker asks for. The corpus, JPEGs of some 100 kB in tars, lies in a folder that all see without a network,
and so does the output: what crosses is what Ray sends.

Prints for each case what every host received, by the corpus' bytes, and what needs to cross: a hop from each stage to
the next on another host. Its last line is one JSON object, whose `ratio` is the largest sum less what needs to cross.
Linux only; needs root, iproute2, nftables.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from hosts import HERE, go_inside
from machines import ENVIRONMENT, Cluster
from places import write_corpus
from processes import adopt_orphans, clear, descendants
from spawner import Spawner

_NAMES = ("first", "second", "third")
_TARS = 16
_SIZE = (720, 540)
_STORE = "--object-store-memory 200000000"
_OFFERS = {
    0: f"--num-cpus 32 --num-gpus 0 {_STORE}",
    1: f"--num-cpus 16 --num-gpus 1 {_STORE}",
    2: f"--num-cpus 8 --num-gpus 6 {_STORE}",
}
_ON = {
    "h0": {"num_cpus": 17, "max_workers": 1},
    "h1": {"num_cpus": 9, "num_gpus": 1, "max_workers": 1},
    "h2": {"num_gpus": 2, "max_workers": 1},
    "any": {"num_cpus": 2, "max_workers": 3},
}
"""What a stage asks for to be there, and there alone."""

CASES = ("h2", "h2 h2", "h2 h2 h2", "h2 h1", "h2 h1 h0", "h2 h1 h2", "any any any")
"""The places of the stages, one after another."""


def main() -> int:
    options = _options()
    if why := go_inside():
        raise SystemExit(f"no hosts can be made here: {why}")
    adopt_orphans()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tl-cross-")))
        stack.callback(lambda: clear(descendants(), 0.0))
        write_corpus(folder / "corpus", _TARS, 12 if options.quick else 48, _SIZE)
        shutil.copy(Path(__file__).with_name("crossing_labelers.py"), folder)
        (folder / "logs").mkdir()
        spawner = Spawner(folder, {**os.environ, **ENVIRONMENT, "RAY_health_check_failure_threshold": "20"})
        stack.callback(spawner.end)
        cluster = Cluster("hosts", len(_OFFERS), folder, spawner, HERE, 6379, offers=_OFFERS)
        stack.callback(cluster.down)
        cluster.up()
        corpus = sum(path.stat().st_size for path in (folder / "corpus").iterdir())
        print(f"a corpus of {corpus / 1e6:.0f} MB; what each host received, by that", flush=True)
        found: dict[str, Any] = {}
        for case in options.case or CASES:
            began = time.monotonic()
            received = [size / corpus for size in _measure(case, folder, cluster)]
            places = case.split()
            needed = sum(one != other for one, other in pairwise(places))
            found[case] = {
                "received": [round(part, 2) for part in received],
                "beyond": round(sum(received) - needed, 3),
            }
            shown = ", ".join(f"h{number} {part:.2f}" for number, part in enumerate(received))
            took = time.monotonic() - began
            print(f"{case}: {shown}; {sum(received):.2f} in all, {needed} needed; {took:.0f} s", flush=True)
    print(json.dumps({**found, "ratio": max(one["beyond"] for one in found.values())}))
    return 0


def _measure(case: str, folder: Path, cluster: Cluster) -> Sequence[int]:
    """The bytes that each host received during a run."""
    hosts = [node.host for node in cluster.nodes.values() if node.host]
    recipe, log = folder / "recipe.yaml", folder / "logs/run.log"
    recipe.write_text(yaml.safe_dump(_recipe(case, folder)))
    before = [host.received for host in hosts]
    if cluster.command(["tokenloom", "run", str(recipe)], log, 0).wait():
        raise SystemExit(f"{case}: the run failed:\n{log.read_text()}")
    received = [host.received - bytes for host, bytes in zip(hosts, before, strict=True)]
    shutil.rmtree(folder / "output")
    return received


def _recipe(case: str, folder: Path) -> Mapping[str, Any]:
    places = dict(zip(_NAMES, case.split(), strict=False))
    return {
        "corpus": f"{folder}/corpus",
        "output": f"{folder}/output",
        "units": {"samples": 12},
        "views": {"size": 112},
        "modalities": {name: {"labeler": f"crossing_labelers:{name.title()}", "keep": "labels"} for name in places},
        "resources": {"stages": [{"modalities": [name], **_ON[place]} for name, place in places.items()]},
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a quarter of the images")
    parser.add_argument("--case", action="append", help="stages at these places alone, e.g. 'h2 h1'")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
