"""Names in the output: of units, their revisions and their ledgers, told from every other name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenloom.labelers.contract.names import RESERVED, name_problem
from tokenloom.pipeline.corpus.units import Unit, shard_id
from tokenloom.pipeline.dataset import layout
from tokenloom.pipeline.dataset.layout import (
    ledger_path,
    manifest_number,
    manifest_path,
    split_ledger_name,
    split_stem,
    stem_of,
)

units = st.builds(
    Unit,
    st.builds(shard_id, st.text(), st.integers(0, 2**40)),
    st.integers(0, 10**12 - 1),
    st.none() | st.integers(0, 10**12 - 1),
    st.integers(0, 99_999),
)
revisions = st.integers(0, 10**6)


@given(units, revisions)
def test_a_name_tells_the_unit_and_its_revision(unit, revision):
    stem = stem_of(unit, revision)
    assert split_stem(stem) == (unit.name, revision)
    assert (Unit.parse(stem) == unit) == (revision == 0)


@given(units, revisions, st.text("0123456789abcdef", min_size=64, max_size=64))
def test_a_ledgers_name_tells_the_unit_its_revision_and_the_digest(unit, revision, digest):
    folder, _, name = ledger_path("depth", "0" * 16, stem_of(unit, revision), digest).rpartition("/")
    assert folder == "quarantine/depth/0000000000000000"
    assert split_ledger_name(name) == (unit.name, revision, digest[:16])


@pytest.mark.parametrize("stem", ["unit-r0", "unit-r01", "unit-r", "unit-r-1", "unit-r1 ", "unit-r\u0661", "r1"])
def test_other_ends_of_names_are_no_revisions(stem):
    assert split_stem(stem) == (stem, 0)


@pytest.mark.parametrize("name", ["unit.jsonl", "unit-0123.jsonl", f"unit-{'0' * 16}.json", f"unit-{'g' * 16}.jsonl"])
def test_other_names_are_no_ledgers(name):
    assert split_ledger_name(name) is None


@given(st.integers(0, 10**8 - 1))
def test_a_manifests_name_tells_its_number(number):
    assert manifest_number(manifest_path(number).removeprefix("manifests/")) == number


@pytest.mark.parametrize("name", ["1.json", "000000001.json", "00000001.json ", "\u0660" * 8 + ".json", "00000001.txt"])
def test_other_names_are_no_manifests(name):
    assert manifest_number(name) is None


def test_no_modality_can_be_called_like_a_folder_of_the_datasets_own():
    own = ("ATTEMPTS", "CORPUS", "FIT", "MANIFESTS", "QUARANTINE", "RETRIES", "TOKENIZERS", "VOCABULARIES")
    assert sorted(RESERVED) == sorted(getattr(layout, name) for name in own)
    assert all(name_problem(name) for name in RESERVED)
