"""How fast batches of a mixture are made: read from shards on disk, joined and masked.

    python tests/benchmarks/mixture.py [--quick]

One dataset of 18 modalities with random tokens of the lengths of 4M-21's: 13 grids and vectors, and 5 texts. Batches
with 256 input and 256 target tokens are made in this process, on one thread, by

- ours: `tokenloom.training.data.mixture`, whole batches at a time;
- plain: the same scheme sample by sample, as one would write it down: numpy's Dirichlet and permutations, lists of
  tokens for spans. It neither reads nor joins, and makes no arrays: its samples lie in memory.

Both are measured in turn, three times. samples_per_s: the best of each; `ratio` is ours by plain's. first_batch:
seconds to the first batch at position 10,000,000 less those at 0, in fresh mixtures. The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time

import numpy as np
from tokenloom.labelers.contract.kinds import Image, Text
from tokenloom.pipeline.corpus.taken import Listing
from tokenloom.pipeline.corpus.units import Unit, shard_id
from tokenloom.pipeline.dataset.cards import ModalityCard, TokensCard
from tokenloom.pipeline.dataset.layout import manifest_path, token_path
from tokenloom.pipeline.dataset.listings import store_listing
from tokenloom.pipeline.dataset.manifest import CorpusCard, Manifest, require_manifest
from tokenloom.pipeline.dataset.reader import DatasetReader
from tokenloom.pipeline.dataset.shards import RowKeys, ShardMeta, write_tokens
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.contract.special_tokens import FIRST_SENTINEL
from tokenloom.tokenizers.contract.token_spec import TokenSpec
from tokenloom.training.data.masking import Scheme
from tokenloom.training.data.mixture import MixedDataset, Mixture

GRIDS = {
    **dict.fromkeys(("rgb", "depth", "normal", "semseg", "clip", "siglip", "canny_edge", "sam_edge", "hed_edge"), 196),
    **dict.fromkeys(("dinov2", "imagebind"), 256),
    **dict.fromkeys(("dinov2_global", "imagebind_global"), 16),
}
TEXTS = {"caption": 30, "det": 60, "metadata": 38, "human_poses": 78, "sam_instance": 168}
LONGEST = 290
BUDGET, BATCH = 256, 256
ALPHAS = (0.01, 0.1, 1.0, 10.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a quarter of the samples")
    batches = 4 if parser.parse_args().quick else 16
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        store = Store(folder)
        write_dataset(store, units=batches)
        rng = np.random.default_rng(0)
        sample = {name: rng.integers(5000, 8000, length).tolist() for name, length in (GRIDS | TEXTS).items()}
        times: dict[str, list[float]] = {"ours": [], "plain": []}
        for _ in range(3):
            mixture, began = open_mixture(store), time.perf_counter()
            for index in range(batches):
                mixture.batch(np.arange(index * BATCH, (index + 1) * BATCH))
            times["ours"].append((time.perf_counter() - began) / batches)
            began = time.perf_counter()
            for _ in range(BATCH):
                mask_plainly(sample)
            times["plain"].append(time.perf_counter() - began)
        starts = [first_batch(store, position) for position in (0, 10_000_000)]
    rates = {name: round(BATCH / min(taken)) for name, taken in times.items()}
    ratio = round(rates["ours"] / rates["plain"], 1)
    print(json.dumps({"samples_per_s": rates, "first_batch": round(starts[1] - starts[0], 3), "ratio": ratio}))


def open_mixture(store: Store) -> Mixture:
    names = [*GRIDS, *TEXTS]
    schemes = [Scheme(1, dict.fromkeys(names, alpha), dict.fromkeys(names, alpha)) for alpha in ALPHAS]
    reader = DatasetReader(store, require_manifest(store))
    return Mixture([MixedDataset("photographs", reader, names)], schemes, (BUDGET, BUDGET), (BUDGET, BUDGET))


def first_batch(store: Store, position: int) -> float:
    began = time.perf_counter()
    open_mixture(store).batch(np.arange(position, position + BATCH))
    return time.perf_counter() - began


def write_dataset(store: Store, units: int) -> None:
    rng = np.random.default_rng(1)
    shards = {f"{index:05d}.tar": 1000 for index in range(units)}
    listing = Listing("tar", shards)
    store_listing(store, listing)
    cards = {name: card(TokenSpec("grid", 8192, length, length)) for name, length in GRIDS.items()}
    cards |= {name: card(TokenSpec("text", 30_000, None, LONGEST)) for name in TEXTS}
    corpus = CorpusCard(["photographs"], "photographs", units, 1000 * units, [listing.digest])
    views = {"size": 224, "count": 1, "min_scale": 0.8}
    store.create(manifest_path(1), Manifest(corpus, 0, views, {"samples": BATCH, "bytes": 2**26}, cards).to_bytes())
    for path, size in shards.items():
        unit = Unit(shard_id(path, size), 0, None, BATCH)
        rows = RowKeys.of([f"{unit.shard}/{index:04d}" for index in range(BATCH)], 1)
        for name, made in cards.items():
            lengths = rng.integers(1, 2 * TEXTS[name], BATCH) if name in TEXTS else np.full(BATCH, GRIDS[name])
            tokens = [rng.integers(5000, 8000, length).astype(np.uint16) for length in lengths]
            meta = ShardMeta(unit.name, name, made.tokens_generation)
            assert made.tokens is not None
            assert made.tokens.spec is not None
            store.create(
                token_path(name, made.tokens_generation, unit), write_tokens(rows, tokens, made.tokens.spec, meta)
            )


def card(spec: TokenSpec) -> ModalityCard:
    kind = Text() if spec.type == "text" else Image(1, content="classes")
    tokens = TokensCard("random", 1, {}, spec=spec)
    described = json.loads(json.dumps(kind.describe()))
    return ModalityCard(described, "random", 1, "view", {}, None, "Apache-2.0", {}, tokens, True, False)


# --- sample by sample -------------------------------------------------------------------------------------------------


def mask_plainly(sample: dict[str, list[int]]) -> dict[str, tuple[list[int], list[int]]]:
    """The input and the target tokens of each modality, as ml-4m's rules have them."""
    alpha = random.choice(ALPHAS)
    inputs = share_plainly(alpha, len(sample))
    targets = share_plainly(alpha, len(sample))
    made = {}
    for (name, tokens), seen, said in zip(sample.items(), inputs, targets, strict=True):
        if name in GRIDS:
            seen = min(seen, len(tokens))
            order = np.random.permutation(len(tokens)).tolist()
            said = min(said, len(tokens) - seen)
            made[name] = [tokens[at] for at in order[:seen]], [tokens[at] for at in order[seen : seen + said]]
        else:
            made[name] = spans_plainly(tokens, seen, said)
    return made


