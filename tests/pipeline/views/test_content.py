"""What a dataset holds of one unit, for those who show it: as far as it is there, of the revision that counts."""

from __future__ import annotations

import pytest
from small_dataset import SmallDataset, label_of, repair_palette, write_dataset
from tokenloom.pipeline.dataset.finished import list_finished
from tokenloom.pipeline.views.content import ContentReader


@pytest.fixture
def small(tmp_path) -> SmallDataset:
    return write_dataset(tmp_path)


def reader_of(small: SmallDataset) -> ContentReader:
    return ContentReader(small.store, small.manifest, list_finished(small.store, small.manifest.modalities, ()))


def test_a_failure_is_told_of_the_view_that_has_it(small):
    unit = small.units[0]
    content = reader_of(small).content(unit, "color_palette", labels=True)
    failure = content.failure(small.keys[unit][0], 1)
    assert failure is not None
    assert failure.reason == "the palette is empty"
    assert content.failure(small.keys[unit][0], 0) is None
    assert [one.key for one in reader_of(small).rejections(unit)] == ["broken\x1b[31m.jpg"]


def test_what_was_tried_again_is_read_with_its_own_failures(small):
    unit = small.units[0]
    repair_palette(small, unit)
    content = reader_of(small).content(unit, "color_palette", labels=True)
    assert content.failures == {}
    assert content.tokens is not None
    assert content.labels is not None
    assert content.tokens[1] is not None
    kind = small.manifest.modalities["color_palette"].label_kind
    assert kind.decode(content.labels[1] or b"") == label_of("color_palette", small.keys[unit][0], 1)
    assert [one.key for one in reader_of(small).rejections(unit)] == ["broken\x1b[31m.jpg"]


def test_values_are_shown_though_their_ledger_is_lost(small):
    unit = small.units[0]
    small.store.delete(small.ledger_path("color_palette", unit))
    content = reader_of(small).content(unit, "color_palette", labels=False)
    assert (content.problem, content.failures, len(content.keys)) == ("", {}, 4)
