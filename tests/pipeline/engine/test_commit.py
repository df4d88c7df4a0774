"""Commit: what one unit came to is written once, by whoever is first, and a unit that is tried again anew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_dataset import VIEWS, SmallDataset, repair_palette, write_dataset
from tokenloom.pipeline.dataset.layout import label_path, token_path
from tokenloom.pipeline.dataset.ledger import Failure
from tokenloom.pipeline.dataset.reader import Column, DatasetReader
from tokenloom.pipeline.engine.commit import UnitWriter, Written
from tokenloom.pipeline.engine.labeling import Result
from weaving import digests

NAME = "color_palette"


@pytest.fixture
def small(tmp_path) -> SmallDataset:
    """The palette of the first sample's view 1 has failed in the first unit."""
    return write_dataset(tmp_path)


def writer_of(small: SmallDataset, **more) -> UnitWriter:
    unit = small.units[0]
    return UnitWriter(small.store, unit, small.keys[unit], VIEWS, **more)


def read(small: SmallDataset) -> tuple[Column, Column]:
    """Tokens and labels of the first unit's palettes, as a reader that comes now has them."""
    columns = DatasetReader(small.store, small.manifest).columns
    return columns.tokens(small.units[0], NAME), columns.labels(small.units[0], NAME)


def result_of(small: SmallDataset) -> Result:
    """What the dataset holds of the first unit's palettes."""
    tokens, labels = read(small)
    failures = DatasetReader(small.store, small.manifest).columns.failures(small.units[0], tokens)
    return Result(tokens.values, labels.values, failures)


def failed(small: SmallDataset, sample: int, reason: str = "too dark") -> Failure:
    """Of all views of a sample."""
    unit = small.units[0]
    return Failure(small.keys[unit][sample], NAME, reason, "ValueError", unit.name)


def revisions(small: SmallDataset) -> list[int]:
    """Those of which there are labels, and of which there are tokens."""
    card, unit = small.manifest.modalities[NAME], small.units[0]
    places = [(label_path, card.labels_generation), (token_path, card.tokens_generation)]
    return [sum(small.store.exists(path(NAME, made, unit, n)) for n in range(9)) for path, made in places]


# --- a unit -----------------------------------------------------------------------------------------------------------


def test_what_is_written_again_changes_nothing(small):
    card, before = small.manifest.modalities[NAME], digests(small.store.url)
    digest = read(small)[0].meta.rejected
    assert writer_of(small).commit(NAME, card, result_of(small), digest).failed == 1
    assert digests(small.store.url) == before


def test_where_another_writer_was_quicker_its_shards_hold(small):
    """And its failures count, not those of whoever came later."""
    card, before = small.manifest.modalities[NAME], digests(small.store.url)
    nothing = Result([None] * 8, [None] * 8, [failed(small, sample) for sample in range(4)])
    assert writer_of(small).commit(NAME, card, nothing).failed == 1
    after = digests(small.store.url)
    assert before.items() <= after.items()
    assert all(path.startswith("quarantine/") for path in after.keys() - before.keys())


def test_labels_that_another_writer_made_get_no_tokens_of_this_one(small):
    small.store.delete(small.token_path(NAME, small.units[0]))
    nothing = Result([None] * 8, [None] * 8, [failed(small, sample) for sample in range(4)])
    assert writer_of(small).commit(NAME, small.manifest.modalities[NAME], nothing).failed == 1
    assert revisions(small) == [1, 0]


def test_kept_labels_are_let_be(small):
    """Their tokens alone are made, with what fails on the way to them."""
    result, card = result_of(small), small.manifest.modalities[NAME]
    path = small.token_path(NAME, small.units[0])
    data = small.store.read(path)
    small.store.delete(path)
    assert (
        writer_of(small, kept=[NAME]).commit(NAME, card, replace(result, labels=[]), read_rejected(small)).failed == 1
    )
    assert small.store.read(path) == data


def read_rejected(small: SmallDataset) -> str:
    unit = small.units[0]
    columns = DatasetReader(small.store, small.manifest).columns
    return columns.tokens(unit, "dinov2").meta.rejected


