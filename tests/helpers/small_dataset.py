"""Small datasets of real kinds and tokenizers, written as a run writes them, for tests of what reads datasets."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from tokenloom.labelers.contract.kinds import FeatureMap, Image, Record, Text
from tokenloom.pipeline.corpus.samples import Rejection
from tokenloom.pipeline.corpus.units import Unit, shard_id
from tokenloom.pipeline.dataset.layout import MANIFEST, sample_path, token_path
from tokenloom.pipeline.dataset.ledger import Failure
from tokenloom.pipeline.dataset.manifest import CorpusCard, Manifest, ModalityCard, TokensCard, WeightsCard
from tokenloom.pipeline.dataset.shards import RowKeys, ShardMeta, read_tokens, write_labels, write_tokens
from tokenloom.pipeline.dataset.tokenizers import load_tokenizer
from tokenloom.pipeline.engine.commit import UnitWriter
from tokenloom.pipeline.engine.labeling import Result
from tokenloom.pipeline.fitting.fit import provide_tokenizer
from tokenloom.pipeline.fitting.sample import remove_sample, sample_labels, store_vocabulary, to_put_aside
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.contract.vocabulary import Vocabulary

VIEWS = 2
WORDS = ("a cat", "a dog on a chair", "two cups of coffee", "a rocket at night")


def modality_card(kind, labeler: str, on: str, tokenizer: str | None, tokens: bool, labels: bool, **params):
    return ModalityCard(
        kind=kind.describe(),
        labeler=labeler,
        version=1,
        on=on,
        params={},
        weights=WeightsCard("hub/model", "ab" * 32, "Apache-2.0") if labeler == "dinov2" else None,
        licence="Apache-2.0",
        requires={},
        tokens=TokensCard(tokenizer, 1, params) if tokenizer else None,
        keeps_tokens=tokens,
        keeps_labels=labels,
    )


CARDS = {
    "caption": modality_card(Text(), "caption", "nothing", "wordpiece", True, True, max_length=256),
    "color_palette": modality_card(Record(tuple("1234567")), "color_palette", "view", "palette", True, True, colors=2),
    "dinov2": modality_card(
        FeatureMap(4, 3, 3), "dinov2", "view", "codebook", True, False, size=16, sample=1000, iterations=10
    ),
    "canny_edge": modality_card(Image(1, content="intensity"), "canny_edge", "image", None, False, True),
}


@dataclass(frozen=True)
class SmallDataset:
    """What was written. labels: by modality and (key, view) what the label was; view 0 alone for whole images."""

    store: Store
    manifest: Manifest
    units: list[Unit]
    keys: dict[Unit, list[str]]
    labels: dict[str, dict[tuple[str, int], object]]


def label_of(name: str, key: str, view: int):
    """A label that depends on the sample and the view alone. `None` for a caption of keys that end in 3."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(f"{name}{key}{view}".encode()).digest()[:4], "big"))
    if name == "caption":
        return None if key.endswith("3") else f"{WORDS[rng.integers(len(WORDS))]} number {rng.integers(10)}"
    if name == "color_palette":
        return {"2": rng.integers(0, 256, (2, 3)).tolist()}
    if name == "dinov2":
        return rng.standard_normal((4, 3, 3)).astype(np.float16)
    return rng.integers(0, 256, (6, 8)).astype(np.uint8)


def corpus_units(shards: int, units: int, samples: int) -> tuple[list[Unit], list[str]]:
    """The units of a corpus of tars, and the ids of these."""
    ids = [shard_id(f"photos-{index:05d}.tar", 100_000) for index in range(shards)]
    stops = [*range(1024, 1024 * units, 1024), None]
    return [Unit(name, 1024 * at, stop, samples) for name in ids for at, stop in enumerate(stops)], ids


def write_dataset(url, options=None, shards: int = 2, units: int = 2, samples: int = 4) -> SmallDataset:
    """A dataset of the four modalities in CARDS. In the first unit the corpus reader refused a sample, and the palette
    of the first sample's view 1 failed."""
    made = _made(shards, units, samples)
    store = Store(url, options)
    for entry in made.store.list():
        store.replace(entry.name, made.store.read(entry.name))
    labels = {name: dict(rows) for name, rows in made.labels.items()}
    keys = {unit: list(names) for unit, names in made.keys.items()}
    return SmallDataset(store, made.manifest, list(made.units), keys, labels)


