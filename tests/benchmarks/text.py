"""How fast texts are tokenised: from compressed JSON lines to shards, and by Hugging Face tokenizers alone.

    python tests/benchmarks/text.py [--quick]

Web-like documents of 50 to 2,000 words (words drawn by Zipf's law, punctuation, lines, some numbers and other
scripts) lie in .json.gz files as C4's do. Both are measured in this process, on one thread, in turn, three times:

- ours: what a reading task and a stage do with the units of a run, without Ray: reading and decompressing, JSON,
  tokenising, and shards written with their checksums to a disk. The vocabulary is loaded before;
- alone: `encode_batch_fast` of the same documents, which lie in memory, by the same vocabulary, 64 at a time. Nothing
  is read, and what comes out is dropped.

mb_per_s: of UTF-8 text, the best of each; `ratio` is ours by alone. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parent.parent / "helpers"))
os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread for both

from in_process import weave
from tokenloom.pipeline.cluster.size import ClusterSize, Node
from tokenloom.pipeline.corpus.corpus import UnitLimits
from tokenloom.pipeline.engine.config import stage_configs
from tokenloom.pipeline.engine.stage import StageWorker
from tokenloom.pipeline.engine.stream import ReaderConfig, read_units, result_of, works_as_text
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import Recipe, load_recipe
from tokenloom.pipeline.plan.stages import stages
from tokenloom.tokenizers.contract.vocabulary import Vocabulary

from tokenizers import Tokenizer

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the documents")
    count = 1_000 if parser.parse_args().quick else 5_000
    texts = documents(count)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as name:
        folder = Path(name)
        vocabulary = Vocabulary.train(texts[: count // 5])
        (folder / "vocabulary.json").write_bytes(vocabulary.to_bytes())
        (folder / "c4").mkdir()
        for shard in range(2):
            lines = "".join(f"{json.dumps({'text': text, 'url': 'https://x'})}\n" for text in texts[shard::2])
            (folder / "c4" / f"{shard}.json.gz").write_bytes(gzip.compress(lines.encode(), 6))
        alone = Tokenizer.from_str(vocabulary.to_bytes().decode())
        times: dict[str, list[float]] = {"ours": [], "alone": []}
        recipe = load_recipe("text", settings(folder), [str(folder / "c4")], str(folder / "out"))
        weave(recipe)
        for _ in range(3):
            times["ours"].append(seconds_of_units(recipe, count))
            began = time.perf_counter()
            for start in range(0, count, BATCH):
                alone.encode_batch_fast(texts[start : start + BATCH], add_special_tokens=False)
            times["alone"].append(time.perf_counter() - began)
    rates = {name: round(megabytes / min(taken), 3) for name, taken in times.items()}
    ratio = round(rates["ours"] / rates["alone"], 2)
    print(json.dumps({"documents": count, "mb": round(megabytes, 2), "mb_per_s": rates, "ratio": ratio}))


def settings(folder: Path) -> list[str]:
    return [f"vocabulary={folder}/vocabulary.json", "units.samples=1024"]


def seconds_of_units(recipe: Recipe, count: int) -> float:
    """All units of a dataset, whose shards are deleted first."""
    for shard in Path(recipe.output).rglob("*.parquet"):
        shard.unlink()
    plan = make_plan(recipe)
    (config,) = stage_configs(plan, stages(plan.graph, recipe, ClusterSize((Node(1, 0),))))
    worker = StageWorker(config)
    worker.labeler.load()
    worker.labeler.models.tokenizer("text").encode(["loaded"])
    reader = ReaderConfig(recipe.corpus, UnitLimits(**recipe.units.model_dump()), None)
    block = pa.table({"work": [works_as_text(plan.works)]})
    began, done = time.perf_counter(), 0
    for table in read_units(block, reader):
        done += result_of(json.loads(next(worker(table))["head"][0].as_py())).unit.count
    took = time.perf_counter() - began
    assert done == count
    return took


def documents(count: int) -> list[str]:
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = ["".join(rng.choice(letters[: rng.integers(5, 27)], rng.integers(1, 12))) for _ in range(20_000)]
    words[500:1000] = ["".join(map(chr, rng.integers(0x430, 0x450, 6))) for _ in range(500)]
    words[50:60] = [
        "2024",
        "$3.50",
        "[EOS]",
        "e-mail",
        "don't",
        "https://a.example/b?c=1",
        "U.S.",
        "naïve",
        "東京",
        "v0=12",
    ]
    ends = np.array([" "] * 8 + [", ", ". ", ".\n\n"])
    found = []
    for _ in range(count):
        length = int(rng.integers(50, 2000))
        drawn = np.minimum(rng.zipf(1.2, length) - 1, len(words) - 1)
        found.append("".join(words[i].capitalize() + e for i, e in zip(drawn, rng.choice(ends, length), strict=True)))
    return found


if __name__ == "__main__":
    main()
