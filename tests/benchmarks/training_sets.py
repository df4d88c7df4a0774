"""Datasets of 4M-21's modalities with made-up tokens, for benchmarks of what trains on them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from photographs import write_tars
from tokenloom.labelers.contract.kinds import Embeddings, Image, Instances, Kind, Record, Text
from tokenloom.labelers.contract.poses import ATTRIBUTES
from tokenloom.pipeline.corpus.corpus import Corpus, CorpusSettings, UnitLimits
from tokenloom.pipeline.corpus.taken import Listing
from tokenloom.pipeline.corpus.units import Unit, shard_id
from tokenloom.pipeline.dataset.cards import ModalityCard, TokensCard
from tokenloom.pipeline.dataset.layout import label_path, manifest_path, token_path
from tokenloom.pipeline.dataset.listings import store_listing, taken_shards
from tokenloom.pipeline.dataset.manifest import CorpusCard, Manifest
from tokenloom.pipeline.dataset.shards import RowKeys, ShardMeta, write_labels, write_tokens
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.contract.special_tokens import COORDINATE_BINS, FIRST_COORDINATE, FIRST_WORD
from tokenloom.tokenizers.contract.token_spec import TokenSpec
from tokenloom.training.data.masking import Keep, Scheme
from tokenloom.training.data.ride_along import PIXELS

GRIDS = {
    **dict.fromkeys(("rgb", "depth", "normal", "semseg_coco", "canny_edge", "sam_edge", "clip", "siglip"), 196),
    **dict.fromkeys(("dinov2", "imagebind"), 256),
    **dict.fromkeys(("dinov2_global", "imagebind_global"), 16),
}
TEXTS = {"caption": 255, "det": 255, "metadata": 43, "human_poses": 274, "sam_instance": 289, "color_palette": 22}
NAMES = (*GRIDS, *TEXTS)
T5 = "t5_caption"
SAMPLES = 256
"""Of a unit, as a run cuts them where nothing else is said."""

_KINDS: dict[str, tuple[Kind, str]] = {
    "caption": (Text(), "wordpiece"),
    "det": (Instances(texts=True, scores=True), "boxes"),
    "metadata": (Record(("brightness",)), "record"),
    "human_poses": (Instances(attributes=ATTRIBUTES["smpl"], pose="smpl"), "human_poses_vq"),
    "sam_instance": (Instances(masks=True), "instances_vq"),
    "color_palette": (Record(tuple("1234567")), "palette"),
}


def schemes(inputs: Sequence[str] = ()) -> list[Scheme]:
    """4M-21's: everything from everything, at four degrees of evenness, everything from RGB (tokens of it, where there
    are no pixels), from captions above all, and from T5's embeddings where `inputs`, beside the tokens, has them."""
    keep: dict[str, Keep] = {"color_palette": "binary"}
    seen = (*NAMES, *inputs)
    even = [Scheme(1, dict.fromkeys(seen, one), dict.fromkeys(NAMES, one), keep) for one in (0.01, 0.1, 1.0, 10.0)]
    rgb = Scheme(1, {PIXELS if PIXELS in inputs else "rgb": 1000.0}, dict.fromkeys(NAMES, 0.5), keep)
    few, told = dict.fromkeys(seen, 0.05), [name for name in ("caption", T5) if name in seen]
    biased = [Scheme(0.5, {**few, one: 5.0}, dict.fromkeys(NAMES, 0.05), {**keep, one: "all"}) for one in told]
    return [*even, rgb, *biased]


def cards() -> dict[str, ModalityCard]:
    made = {
        name: card(TokenSpec("grid", 8192, length, length), Image(1, content="classes"), "codebook")
        for name, length in GRIDS.items()
    }
    return made | {name: card(TokenSpec("text", 30_000, None, most), *_KINDS[name]) for name, most in TEXTS.items()}


def card(spec: TokenSpec, kind: Kind, tokenizer: str) -> ModalityCard:
    tokens = TokensCard(tokenizer, 1, {}, spec=spec)
    described = json.loads(json.dumps(kind.describe()))
    return ModalityCard(described, "random", 1, "view", {}, None, "Apache-2.0", {}, tokens, True, False)


def units_of(count: int) -> list[Unit]:
    """Of tars with 16 units each, the last of which is shorter."""
    units = []
    for index in range(count):
        shard, place = divmod(index, 16)
        last = place == 15 or index == count - 1
        name = shard_id(f"{shard:06d}.tar", 1000)
        units.append(Unit(name, 1000 * place, None if last else 1000 * (place + 1), SAMPLES - 56 * last))
    return units