# --- a unit that is tried again ---------------------------------------------------------------------------------------


def repaired(small: SmallDataset, result: Result, *samples: int, revision: int = 0) -> Written:
    keys = small.keys[small.units[0]]
    writer = writer_of(small, revisions={NAME: revision})
    return writer.repair(NAME, small.manifest.modalities[NAME], result, [keys[sample] for sample in samples])


def test_what_succeeds_gets_its_values_and_the_rest_stays(small):
    """Values that aren't tried again stay as they were, whatever they come to now."""
    before = result_of(small)
    again = Result([ids if ids is None else ids[::-1] for ids in before.tokens], [b'{"2": []}'] * 8)
    again.tokens[1] = before.tokens[0]
    assert repaired(small, again, 0).failed == 0
    after = result_of(small)
    assert revisions(small) == [2, 2]
    np.testing.assert_array_equal(after.tokens[1], before.tokens[0])
    for one, other in zip(after.tokens[2:], before.tokens[2:], strict=True):
        np.testing.assert_array_equal(one, other)
    assert after.labels[2:] == before.labels[2:]
    assert after.failures == []
    tokens, labels = read(small)
    assert tokens.meta.rejected == labels.meta.rejected == read_rejected(small)


def test_what_fails_again_takes_no_value_away(small):
    before = result_of(small)
    nothing = Result([None] * 8, [None] * 8, [failed(small, sample) for sample in range(4)])
    assert repaired(small, nothing, 0, 1, 2, 3).failed == 1
    after = result_of(small)
    assert after.labels == before.labels
    assert [failure.reason for failure in after.failures] == ["too dark"]


def test_what_fails_again_for_the_same_reason_makes_no_revision(small):
    before = digests(small.store.url)
    assert repaired(small, result_of(small), 0).failed == 1
    assert digests(small.store.url) == before


def test_a_revision_goes_on_from_the_last(small):
    first = Result([None] * 8, [None] * 8, [failed(small, 0, "still too dark")])
    assert repaired(small, first, 0).failed == 1
    unit = small.units[0]
    repair_palette(small, unit)  # from revision 0, by who doesn't know of the first: nobody's number is taken twice
    assert revisions(small) == [3, 3]
    assert result_of(small).failures == []
    assert repaired(small, first, 0, revision=2).failed == 0
    assert revisions(small) == [3, 3]


def test_who_finds_another_at_work_gives_way(small):
    """Labels without their tokens are those of one who is at it, or died at it: then a run finishes what he began."""
    card, unit = small.manifest.modalities[NAME], small.units[0]
    theirs = label_path(NAME, card.labels_generation, unit, 1)
    small.store.create(theirs, small.store.read(small.label_path(NAME, unit)))
    repair_palette(small, unit)
    assert revisions(small) == [2, 1]
    assert [failure.view for failure in result_of(small).failures] == [1]


def test_what_two_mended_at_once_stays_mended(small):
    """Both began from the same revision; the second to write goes on from what the first has written."""
    sound = result_of(small)
    card, unit = small.manifest.modalities[NAME], small.units[0]
    lacking = Result([None] * 4 + sound.tokens[4:], [None] * 4 + sound.labels[4:], [failed(small, 0), failed(small, 1)])
    for path in (small.token_path(NAME, unit), small.label_path(NAME, unit)):
        small.store.delete(path)
    writer_of(small).commit(NAME, card, lacking, read_rejected(small))
    tokens, labels = [sound.tokens[0]] * 8, [sound.labels[0]] * 8
    half = [None, None]
    first = Result(tokens[:2] + half + tokens[4:], labels[:2] + half + labels[4:], [failed(small, 1)])
    assert repaired(small, first, 0, 1) == Written(rows=4, failed=2)
    assert repaired(small, Result(half + tokens[2:], half + labels[2:], [failed(small, 0)]), 0, 1) == Written(4, 0)
    assert None not in read(small)[1].values
    assert result_of(small).failures == []
    assert revisions(small) == [3, 3]
