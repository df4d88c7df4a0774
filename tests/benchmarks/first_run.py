"""What a first run spends its time on: `tokenloom run quickstart` on a folder of 400 photographs.

    python tests/benchmarks/first_run.py [--images 400]

The photographs are 500 x 375 JPEGs with captions, random crops of a few. The command runs as it is, on a Ray of its
own; its plain lines say when each part begins, and the CPU seconds of all its processes are read at these moments:

- start: imports, the plan, Ray.
- sample: making the labels that the tokenizers are fitted to, which the rest of the run takes over.
- fits: the text vocabulary, and k-means.
- labelling: the labels that are left to make, tokens, and the end of the run.

The last line is a JSON object with CPU and wall-clock seconds of each part; `ratio` is the CPU seconds of sample and
labelling, in which each label is made once, by those of all. `labelled`: how many labels were made, by those there are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

from measuring import CpuSampler
from photographs import write_photographs

PARTS = {
    "labelling a sample": "sample",
    "making the text vocabulary": "fits",
    "fitting the tokenizer": "fits",
    "labelling ...": "labelling",
}
"""Which part begins with a line of the command."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tl-first-") as folder:  # short: sockets lie in it
        write_photographs(Path(folder) / "photos", options.images)
        spent = measure(Path(folder))
    cpu = {part: round(seconds[0], 1) for part, seconds in spent.items()}
    ratio = (cpu["sample"] + cpu["labelling"]) / sum(cpu.values())
    wall = {part: round(seconds[1], 1) for part, seconds in spent.items()}
    print(json.dumps({"cpu": cpu, "wall": wall, "ratio": round(ratio, 3)}))


def measure(folder: Path) -> dict[str, tuple[float, float]]:
    """CPU and wall-clock seconds of each part of the command. Raises CalledProcessError where it fails."""
    command = [sys.executable, "-m", "tokenloom.pipeline.cli", "run", "quickstart"]
    command += ["--corpus", str(folder / "photos"), "--output", str(folder / "dataset")]
    environment = {**os.environ, "RAY_TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    environment.pop("RAY_ADDRESS", None)
    spent = dict.fromkeys(("start", *PARTS.values()), (0.0, 0.0))
    with CpuSampler() as sampler:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(command, env=environment, **pipes)
        part, since = "start", (0.0, time.perf_counter())
        assert process.stdout is not None
        for line in chain(process.stdout, [None]):
            now = sampler.now(), time.perf_counter()
            spent[part] = (spent[part][0] + now[0] - since[0], spent[part][1] + now[1] - since[1])
            since = now
            if line is not None:
                print(line, end="", flush=True)
                part = next((name for begin, name in PARTS.items() if line.startswith(begin)), part)
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, command)
    return spent


if __name__ == "__main__":
    main()
