"""Mixtures of datasets: the samples that they have, whatever asks for them, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_dataset import SmallDataset, write_dataset
from tokenloom.pipeline.corpus.units import Unit
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.tokenizers.contract.special_tokens import EOS, FIRST_COORDINATE
from tokenloom.training.data import batches as making
from tokenloom.training.data.batch import Batch
from tokenloom.training.data.batches import Batches
from tokenloom.training.data.masking import Masked, Scheme
from tokenloom.training.data.mixed import MixedDataset, UnmixableError
from tokenloom.training.data.mixture import Mixture

ALL = ("caption", "color_palette", "dinov2")
EVEN = Scheme(1, dict.fromkeys(ALL, 1.0), dict.fromkeys(ALL, 1.0))


@pytest.fixture(scope="module")
def datasets(tmp_path_factory) -> list[SmallDataset]:
    folder = tmp_path_factory.mktemp("mixed")
    return [write_dataset(folder / "one"), write_dataset(folder / "two", shards=3)]


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    """Of some of the few batches that are asked for here, not of a thousand samples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "_BLOCK", 64)
        yield


def mixture(datasets: list[SmallDataset], *modalities: tuple[str, ...], **more: Any) -> Mixture:
    names = modalities or (ALL,) * len(datasets)
    mixed = [
        MixedDataset(name, open_dataset(one.store.url).reader, chosen, weight)
        for name, one, chosen, weight in zip("ab", datasets, names, (3.0, 1.0), strict=False)
    ]
    return Mixture(mixed, [EVEN], (20, 20), (20, 20), **{"window": 2, **more})


def assert_same(one: Masked, other: Masked, rows: slice) -> None:
    for field in fields(Masked):
        part = getattr(one, field.name)
        if part is not None:
            np.testing.assert_array_equal(part[rows], getattr(other, field.name))


