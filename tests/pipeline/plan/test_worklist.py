"""The worklist: exactly what is missing, in the corpus' order, in as few pieces as can be; and what listings tell."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_dataset import CARDS, write_dataset
from tokenloom.pipeline.corpus.corpus import Shard
from tokenloom.pipeline.corpus.unit_sets import UnitSet
from tokenloom.pipeline.corpus.units import Unit, UnitNames
from tokenloom.pipeline.dataset.finished import is_complete, list_finished
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.plan.worklist import Work, Worklist, worklist

MODALITIES = ("rgb", "depth", "caption")


def corpus_shard(number: int) -> Shard:
    return Shard(f"part-{number:012x}", "/corpus", f"part-{number}.tar", "tar", 1000)


def chain(shard: Shard, lengths: list[int]) -> list[Unit]:
    """The units of one corpus shard, side by side from its start to its end."""
    starts = [sum(lengths[:at]) for at in range(len(lengths))]
    return [Unit(shard.id, start, stop, 7) for start, stop in zip(starts, [*starts[1:], None], strict=True)]


@st.composite
def outputs(draw):
    """Shards, their units, and for every unit the modalities that lack it."""
    lengths = draw(st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=8), min_size=1, max_size=4))
    shards = [corpus_shard(number) for number in range(len(lengths))]
    units = {shard: chain(shard, own) for shard, own in zip(shards, lengths, strict=True)}
    subsets = st.sets(st.sampled_from(MODALITIES)).map(lambda names: tuple(n for n in MODALITIES if n in names))
    return units, {unit: draw(subsets) for own in units.values() for unit in own}


@given(outputs())
def test_the_worklist_is_exactly_what_is_missing(output):
    units, missing = output
    done = {name: {unit for unit in missing if name not in missing[unit]} for name in MODALITIES}
    expected = []
    for shard, own in units.items():
        for todo, alike in groupby(own, key=missing.__getitem__):
            first, *_, last = [*alike] * 2
            if todo:
                expected.append(Work(shard, first.start, last.stop, todo))
    assert worklist(list(units), done, {}, MODALITIES) == expected


@given(outputs())
def test_neighbours_that_lack_the_same_are_one_piece(output):
    units, missing = output
    done = {name: {unit for unit in missing if name not in missing[unit]} for name in MODALITIES}
    for one, other in pairwise(worklist(list(units), done, {}, MODALITIES)):
        assert (one.shard, one.stop, one.todo) != (other.shard, other.start, other.todo)


@given(outputs())
def test_the_worklist_looks_at_the_asked_modalities_alone(output):
    units, missing = output
    done = {name: {unit for unit in missing if name not in missing[unit]} for name in MODALITIES}
    works = worklist(list(units), done, {}, ["depth"])
    assert {work.todo for work in works} <= {("depth",)}
    assert bool(works) == any("depth" in names for names in missing.values())


@given(outputs(), outputs())
def test_labels_that_are_kept_are_told(output, other):
    """Of every piece of work, the modalities whose labels all its units have, and no other."""
    units, missing = output
    _, labels = other
    everything = list(missing)
    kept = {
        name: ({unit for unit, names in zip(everything, labels.values(), strict=False) if name in names}, {})
        for name in MODALITIES
    }
    done = {name: {unit for unit in missing if name not in missing[unit]} for name in MODALITIES}
    works = worklist(list(units), done, kept, MODALITIES)
    found = {
        unit: (set(work.todo), set(work.kept))
        for work in works
        for unit in everything
        if unit.shard == work.shard.id and work.start <= unit.start < (work.stop or 2**62)
    }
    wanted = {unit: ({*names}, {n for n, (held, _) in kept.items() if unit in held}) for unit, names in missing.items()}
    assert found == {unit: told for unit, told in wanted.items() if told[0]}


def test_a_worklist_is_a_sequence_of_what_it_was_made_of():
    one, other = corpus_shard(0), corpus_shard(1)
    works = [
        Work(one, 0, 100, ("rgb",), ("depth",)),
        Work(one, 100, 2**62, ("rgb",), ("depth",), (("depth", 100, 2),)),
        Work(other, 7, None, ("depth", "caption")),
        Work(one, 0, 100, ("rgb",), keys={"rgb": ("a", "b")}),
    ]
    made = Worklist(works)
    assert ([*made], made[1], made[-1], made[1:3], len(made)) == (works, works[1], works[3], works[1:3], 4)
    assert made == works
    assert made != works[:3]
    assert made != [*works[:3], works[0]]
    assert made.shards == [one, other]
    assert set(made.kinds) == {(work.todo, work.kept) for work in works}
    assert made.whole == works[:3]
    assert not Worklist()
    with pytest.raises(IndexError):
        made[4]


def test_pieces_that_differ_from_their_neighbours_take_few_bytes_each():
    """So that a million of them fit beside the rest of a plan."""
    shard, count = corpus_shard(0), 20_000
    units = [Unit(shard.id, start, None if start == count - 1 else start + 1, 7) for start in range(count)]
    sets = UnitSet.of(units)
    done = {"rgb": UnitSet.of(units[::2], sets.table), "depth": UnitSet.of(units[1::2], sets.table)}
    assert len(sets.table.columns.start) == count  # which the table keeps, whoever asks first
    tracemalloc.start()
    works = worklist([shard], done, {}, ["rgb", "depth"])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(works) == count
    assert held < 40 * count


@given(outputs(), st.randoms())
def test_is_complete(output, rng: random.Random):
    for own in output[0].values():
        shuffled = rng.sample(own, len(own))
        assert is_complete(shuffled)
        assert not is_complete(shuffled[1:])


def test_units_that_overlap_are_refused():
    shard = corpus_shard(0)
    one, other = Unit(shard.id, 0, 100, 7), Unit(shard.id, 50, None, 7)
    with pytest.raises(DatasetError, match=r"units of part-0.tar overlap at part-000000000000-000000000050-end-00007"):
        worklist([shard], {"rgb": [one, other]}, {}, ["rgb"])
    with pytest.raises(DatasetError, match="overlap"):
        worklist([shard], {"rgb": [Unit(shard.id, 0, None, 7), Unit(shard.id, 100, None, 7)]}, {}, ["rgb"])


def test_listings_tell_what_is_finished(tmp_path):
    small = write_dataset(tmp_path)
    assert {name: found.units for name, found in list_finished(small.store, small.manifest.modalities, ()).items()} == {
        name: frozenset(small.units) for name in CARDS
    }
    first, second = small.units[:2]
    small.store.delete(small.label_path("caption", first))
    small.store.delete(small.token_path("caption", second))
    stranger, folder = replace(first, shard="other-0123456789ab"), small.token_path("caption", first).rpartition("/")[0]
    for name in (f"{stranger.name}.png", f"below/{stranger.name}.parquet", f"{stranger.name}.tar", "notes.parquet"):
        small.store.create(f"{folder}/{name}", b"")
    small.store.create(f"caption/tokens-{'0' * 16}/{first.name}.parquet", b"")
    finished = list_finished(small.store, small.manifest.modalities, ())["caption"]
    assert finished.units == frozenset(small.units[2:])


def test_the_highest_complete_revision_of_a_unit_counts(tmp_path):
    small = write_dataset(tmp_path)
    first, second, third = small.units[:3]

    def again(unit: Unit, revision: int, *kinds: str) -> None:
        for kind in kinds:
            path = (small.token_path if kind == "tokens" else small.label_path)("caption", unit)
            stem, _, extension = path.rpartition(".")
            small.store.create(f"{stem}-r{revision}.{extension}", small.store.read(path))

    again(first, 1, "labels")
    again(second, 1, "labels", "tokens")
    again(second, 3, "labels", "tokens")
    again(second, 4, "tokens")
    again(third, 12, "labels", "tokens")
    small.store.delete(small.label_path("caption", third))
    finished = list_finished(small.store, small.manifest.modalities, ())["caption"]
    assert finished.units == frozenset(small.units)
    assert finished.revisions == {second: 3, third: 12}


def test_modalities_share_their_units(tmp_path):
    """A million shards of ten modalities are a hundred thousand units."""
    small = write_dataset(tmp_path)
    progress = list_finished(small.store, small.manifest.modalities, ())
    (table,) = {UnitSet.of(found.units).table for found in progress.values()}
    assert len(table) == len(small.units)


def test_a_name_is_parsed_once():
    names, unit = UnitNames(), Unit("part-0123456789ab", 0, None, 7)
    assert names[unit.name] == unit
    assert names[unit.name] is names[unit.name]
    assert names["notes"] is None
    assert names[f"below/{unit.name}"] is None
