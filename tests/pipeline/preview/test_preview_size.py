"""How much the preview reads and writes, whatever the size of the dataset."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from galleries import gallery_of, overview_of, without_corpus
from hypothesis import given
from hypothesis import strategies as st
from small_dataset import SmallDataset, label_of, write_dataset
from tokenloom.pipeline.corpus.units import Unit, spread
from tokenloom.pipeline.dataset.tokenizers import load_tokenizer
from tokenloom.pipeline.engine.commit import UnitWriter
from tokenloom.pipeline.engine.labeling import Result
from tokenloom.pipeline.preview.cells import PAGE
from tokenloom.pipeline.preview.preview import pick_samples
from weaving import write_manifest

pytestmark = pytest.mark.slow


@pytest.fixture
def small(tmp_path) -> SmallDataset:
    """Four modalities in two views of 16 samples, with a refused sample and a failed label."""
    return without_corpus(write_dataset(tmp_path / "dataset"), tmp_path)


def units_of(*counts: int) -> list[Unit]:
    return [Unit("photos-0123456789ab", 100 * place, 100 * (place + 1), count) for place, count in enumerate(counts)]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60), st.integers(1, 500))
def test_picks_are_as_many_as_wanted_in_few_units(counts, limit):
    units = units_of(*counts)
    picks = pick_samples(units, limit)
    picked = [(unit, index) for unit, indices in picks.items() for index in indices]
    assert len(picked) <= limit
    assert picked == sorted(set(picked))
    assert all(0 <= index < unit.count for unit, index in picked)
    if len(set(counts)) == 1 or limit >= sum(counts):
        assert len(picked) == min(limit, sum(counts))
    if min(counts) >= PAGE:
        assert len(picks) <= -(-limit // PAGE) or len(picked) == sum(counts)


@given(st.lists(st.integers(), max_size=50), st.integers(1, 60))
def test_spread_takes_from_all_parts(items, count):
    places = spread(list(range(len(items))), count)
    assert len(places) == min(count, len(items))
    gaps = np.diff([-1, *places, len(items)])
    assert gaps.max(initial=1) <= len(items) / count + 1.5


def write_texts(small: SmallDataset, samples: int, per_unit: int) -> None:
    """Makes the dataset one of captions and palettes alone, with so many samples."""
    shutil.rmtree(Path(small.store.url, "quarantine"))
    names = ("caption", "color_palette")
    cards = {name: small.manifest.modalities[name] for name in names}
    manifest = replace(small.manifest, modalities=cards, views={**small.manifest.views, "count": 1})
    write_manifest(small.store, manifest)
    units = units_of(*[per_unit] * (samples // per_unit))
    for name, card in cards.items():
        shutil.rmtree(Path(small.store.url, name))
        made = [label_of(name, str(index), 1) or "" for index in range(10)]
        tokens = load_tokenizer(small.store, name, card).encode(made)
        labels = [card.label_kind.encode(label) for label in made]
        for number, unit in enumerate(units):
            keys = [f"folder-{number:03d}/photograph-{index:05d}" for index in range(per_unit)]
            result = Result([tokens[index % 10] for index in range(per_unit)])
            result.labels += [labels[index % 10] for index in range(per_unit)]
            UnitWriter(small.store, unit, keys, 1).commit(name, card, result)


@pytest.mark.slow
def test_ten_thousand_samples_make_light_pages(small, tmp_path):
    """All of them in pages of some kilobytes, or 200 of them from a few units."""
    write_texts(small, samples=10_000, per_unit=250)
    gallery = gallery_of(small, tmp_path, None)
    pages = sorted((gallery / "data").glob("page-*.js"))
    assert len(pages) == -(-10_000 // PAGE)
    assert max(page.stat().st_size for page in pages) < 40_000
    assert (gallery / "data/overview.js").stat().st_size < 600_000
    assert len(overview_of(gallery)["cards"]) == 10_000
    few = overview_of(gallery_of(small, tmp_path, 200))
    assert len(few["cards"]) == 200
    assert few["samples"] == few["surveyed"]["samples"] == 10_000