def joined(batches: list[Batch]) -> Batch:
    """One batch of several, row after row."""

    def side(parts: list[Masked]) -> Masked:
        names = [field.name for field in fields(Masked) if getattr(parts[0], field.name) is not None]
        return Masked(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    positions = np.concatenate([batch.positions for batch in batches])
    return Batch(
        positions,
        batches[0].modalities,
        side([batch.inputs for batch in batches]),
        side([batch.targets for batch in batches]),
        np.concatenate([batch.skipped for batch in batches]),
    )


def test_batches_hold_the_datasets_tokens(datasets):
    """With budgets enough for all of a sample, of which each token then is an input or a target."""
    made = mixture(datasets[:1])
    made.input_tokens = made.target_tokens = (20_000, 20_000)
    rows = {row.values["dinov2"].tobytes(): row for row in open_dataset(datasets[0].store.url).iterate(ALL)}
    assert len(rows) == 32
    batch, seen = made.batch(np.arange(16)), set()
    assert batch.targets.labels is not None
    for index in range(16):
        grid, caption = np.full(9, -1, np.int64), set()
        for side, values in ((batch.inputs, batch.inputs.ids), (batch.targets, batch.targets.labels)):
            here = side.modality[index] == batch.modalities.index("dinov2")
            grid[side.position[index][here]] = values[index][here]
            caption |= set(values[index][side.modality[index] == batch.modalities.index("caption")].tolist())
        row = rows[grid.astype(np.uint16).tobytes()]
        words = set() if row.values["caption"] is None else {*row.values["caption"].tolist(), EOS}
        assert {one for one in caption if one == EOS or one >= FIRST_COORDINATE} == words
        seen.add(row.key)
    assert len(seen) == 16  # each sample once, before any comes again with its other view


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(st.data())
def test_batches_are_the_same_for_any_number_of_ranks_and_across_restarts(datasets, data: st.DataObject):
    size, steps = 16, 6
    whole = Batches(mixture(datasets), size)
    stream = iter(whole)
    expected = joined([next(stream) for _ in range(steps)])
    state: dict[str, Any] = {"position": 0, "mixture": whole.mixture.digest}
    found: list[Batch] = []
    while state["position"] < size * steps:
        world = data.draw(st.sampled_from([1, 2, 4, 8]))
        ranks = [Batches(mixture(datasets), size // world, rank, world) for rank in range(world)]
        for rank in ranks:
            rank.load_state_dict(state)
        streams = [iter(rank) for rank in ranks]
        for _ in range(data.draw(st.integers(1, 3))):
            found += [next(one) for one in streams]
        assert len({tuple(rank.state_dict().items()) for rank in ranks}) == 1
        state = ranks[0].state_dict()
    together = joined(found)
    rows = slice(0, size * steps)
    np.testing.assert_array_equal(together.positions[rows], expected.positions)
    assert_same(together.inputs, expected.inputs, rows)
    assert_same(together.targets, expected.targets, rows)


def test_what_a_sample_or_a_dataset_lacks_is_masked(datasets):
    made = mixture(datasets, ALL, ("dinov2",))
    batch = made.batch(np.arange(400))
    caption, turns = batch.modalities.index("caption"), [0] * 2
    for source, places in made._order.places(np.arange(400)):
        rows = np.searchsorted(batch.positions, places.position)
        turns[source] = len(rows)
        both = np.concatenate([batch.inputs.modality[rows], batch.targets.modality[rows]], axis=1)
        has = (both == caption).any(axis=1)
        assert has.any() == (source == 0)
        assert not has.all()
    assert turns == [300, 100]


@settings(max_examples=8, deadline=None)
@given(st.integers(2, 9), st.integers(0, 99))
def test_of_a_long_text_any_window_is_seen(datasets, most: int, seed: int):
    """Of documents that are longer than a sample may be; [EOS] is their last token, and no window's."""
    keep = Scheme(1, {"caption": 1.0}, {"caption": 1.0}, {"caption": "all"})
    one = MixedDataset("a", open_dataset(datasets[0].store.url).reader, ["caption"])
    made = Mixture([one], [keep], (50, 50), (50, 50), seed, max_tokens={"caption": most})
    rows = open_dataset(datasets[0].store.url).iterate(["caption"])
    texts = [[*row.values["caption"].tolist(), EOS] for row in rows if row.values["caption"] is not None]
    windows = {tuple(text[at : at + most]) for text in texts for at in range(max(1, len(text) - most + 1))}
    batch = made.batch(np.arange(1500))
    seen = {tuple(ids[used].tolist()) for ids, used in zip(batch.inputs.ids, batch.inputs.used, strict=True)} - {()}
    assert seen <= windows
    assert len(seen) > 0.9 * len(windows)
    assert batch.most == (most,)


def test_ranks_with_small_batches_make_several_at_once(datasets):
    """And go on where a state says that is loaded while they are at it."""
    whole, stream = Batches(mixture(datasets), 4), iter(Batches(mixture(datasets), 32))
    together, parts = next(stream), iter(whole)
    made = joined([next(parts) for _ in range(8)])
    np.testing.assert_array_equal(made.positions, together.positions)
    assert_same(made.inputs, together.inputs, slice(None))
    whole.load_state_dict({**whole.state_dict(), "position": 1000})
    assert next(parts).positions.tolist() == [1000, 1001, 1002, 1003]


@pytest.mark.parametrize("size", [1, 4, 20])
def test_each_unit_is_read_once_an_epoch(datasets, size: int):
    """Also where a batch ends one window and begins the next. 20 positions are 15 of the first dataset's 16 samples."""
    made, read = mixture(datasets), Counter[str]()
    columns = made.columns[0]
    original = columns.token_column

    def counting(unit: Unit, modality: str):
        read[f"{unit.name} {modality}"] += 1
        return original(unit, modality)

    columns.token_column = counting
    for begin in range(0, 20, size):
        made.batch(np.arange(begin, begin + size))
    assert len(read) == 4 * len(ALL)
    assert set(read.values()) == {1}


def test_texts_of_two_vocabularies_are_refused(datasets):
    made = mixture(datasets, ("caption",), ("color_palette",))
    reader = made.datasets[1].reader
    card = reader.cards["color_palette"]
    assert card.tokens is not None
    assert card.tokens.vocabulary is not None
    other = replace(card, tokens=replace(card.tokens, vocabulary=replace(card.tokens.vocabulary, digest="0" * 64)))
    reader.cards = {**reader.cards, "color_palette": other}
    with pytest.raises(
        DatasetError, match=r"its color_palette is written in another text vocabulary .* than caption of a"
    ):
        Mixture(made.datasets, [EVEN], (8, 8), (8, 8))


def test_a_position_is_masked_otherwise_each_time_it_comes(datasets):
    batch = mixture(datasets[:1]).batch(np.arange(64))
    assert len({row.tobytes() for row in batch.inputs.position}) > 50


def test_datasets_whose_ids_mean_different_things_are_refused(datasets):
    made = mixture(datasets)
    reader = made.datasets[1].reader
    card = reader.cards["dinov2"]
    assert card.tokens is not None
    other = replace(card, version=2, tokens=replace(card.tokens, files={"model.safetensors": "0" * 64}))
    reader.cards = {**reader.cards, "dinov2": other}
    with pytest.raises(DatasetError, match=r"dinov2 was tokenised by one tokenizer in \S+one and by another in \S+two"):
        Mixture(made.datasets, [EVEN], (8, 8), (8, 8))


def test_a_state_of_another_mixture_is_refused(datasets):
    state = Batches(mixture(datasets), 4).state_dict()
    for other in (
        mixture(datasets[:1]),
        mixture(datasets, seed=1),
        mixture(datasets, window=3),
        mixture(datasets[::-1]),
    ):
        with pytest.raises(DatasetError, match="the state is of another mixture"):
            Batches(other, 4).load_state_dict(state)


def test_a_modality_without_tokens_is_refused(datasets):
    with pytest.raises(DatasetError, match="canny_edge has no tokens"):
        mixture(datasets[:1], ("canny_edge",))


@pytest.mark.parametrize("asked", [{"dinov2": 8}, {"capton": 8}, {"caption": 0}])
def test_lengths_are_for_texts(datasets, asked: dict[str, int]):
    with pytest.raises(UnmixableError, match="it takes texts, here caption, and at least 1 token"):
        mixture(datasets, max_tokens=asked)


@pytest.mark.slow
def test_it_needs_neither_ray_nor_torch_nor_labelers():
    heavy = ("ray", "torch", "cv2", "PIL", "pydantic", "yaml", "tokenizers", "tokenloom.labelers.contract.kinds")
    code = f"import sys, tokenloom.training.data.mixture; print([one for one in {heavy} if one in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
