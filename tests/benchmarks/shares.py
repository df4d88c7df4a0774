"""What the labelling of a photograph costs before there is an engine: CPU time by part, in one process.

    python tests/benchmarks/shares.py [--quick]

The parts are those of the loops that engine.py has as contenders: the same photographs, decoders, labelers, fitted
tokenizers. The last line is a JSON object: CPU milliseconds per photograph by part, and as `ratio` what engine.py would
say of an engine that costs nothing: the loop that decodes by Pillow by the one that decodes as tokenloom does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is imported

import contenders
import numpy as np
from photographs import write_tars
from tokenloom import Batch
from tokenloom.labelers.canny_edge import CannyEdge
from tokenloom.labelers.caption import Caption
from tokenloom.labelers.contract.images import read_header
from tokenloom.labelers.contract.views import ViewSettings, cut_view
from tokenloom.labelers.metadata import Metadata

T = TypeVar("T")
BATCH = 64
PILLOW, OURS = "decode (Pillow)", "decode (tokenloom)"


class Clock:
    """CPU seconds by part."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def of(self, part: str, work: Callable[[], T]) -> T:
        began = time.process_time()
        done = work()
        self.seconds[part] += time.process_time() - began
        return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="256 photographs instead of 2,000")
    per_tar = 256 if parser.parse_args().quick else 1000
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        tars = [str(tar) for tar in write_tars(Path(folder, "corpus"), 2, per_tar)]
        fitted = f"{folder}/fitted"
        print("fitting tokenizers", file=sys.stderr, flush=True)
        contenders.run_recipe(fitted, tars, contenders.MODALITIES)
        clock = Clock()
        count = sum(timed(clock, tar, fitted) for tar in (tars[:1] if per_tar == 256 else tars))
    ms = {part: round(1000 * seconds / count, 3) for part, seconds in clock.seconds.items()}
    shared = sum(ms.values()) - ms[PILLOW] - ms[OURS]
    print(json.dumps({"cpu_ms": ms, "ratio": round((shared + ms[PILLOW]) / (shared + ms[OURS]), 3)}))


def timed(clock: Clock, tar: str, fitted: str) -> int:
    """Labels a tar's photographs part by part; their number."""
    tokenizers, settings = contenders.fitted_tokenizers(fitted), ViewSettings()
    samples = clock.of("read", lambda: list(contenders.samples_of(tar)))
    for start in range(0, len(samples), BATCH):
        keys, jpegs, captions = zip(*samples[start : start + BATCH], strict=True)
        pairs = list(zip(keys, jpegs, strict=True))
        clock.of(PILLOW, lambda pairs=pairs: [contenders.decode_in_full(*pair) for pair in pairs])
        images = clock.of(OURS, lambda pairs=pairs: np.stack([contenders.decode_as_tokenloom(*pair) for pair in pairs]))
        headers = [read_header(jpeg) for jpeg in jpegs]
        views = [cut_view(0, key, 0, one.height, one.width, settings) for key, one in zip(keys, headers, strict=True)]
        fields = [{"caption": caption} for caption in captions]
        labels = {"rgb": list(images), **Caption().label(Batch(list(keys), None, [], fields, {}))}
        batch = Batch(list(keys), images, views, fields, {"caption": list(labels["caption"])})
        for labeler in (CannyEdge(), Metadata()):
            labels |= clock.of(f"label {type(labeler).__name__}", lambda one=labeler, batch=batch: one.label(batch))
        for name, made in labels.items():
            clock.of(f"tokenise {name}", lambda name=name, made=made: tokenizers[name].encode(made))
    return len(samples)


if __name__ == "__main__":
    main()
