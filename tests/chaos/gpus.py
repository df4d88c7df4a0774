"""A cluster that claims GPUs: 4m21 on tiny weights leaves the same bytes there as on CPUs.

    python tests/chaos/gpus.py [--recipe NAME] [--cpus N] [--gpus N]

The recipe of all specialists runs twice on six photographs: on a cluster of two nodes with so many CPUs and GPUs each,
by their own word, with a pool for every heavy labeler and a share of a GPU for each of its actors, and a network that
two workers train; and on a Ray without GPUs, all in one stage. Every object is compared. All of it computes on CPUs.

Prints what happens, and as its last line one JSON object. Takes some ten minutes and 15 GB on two cores. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))

from gpu_cluster import gpu_cluster
from places import write_corpus
from tokenloom.pipeline.checks.verify import verify
from weaving import digests

FEW = ("units.samples=3", "weights=tiny", "fit.units=1")
NETWORK = (
    "modalities.semseg_coco.tokenizer={params: {encoder: vit_xt_enc, decoder: vit_xt_dec, codes: 16}, "
    "fit: {steps: 4, batch_size: 2, workers: 2}}"
)


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="tokenloom-gpus-") as name:
        folder = Path(name)
        write_corpus(folder / "corpus", 1, 6)
        seconds = {}
        with gpu_cluster(options.cpus, options.gpus) as address:
            seconds["with"] = _run(options.recipe, folder, "with", address)
        seconds["without"] = _run(options.recipe, folder, "without", "local", "resources.workers=1")
        faults = verify(folder / "with", deep=True).faults
        one, other = digests(folder / "with"), digests(folder / "without")
    differing = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
    for name in differing[:20]:
        print(f"differs: {name}")
    for fault in faults:
        print(fault)
    good = not (differing or faults)
    print(json.dumps({"objects": len(one), "differing": len(differing), "faults": len(faults), "seconds": seconds}))
    return 0 if good else 1


def _run(recipe: str, folder: Path, output: str, address: str, *more: str) -> float:
    began = time.monotonic()
    print(f"{time.strftime('%T')} {recipe} {output} GPUs", flush=True)
    settings = [word for setting in (*FEW, NETWORK, *more) for word in ("--set", setting)]
    command = [sys.executable, "-m", "tokenloom.pipeline.cli", "run", recipe, *settings]
    subprocess.run(
        [*command, "--corpus", str(folder / "corpus"), "--output", str(folder / output)],
        env={**os.environ, "RAY_ADDRESS": address, "TOKENLOOM_DEVICE": "cpu", "OMP_NUM_THREADS": "1"},
        cwd=folder,
        check=True,
    )
    return round(time.monotonic() - began, 1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="4m21")
    parser.add_argument("--cpus", type=int, default=8, help="of each node, by its own word")
    parser.add_argument("--gpus", type=int, default=4, help="of each node, by its own word")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
