"""What the engine costs: a run of tokenloom against loops that do the same work without it.

    python tests/benchmarks/engine.py [--quick] [--images 20000] [--rounds 3] [--corpus FOLDER]

JPEGs of 500 x 375 in tars of 1,000 are decoded to 224 x 224, labelled (rgb, caption, canny_edge, metadata), tokenised
and written as Parquet, 256 samples a file, by contenders that share labelers and fitted tokenizers:

- tokenloom: `make_plan` and `execute`, as `tokenloom run` does it.
- plain_loop: two processes, each with half of the tars; Pillow decodes in full, as most scripts do it.
- same_decode: that loop with tokenloom's decoding at reduced DCT scale, so that the engine is the only difference.
- naive_ray: read_webdataset, map, map_batches, map_batches, write_parquet, all with Ray Data's default settings, on a
  quarter of the photographs.

The contenders take turns, round by round. Each runs twice a round, on all its photographs and on a quarter of them:
the difference of the two runs, per photograph between them, is the steady state, whatever starting up and shutting
down cost. CPU seconds are those of all processes of a run, and steadier than wall clock where other work shares the
machine. Every process computes on one thread (OMP_NUM_THREADS=1), and two processes label, whatever the machine has.

The last line is a JSON object. `cpu_ms` and `images_per_s` are medians over the rounds, by contender: CPU milliseconds
per photograph, and photographs per second of wall clock. `ratio` is the median over the rounds of plain_loop's CPU
seconds by tokenloom's: 1 and more means that the engine costs no more than the loop. `ratio_wall`, `ratio_same_decode`
and `ratio_naive_ray` likewise: wall clock, and the other contenders' CPU seconds by tokenloom's. `decodes_per_image`:
with one light labeler, and with eight. `same_tokens`: whether tokens equal those of the contender that decodes alike.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq
from contenders import CONTENDERS, MODALITIES
from measuring import Usage, measure
from photographs import PER_TAR, write_tars

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).resolve().parent),
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class Contest:
    """tars: of `per_tar` photographs each. scratch: a folder for everything that is written."""

    tars: list[str]
    per_tar: int
    scratch: Path

    @property
    def fitted(self) -> Path:
        return self.scratch / "fitted"

    def prepare(self) -> dict[str, float]:
        """Fits the tokenizers; decodes per image by the number of labelers."""
        _say("fitting tokenizers, counting decodes")
        return json.loads(self._run("prepare", self.scratch / "prepared", self.tars[:2]).answer)

    def turn(self, name: str) -> Usage:
        """Seconds per photograph in a contender's steady state."""
        many = self.tars[: max(4, len(self.tars) // 4)] if name == "naive_ray" else self.tars
        few = many[: len(many) // 4]
        small = self._run(name, self.output(name), few)
        large = self._run(name, self.scratch / "large", many)
        shutil.rmtree(self.scratch / "large")
        _say(
            f"{name}: {large.cpu:.1f} s of CPU for {len(many) * self.per_tar} photographs, {small.cpu:.1f} s for "
            f"{len(few) * self.per_tar}; on the clock {large.wall:.1f} s and {small.wall:.1f} s"
        )
        return (large - small) / ((len(many) - len(few)) * self.per_tar)

    def output(self, name: str) -> Path:
        """Where a contender's last run on few photographs is."""
        return self.scratch / name

    def tokens_agree(self, name: str, other: str) -> bool:
        """Whether two contenders gave the photographs that both have seen the same tokens of every modality."""
        for modality in MODALITIES:
            tokens, others = (_tokens(self.output(one), modality) for one in (name, other))
            shared = tokens.keys() & others.keys()
            if len(shared) < self.per_tar or any(tokens[key] != others[key] for key in shared):
                return False
        return True

    def _run(self, name: str, output: Path, tars: list[str]) -> Usage:
        shutil.rmtree(output, ignore_errors=True)
        code = "import contenders; contenders.main()"
        return measure([sys.executable, "-c", code, name, str(self.fitted), str(output), *tars], _ENVIRONMENT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of few photographs, without naive_ray")
    parser.add_argument("--images", type=int, default=20_000, help="rounded to tars of 1,000; at least 4,000")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus", type=Path, help="folder where photographs are kept; by default they are removed")
    options = parser.parse_args()
    names, per_tar, count, rounds = list(CONTENDERS), PER_TAR, max(4, options.images // PER_TAR), options.rounds
    if options.quick:
        names, per_tar, count, rounds = names[:3], 256, 4, 1
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        _say(f"writing {count} tars of {per_tar} photographs")
        tars = write_tars((options.corpus or Path(folder, "corpus")) / str(per_tar), count, per_tar)
        contest = Contest([str(tar) for tar in tars], per_tar, Path(folder))
        print(json.dumps(compare(contest, names, rounds)))


def compare(contest: Contest, names: list[str], rounds: int) -> dict[str, object]:
    decodes = contest.prepare()
    usages: defaultdict[str, list[Usage]] = defaultdict(list)
    for number in range(rounds):
        _say(f"round {number + 1} of {rounds}; load {os.getloadavg()[0]:.1f}")
        for name in names:
            usages[name].append(contest.turn(name))

    def ratio(other: str, what: str = "cpu") -> float | None:
        """Median over the rounds of another contender's seconds by tokenloom's."""
        pairs = zip(usages[other], usages["tokenloom"], strict=False)
        return (
            round(median(getattr(theirs, what) / getattr(ours, what) for theirs, ours in pairs), 3)
            if usages[other]
            else None
        )

    return {
        "images": len(contest.tars) * contest.per_tar,
        "rounds": rounds,
        "cpu_ms": {name: round(median(use.cpu for use in usages[name]) * 1000, 2) for name in names},
        "images_per_s": {name: round(1 / median(use.wall for use in usages[name]), 1) for name in names},
        "decodes_per_image": decodes,
        "same_tokens": {
            f"{name} = {other}": contest.tokens_agree(name, other)
            for name, other in (("same_decode", "tokenloom"), ("naive_ray", "plain_loop"))
            if name in names
        },
        "ratio": ratio("plain_loop"),
        "ratio_wall": ratio("plain_loop", "wall"),
        "ratio_same_decode": ratio("same_decode"),
        "ratio_naive_ray": ratio("naive_ray"),
    }


def _tokens(output: Path, modality: str) -> dict[str, list[int]]:
    """Tokens by key: of a folder per modality, or of one table with a column per modality."""
    folder, column = (output / modality, "tokens") if (output / modality).exists() else (output, modality)
    found: dict[str, list[int]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        table = pq.ParquetFile(path).read(["key", column])
        found.update(zip(table["key"].to_pylist(), table[column].to_pylist(), strict=True))
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
