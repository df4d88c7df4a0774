"""Small datasets of real kinds and tokenizers, written as a run writes them, for tests of what reads datasets."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from corpus_files import put_all
from tokenloom.labelers.contract.kinds import FeatureMap, Image, Record, Text
from tokenloom.pipeline.corpus.samples import Rejection
from tokenloom.pipeline.corpus.taken import Listing
from tokenloom.pipeline.corpus.units import Unit, shard_id
from tokenloom.pipeline.dataset.cards import ModalityCard, TokensCard, VocabularyCard, WeightsCard
from tokenloom.pipeline.dataset.layout import ledger_folder, manifest_path, sample_path
from tokenloom.pipeline.dataset.ledger import Failure
from tokenloom.pipeline.dataset.listings import store_listing
from tokenloom.pipeline.dataset.manifest import CorpusCard, Manifest, publish
from tokenloom.pipeline.dataset.reader import ColumnReader
from tokenloom.pipeline.dataset.shards import RowKeys, ShardMeta, read_tokens, write_labels, write_tokens
from tokenloom.pipeline.dataset.tokenizers import load_tokenizer
from tokenloom.pipeline.engine.commit import UnitWriter
from tokenloom.pipeline.engine.labeling import Result
from tokenloom.pipeline.fitting.fit import provide_tokenizer
from tokenloom.pipeline.fitting.sample import (
    remove_sample,
    sample_labels,
    store_vocabulary,
    to_put_aside,
    with_vocabulary,
)
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.contract.vocabulary import Vocabulary

VIEWS = 2
WORDS = ("a cat", "a dog on a chair", "two cups of coffee", "a rocket at night")


def modality_card(kind, labeler: str, on: str, tokenizer: str | None, tokens: bool, labels: bool, **params):
    return ModalityCard(
        kind=json.loads(json.dumps(kind.describe())),  # as a manifest gives it back
        labeler=labeler,
        version=1,
        on=on,
        params={},
        weights=WeightsCard("hub/model", "ab" * 32, "Apache-2.0") if labeler == "dinov2" else None,
        licence="Apache-2.0",
        requires={},
        tokens=_tokens(tokenizer, params) if tokenizer else None,
        keeps_tokens=tokens,
        keeps_labels=labels,
    )


def _tokens(tokenizer: str, params) -> TokensCard:
    texts = VocabularyCard("", False, {"caption": "captions"}) if tokenizer in ("wordpiece", "palette") else None
    return TokensCard(tokenizer, 1, params, vocabulary=texts)


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

    @property
    def reader(self) -> ColumnReader:
        return ColumnReader(self.store, self.manifest.modalities, VIEWS)

    def token_path(self, name: str, unit: Unit) -> str:
        return self.reader.token_path(unit, name)

    def label_path(self, name: str, unit: Unit) -> str:
        return self.reader.label_path(unit, name)

    def ledger_path(self, name: str, unit: Unit, labels: bool = False) -> str:
        """That of the tokens, or of the labels where there are no tokens or they are asked for; or of `corpus`."""
        card = self.manifest.modalities.get(name) or next(iter(self.manifest.modalities.values()))
        generation = (
            card.corpus_generation if name == "corpus" else card.labels_generation if labels else card.generation
        )
        folder = ledger_folder(name, generation)
        (found,) = (entry.name for entry in self.store.list(folder) if entry.name.startswith(f"{unit.name}-"))
        return f"{folder}/{found}"


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


def corpus_units(shards: int, units: int, samples: int) -> list[Unit]:
    """The units of a corpus of tars."""
    ids = [shard_id(f"photos-{index:05d}.tar", 100_000) for index in range(shards)]
    stops = [*range(1024, 1024 * units, 1024), None]
    return [Unit(name, 1024 * at, stop, samples) for name in ids for at, stop in enumerate(stops)]


def write_dataset(url, options=None, shards: int = 2, units: int = 2, samples: int = 4) -> SmallDataset:
    """A dataset of the four modalities in CARDS. In the first unit the corpus reader refused a sample, and the palette
    of the first sample's view 1 failed."""
    made = _made(shards, units, samples)
    store = Store(url, options)
    put_all(store, {entry.name: made.store.read(entry.name) for entry in made.store.list()})
    labels = {name: dict(rows) for name, rows in made.labels.items()}
    keys = {unit: list(names) for unit, names in made.keys.items()}
    return SmallDataset(store, made.manifest, list(made.units), keys, labels)