def write_manifest(store: Store, units: int) -> None:
    files = {f"{index:06d}.tar": 1000 for index in range(-(-units // 16))}
    _publish(store, files, "photographs", cards())


def _publish(store: Store, files: dict[str, int], root: str, made: dict[str, ModalityCard]) -> CorpusCard:
    listing = Listing("tar", files)
    store_listing(store, listing)
    urls = [f"{root}/{name}" for name in files]
    corpus = CorpusCard(urls, root, len(files), sum(files.values()), [listing.digest])
    views = {"size": 224, "count": 1, "min_scale": 0.8}
    manifest = Manifest(corpus, 0, views, {"samples": SAMPLES, "bytes": 2**26}, made)
    store.create(manifest_path(1), manifest.to_bytes())
    return corpus


def write_illustrated(store: Store, folder: Path, units: int) -> None:
    """One that has a corpus, of JPEGs of 500 x 375, and T5's embeddings: random ones, (8 to 77, 4096) float16."""
    (tar,) = write_tars(folder, 1, units * SAMPLES)
    kind = Embeddings(4096, 77)
    described = json.loads(json.dumps(kind.describe()))
    t5 = ModalityCard(described, "random", 1, "nothing", {}, None, "Apache-2.0", {}, None, False, True)
    corpus = _publish(store, {tar.name: tar.stat().st_size}, str(folder), {**cards(), T5: t5})
    (shard,) = taken_shards(store, corpus).values()
    rng = np.random.default_rng(0)
    for found in Corpus(CorpusSettings(url=corpus.url)).read(shard, limits=UnitLimits(SAMPLES)):
        keys = [sample.key for sample in found.samples]
        for path, data in shards_of(found.unit, keys=keys):
            store.create(path, data)
        labels = [
            kind.encode(rng.standard_normal((int(length), 4096), np.float32).astype(np.float16))
            for length in rng.integers(8, 78, len(keys))
        ]
        meta = ShardMeta(found.unit.name, T5, t5.labels_generation)
        data = write_labels(RowKeys.of(keys, 1), labels, kind.extension, meta)
        store.create(label_path(T5, t5.labels_generation, found.unit), data)


def write_dataset(store: Store, units: int) -> None:
    write_manifest(store, units)
    for unit in units_of(units):
        for path, data in shards_of(unit):
            store.create(path, data)


def shards_of(unit: Unit, keys: Sequence[str] = ()) -> Iterator[tuple[str, bytes]]:
    """The paths and bytes of a unit's token shards; keys: of its samples, made up unless they are given."""
    made = cards()
    rows = RowKeys.of(keys or [f"{unit.shard}/{unit.start + index:06d}" for index in range(unit.count)], 1)
    for name in NAMES:
        card = made[name]
        assert card.tokens is not None
        assert card.tokens.spec is not None
        drawn, begin = _samples(name), int(unit.shard[-6:], 16) + unit.start
        tokens = [drawn[(begin + index) % len(drawn)] for index in range(unit.count)]
        meta = ShardMeta(unit.name, name, card.tokens_generation)
        yield token_path(name, card.tokens_generation, unit), write_tokens(rows, tokens, card.tokens.spec, meta)


@cache
def _samples(name: str) -> list[np.ndarray]:
    """Of which units take theirs, each beginning at another."""
    rng = np.random.default_rng(NAMES.index(name))
    return [_sample(rng, name) for _ in range(2 * SAMPLES)]


def _sample(rng: np.random.Generator, name: str) -> np.ndarray:
    """One sample's tokens, of as many parts as photographs have by and large."""
    if name in GRIDS:
        return rng.integers(0, 8192, GRIDS[name]).astype(np.uint16)
    if name == "caption":
        ids = _words(rng, int(rng.integers(5, 60)))
    elif name == "metadata":
        ids = _pairs(rng, 21)
    elif name == "color_palette":
        colours = int(rng.integers(1, 8))
        ids = np.append(_coordinates(rng, [1]), _coordinates(rng, [0] * 3 * colours))
    else:
        before, behind, most = {"det": (0, 1, 12), "human_poses": (1, 34, 3), "sam_instance": (1, 16, 13)}[name]
        parts = [_instance(rng, before, behind, name == "det") for _ in range(int(rng.integers(1, most + 1)))]
        ids = np.concatenate(parts)
    return ids[: TEXTS[name]].astype(np.uint16)


def _words(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(FIRST_WORD, 30_000, count)


def _coordinates(rng: np.random.Generator, axes: Sequence[int]) -> np.ndarray:
    return FIRST_COORDINATE + np.array(axes) * COORDINATE_BINS + rng.integers(0, COORDINATE_BINS, len(axes))


def _pairs(rng: np.random.Generator, count: int) -> np.ndarray:
    return _coordinates(rng, [1, 0] * count)


def _instance(rng: np.random.Generator, before: int, behind: int, words: bool) -> np.ndarray:
    """Words, a box, and a name or codes."""
    rest = _words(rng, behind) if words else _coordinates(rng, [0] * behind)
    return np.concatenate([_words(rng, before), _coordinates(rng, [0, 1, 2, 3]), rest])