def share_plainly(alpha: float, count: int) -> list[int]:
    budget = np.floor(np.random.dirichlet([alpha] * count) * BUDGET).astype(int)
    for _ in range(BUDGET - budget.sum()):
        budget[np.random.dirichlet([alpha] * count).argmax()] += 1
    return np.minimum(budget, LONGEST).tolist()


def spans_plainly(tokens: list[int], seen: int, said: int) -> tuple[list[int], list[int]]:
    share = random.random() if seen else 0.0
    while True:
        shown, hidden, number, before = [], [], 0, True
        for token in tokens:
            kept = random.random() < share
            if kept:
                shown.append(token)
            else:
                if before:
                    number += 1
                    shown.append(FIRST_SENTINEL + number)
                    hidden.append(FIRST_SENTINEL + number)
                hidden.append(token)
            before = kept
        if len(shown) <= seen or not seen:
            break
        share *= 0.9
    hidden.append(FIRST_SENTINEL + number + 1)
    if len(hidden) > said:
        starts = [at for at, token in enumerate(hidden) if token < 204]
        start = random.choice(starts[:-1] or starts)
        if len(hidden) - start < said:
            start = next(at for at in starts if len(hidden) - at <= said)
        hidden = hidden[start : start + said]
    return (shown if seen else []), hidden


if __name__ == "__main__":
    main()