@cache
def _made(shards: int, units: int, samples: int) -> SmallDataset:
    """In memory, once: tests take copies."""
    store = Store(f"memory://{uuid.uuid4()}")
    all_units = corpus_units(shards, units, samples)
    keys = {
        unit: [f"photos/{at // units:05d}.{at % units}/{index}" for index in range(samples)]
        for at, unit in enumerate(all_units)
    }
    listing = Listing("tar", {f"photos-{index:05d}.tar": 100_000 for index in range(shards)})
    store_listing(store, listing)
    corpus = CorpusCard(["s3://photos/*.tar"], "s3://photos", shards, 100_000 * shards, [listing.digest])
    views = {"size": 224, "count": VIEWS, "min_scale": 0.8}
    cards = _fitted(store, all_units[0])
    manifest = Manifest(corpus, 0, views, {"samples": samples, "bytes": 2**26}, cards)
    store.create(manifest_path(1), manifest.to_bytes())
    written = SmallDataset(store, manifest, all_units, keys, {name: {} for name in cards})
    for unit in all_units:
        write_unit(written, unit, failing=unit == all_units[0] and samples > 0)
    return written


def write_unit(
    dataset: SmallDataset, unit: Unit, failing: bool = False, modalities: Sequence[str] = tuple(CARDS)
) -> None:
    """All modalities of one unit."""
    keys = dataset.keys[unit]
    rejected = [Rejection("broken\x1b[31m.jpg", "the JPEG is truncated", "BadImage")] if failing else []
    writer = UnitWriter(dataset.store, unit, keys, VIEWS)
    digest = writer.reject(rejected, next(iter(CARDS.values())).corpus_generation)
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


def repair_palette(dataset: SmallDataset, unit: Unit) -> None:
    """Tries the unit's palettes again, and now all of them are made: a new revision, where one had failed."""
    name, keys = "color_palette", dataset.keys[unit]
    card = dataset.manifest.modalities[name]
    labels: dict = {(key, view): label_of(name, key, view) for key in keys for view in range(VIEWS)}
    result = _result(dataset.store, name, card, keys, labels, [])
    UnitWriter(dataset.store, unit, keys, VIEWS).repair(name, card, result, keys)


def made_anew(dataset: SmallDataset, name: str, units: int | None = None, **changes) -> SmallDataset:
    """What the dataset will be when a modality is made otherwise: `units` of its units are written, by default all, and
    no manifest yet."""
    card = replace(dataset.manifest.modalities[name], **changes)
    manifest = replace(dataset.manifest, modalities={**dataset.manifest.modalities, name: card})
    renewed = replace(dataset, manifest=manifest)
    for unit in dataset.units[:units]:
        write_unit(renewed, unit, failing=unit == dataset.units[0], modalities=[name])
    return renewed


def pending(dataset: SmallDataset, renewed: SmallDataset, name: str) -> Manifest:
    """Publishes that a modality is being made anew."""
    card = renewed.manifest.modalities[name]
    return publish(dataset.store, lambda now: replace(dataset.manifest, pending={name: card}))


def _result(store, name, card, keys, labels, failures) -> Result:
    kind = card.label_kind
    encoded = [None if label is None else kind.encode(kind.check(label)) for label in labels.values()]
    if not card.keeps_tokens:
        return Result(labels=encoded, failures=failures)
    tokenizer = load_tokenizer(store, name, card)
    rows = [labels.get((key, view), labels[key, 0]) for key in keys for view in range(VIEWS)]
    tokens = [None if label is None else tokenizer.encode([label])[0] for label in rows]
    return Result(tokens=tokens, labels=encoded, failures=failures)


def _fitted(store: Store, unit: Unit) -> dict[str, ModalityCard]:
    """The cards with tokenizers that were fitted to a sample of eight and stored."""
    keys = [f"sample/{index}" for index in range(8)]
    aside = to_put_aside(CARDS)
    assert sorted(aside) == ["caption", "dinov2"]
    for name in aside:
        kind = CARDS[name].label_kind
        labels = [label_of(name, key, 0) for key in keys]
        encoded = [None if label is None else kind.encode(label) for label in labels]
        meta = ShardMeta(unit.name, name, CARDS[name].labels_generation)
        rows = RowKeys([str(index) for index in range(len(keys))], [0] * len(keys))
        store.create(sample_path(name, "sample", unit), write_labels(rows, encoded, kind.extension, meta))
    texts = sample_labels(store, "caption", CARDS["caption"], "sample")
    digest = store_vocabulary(store, Vocabulary.train(texts))
    cards = {name: with_vocabulary(card, digest) for name, card in CARDS.items()}
    cards = {
        name: provide_tokenizer(store, name, card, 0, "sample") if card.tokens else card for name, card in cards.items()
    }
    remove_sample(store, aside, "sample")
    return cards


def path_of(small: SmallDataset, path: str) -> Path:
    return Path(small.store.url, path)


def rewrite_tokens(small: SmallDataset, name: str, unit: Unit, order=None, change=None, spec=None, **meta) -> None:
    """Writes a shard with a right checksum, with its samples in another order, changed tokens, or another meta."""
    path = small.token_path(name, unit)
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