@cache
def _made(shards: int, units: int, samples: int) -> SmallDataset:
    """In memory, once: tests take copies."""
    store = Store(f"memory://{uuid.uuid4()}")
    all_units, ids = corpus_units(shards, units, samples)
    keys = {
        unit: [f"photos/{at // units:05d}.{at % units}/{index}" for index in range(samples)]
        for at, unit in enumerate(all_units)
    }
    digest = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
    corpus = CorpusCard(["s3://photos/*.tar"], shards, 100_000 * shards, digest)
    views = {"size": 224, "count": VIEWS, "min_scale": 0.8}
    cards = _fitted(store, all_units[0])
    manifest = Manifest(corpus, 0, views, {"samples": samples, "bytes": 2**26}, cards)
    store.replace(MANIFEST, manifest.to_bytes())
    written = SmallDataset(store, manifest, all_units, keys, {name: {} for name in cards})
    for unit in all_units:
        write_unit(written, unit, failing=unit == all_units[0] and samples > 0)
    return written


def write_unit(dataset: SmallDataset, unit: Unit, failing: bool = False, modalities=tuple(CARDS)) -> None:
    """All modalities of one unit."""
    keys = dataset.keys[unit]
    rejected = [Rejection("broken\x1b[31m.jpg", "the JPEG is truncated", "BadImage")] if failing else []
    writer = UnitWriter(dataset.store, unit, keys, VIEWS)
    digest = writer.reject(rejected)
    for name in modalities:
        card = dataset.manifest.modalities[name]
        rows = [(key, view) for key in keys for view in range(VIEWS if card.on == "view" else 1)]
        labels = {row: label_of(name, *row) for row in rows}
        failures = []
        if failing and name == "color_palette":
            labels[keys[0], 1] = None
            failures = [Failure(keys[0], name, "the palette is empty", "ValueError", unit.name, 1)]
        dataset.labels[name].update(labels)
        result = _result(dataset.store, name, card, keys, labels, failures)
        writer.commit(name, card, result, digest)


def _result(store, name, card, keys, labels, failures) -> Result:
    kind = card.label_kind
    encoded = [None if label is None else kind.encode(kind.check(label)) for label in labels.values()]
    if not card.keeps_tokens:
        return Result([], encoded, failures)
    tokenizer = load_tokenizer(store, name, card)
    rows = [labels.get((key, view), labels[key, 0]) for key in keys for view in range(VIEWS)]
    tokens = [None if label is None else tokenizer.encode([label])[0] for label in rows]
    return Result(tokens, encoded, failures)


def _fitted(store: Store, unit: Unit) -> dict[str, ModalityCard]:
    """The cards with tokenizers that were fitted to a sample of eight and stored."""
    keys = [f"sample/{index}" for index in range(8)]
    aside = to_put_aside(CARDS, train_vocabulary=True)
    assert sorted(aside) == ["caption", "dinov2"]
    for name in aside:
        kind = CARDS[name].label_kind
        labels = [label_of(name, key, 0) for key in keys]
        encoded = [None if label is None else kind.encode(label) for label in labels]
        meta = ShardMeta(unit.name, name, CARDS[name].fingerprint)
        rows = RowKeys([str(index) for index in range(len(keys))], [0] * len(keys))
        store.create(sample_path(name, unit), write_labels(rows, encoded, kind.extension, meta))
    store_vocabulary(store, Vocabulary.train(sample_labels(store, "caption", CARDS["caption"])))
    cards = {
        name: provide_tokenizer(store, name, card, 0) if card.tokens else replace(card) for name, card in CARDS.items()
    }
    remove_sample(store, aside)
    return cards


def path_of(small: SmallDataset, path: str) -> Path:
    return Path(small.store.url, path)


def rewrite_tokens(small: SmallDataset, name: str, unit: Unit, order=None, change=None, spec=None, **meta) -> None:
    """Writes a shard with a right checksum, with its samples in another order, changed tokens, or another meta."""
    path = token_path(name, unit)
    shard = read_tokens(small.store.read(path))
    keys, tokens = shard.rows.keys[::VIEWS], list(shard.tokens)
    if order is not None:
        tokens = [tokens[at * VIEWS + view] for at in order for view in range(VIEWS)]
        keys = [keys[at] for at in order]
    if change is not None:
        tokens = change(tokens)
    card = small.manifest.modalities[name].tokens
    assert card is not None
    assert card.spec is not None
    data = write_tokens(RowKeys.of(keys, VIEWS), tokens, spec or card.spec, replace(shard.meta, **meta))
    small.store.replace(path, data)
