"""Garbage: what nobody reads any more goes, and nothing that anybody may still read."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from small_dataset import (
    VIEWS,
    SmallDataset,
    corpus_units,
    made_anew,
    path_of,
    pending,
    repair_palette,
    write_dataset,
    write_unit,
)
from tokenloom.pipeline.checks.garbage import KEEP, find_garbage, remove_garbage
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.cli import app
from tokenloom.pipeline.commands.housekeeping import parse_age
from tokenloom.pipeline.corpus.taken import Listing
from tokenloom.pipeline.dataset import cards
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.layout import DOCTORS, ledger_path, manifest_path, token_path, tokenizer_folder
from tokenloom.pipeline.dataset.ledger import digest_of
from tokenloom.pipeline.dataset.listings import store_listing
from tokenloom.pipeline.dataset.manifest import DatasetError, publish
from tokenloom.pipeline.dataset.tokenizers import load_tokenizer
from tokenloom.pipeline.storage.store import Store
from typer.testing import CliRunner
from weaving import digests


@pytest.fixture
def small(tmp_path) -> SmallDataset:
    return write_dataset(tmp_path / "dataset")


def age(small: SmallDataset, days: float = 2) -> None:
    """Dates all that is there back."""
    then = time.time() - days * 86400
    for path in Path(small.store.url).rglob("*"):
        os.utime(path, (then, then))


def garbage(small: SmallDataset, keep: timedelta = KEEP) -> dict[str, str]:
    return {one.path: one.what for one in find_garbage(small.store, keep)}


def test_a_dataset_that_nothing_was_replaced_in_has_none(small):
    age(small)
    assert garbage(small) == {}
    assert garbage(small, timedelta(0)) == {}
    assert verify(small.store).faults == []


def test_folders_are_named_once_however_many_units_there_are(tmp_path, monkeypatch):
    """By hashes of cards, which take longer than all else that is asked of a unit."""
    hashed, counts = [], []
    monkeypatch.setattr(cards, "_hash", lambda told, _hash=cards._hash: hashed.append(told) or _hash(told))
    for units in (1, 5):
        small = write_dataset(tmp_path / f"{units}", units=units)
        hashed.clear()
        assert garbage(small) == {}
        counts.append(len(hashed))
    assert counts[0] == counts[1] > 0


# --- generations ------------------------------------------------------------------------------------------------------


def test_a_generation_goes_once_its_manifest_was_superseded_for_long_enough(small):
    renewed = made_anew(small, "color_palette", version=2)
    age(small)
    publish(small.store, lambda now: renewed.manifest)
    assert garbage(small) == {}  # it was read a moment ago
    age(small)
    old = {path("color_palette", unit) for unit in small.units for path in (small.token_path, small.label_path)}
    ledgers = {small.ledger_path("color_palette", small.units[0], labels) for labels in (False, True)}
    assert garbage(small) == {
        **dict.fromkeys(old, "a generation that was replaced"),
        **dict.fromkeys(ledgers, "of a generation that was replaced"),
    }
    before = digests(small.store.url)
    remove_garbage(small.store)
    assert before.keys() - digests(small.store.url).keys() == old | ledgers
    assert verify(small.store, deep=True).faults == []
    assert len(list(open_dataset(small.store.url))) == 16 * VIEWS
    assert garbage(small) == {}


def test_what_is_being_made_to_take_a_place_stays(small):
    pending(small, made_anew(small, "dinov2", units=2, version=2), "dinov2")
    age(small)
    assert garbage(small) == {}


@pytest.mark.parametrize("name", ["dinov2", "color_palette"])
def test_shards_that_no_manifest_names_are_kept(small, name):
    """A run writes them after the manifest that does: it has been lost."""
    renewed = made_anew(small, name, version=2)
    publish(small.store, lambda now: renewed.manifest)
    small.store.delete(manifest_path(2))
    age(small)
    with pytest.raises(DatasetError, match=rf"no manifest names {name}/.*the numbers 1:.*nothing is deleted"):
        remove_garbage(small.store)
    publish(small.store, lambda now: renewed.manifest)
    assert garbage(small) == {}


def test_a_listing_stays_for_as_long_as_the_manifest_that_names_it_is_read(small):
    listing = Listing("tar", {"photos-00000.tar": 100_000, "photos-00001.tar": 100_000, "later.tar": 0})
    store_listing(small.store, listing)
    corpus = replace(small.manifest.corpus, listings=[listing.digest])
    age(small)
    publish(small.store, lambda now: replace(small.manifest, corpus=corpus))
    assert garbage(small) == {}
    age(small)
    (digest,) = small.manifest.corpus.listings
    assert garbage(small) == {f"corpus/{digest}.jsonl": "no manifest names it"}


def test_a_listing_that_no_manifest_names_is_kept_where_there_are_shards_of_it(small):
    publish(small.store, lambda now: replace(small.manifest, seed=1))
    unit = corpus_units(3, 1, 4)[2]
    listing = Listing("tar", {"photos-00002.tar": 100_000})
    store_listing(small.store, listing)
    assert verify(small.store).faults == []
    age(small)
    assert garbage(small) == {f"corpus/{listing.digest}.jsonl": "no manifest names it"}
    small.keys[unit] = ["a", "b", "c", "d"]
    write_unit(small, unit)
    with pytest.raises(DatasetError, match=f"no manifest names corpus/{listing.digest}.jsonl"):
        garbage(small)


def test_a_tokenizer_goes_with_the_last_manifest_that_names_it(small):
    card = small.manifest.modalities["dinov2"]
    assert card.tokens is not None
    tokenizer = replace(card.tokens, params={**card.tokens.params, "size": 8})
    renewed = replace(card, tokens=tokenizer)
    for name, data in load_tokenizer(small.store, "dinov2", card).to_files().items():
        small.store.create(f"{tokenizer_folder(renewed.tokenizer_digest)}/{name}", data)
    publish(small.store, lambda now: made_anew(small, "dinov2", tokens=tokenizer).manifest)
    assert garbage(small) == {}
    age(small)
    gone = {path for path, what in garbage(small).items() if what == "made no tokens that are left"}
    assert gone == {f"{tokenizer_folder(card.tokenizer_digest)}/{name}" for name in card.tokens.files}
    remove_garbage(small.store)
    assert verify(small.store).faults == []


def test_what_a_fit_has_made_stays_while_tokenizers_are_being_fitted(small):
    """However long it takes: the manifest that names it is still to come."""
    card = small.manifest.modalities["dinov2"]
    assert card.tokens is not None
    unfitted = replace(card, version=2, tokens=replace(card.tokens, spec=None, files={}))
    publish(small.store, lambda now: replace(small.manifest, pending={"dinov2": unfitted}))
    for path in ("tokenizers/0123456789abcdef/config.json", "vocabularies/ab/vocabulary.json", "fit/dinov2/s/u.tar"):
        small.store.create(path, b"{}")
    age(small)
    assert garbage(small) == {}
    publish(small.store, lambda now: small.manifest)
    age(small)
    assert len(garbage(small)) == 3


def test_it_looks_again_when_a_manifest_is_written_meanwhile(small, monkeypatch):
    """One that goes back to what had been superseded: it stays."""
    renewed = made_anew(small, "color_palette", version=2)
    publish(small.store, lambda now: renewed.manifest)
    age(small)
    original = Store.delete

    def delete(store: Store, path: str) -> None:
        monkeypatch.setattr(Store, "delete", original)
        if path.startswith("fit/_clock/"):
            publish(small.store, lambda now: small.manifest)
        original(store, path)

    monkeypatch.setattr(Store, "delete", delete)
    remove_garbage(small.store)
    assert verify(small.store, deep=True).faults == []
    assert len(list(open_dataset(small.store.url))) == 16 * VIEWS


@pytest.mark.parametrize("name", ["dinov2", "color_palette"])
def test_whoever_opened_it_before_is_told_to_open_it_again(small, name):
    opened, unlisted = open_dataset(small.store.url), open_dataset(small.store.url)
    assert len(opened) == 16
    renewed = made_anew(small, name, version=2)
    publish(small.store, lambda now: renewed.manifest)
    age(small)
    remove_garbage(small.store)
    with pytest.raises(
        DatasetError, match=rf"{name}/tokens-.*does not exist.*`tokenloom gc` has deleted.*open it again"
    ):
        next(iter(opened))
    with pytest.raises(DatasetError, match=f"{name} was replaced since the dataset was opened: open it again"):
        list(unlisted)
    small.store.delete(f"{tokenizer_folder(renewed.manifest.modalities[name].tokenizer_digest)}/config.json")
    with pytest.raises(DatasetError, match=r"tokenizers/.*run the same command again; else `tokenloom verify"):
        load_tokenizer(small.store, name, renewed.manifest.modalities[name])


# --- revisions --------------------------------------------------------------------------------------------------------


def test_a_revision_goes_once_a_later_one_has_been_complete_for_long_enough(small):
    unit = small.units[0]
    old = {small.token_path("color_palette", unit), small.label_path("color_palette", unit)}
    ledger = small.ledger_path("color_palette", unit)
    age(small)
    repair_palette(small, unit)
    opened = open_dataset(small.store.url)
    assert garbage(small) == {}  # whoever listed before it was tried again still reads it
    age(small)
    assert garbage(small) == {
        **dict.fromkeys(old, "a unit that was tried again"),
        ledger: "of a unit that was tried again",
    }
    remove_garbage(small.store)
    assert verify(small.store, deep=True).faults == []
    assert opened.get(small.keys[unit][0], view=1).values["color_palette"] is not None


@pytest.mark.parametrize("lacking", [".tar", ".parquet"])
def test_a_revision_stays_while_the_later_one_is_not_complete(small, lacking):
    unit = small.units[0]
    repair_palette(small, unit)
    (gone,) = path_of(small, "color_palette").glob(f"*/{unit.name}-r1{lacking}")
    gone.unlink()
    age(small)
    assert garbage(small) == {}


def test_a_revision_stays_while_another_card_has_it(small):
    """As labels do that a new tokenizer was given before some of them were tried again."""
    unit, card = small.units[0], small.manifest.modalities["color_palette"]
    assert card.tokens is not None
    other = replace(card, tokens=replace(card.tokens, params={**card.tokens.params, "colors": 3}))
    publish(small.store, lambda now: replace(small.manifest, pending={"color_palette": other}))
    token_shard = small.store.read(small.token_path("color_palette", unit))
    small.store.create(token_path("color_palette", other.tokens_generation, unit), token_shard)
    repair_palette(small, unit)
    age(small)
    assert small.label_path("color_palette", unit) not in garbage(small)
    assert small.token_path("color_palette", unit) in garbage(small)


def test_a_ledger_that_no_shard_refers_to_goes(small):
    unit, card = small.units[0], small.manifest.modalities["color_palette"]
    data = small.store.read(small.ledger_path("color_palette", unit)) * 2
    path = ledger_path("color_palette", card.tokens_generation, unit.name, digest_of(data))
    small.store.create(path, data)
    age(small)
    assert garbage(small) == {path: "of a unit that was tried again"}


# --- what else lies there ---------------------------------------------------------------------------------------------


def test_what_a_run_left_goes_and_what_is_foreign_stays(small):
    unit = small.units[0]
    left = {f"fit/dinov2/sample/{unit.name}.tar", f"attempts/{unit.name}/stage/0f"}
    strange = {
        "notes.txt",
        "dinov2/notes.txt",
        "dinov2/photographs.tar",
        f"dinov2/copies/{unit.name}.parquet",
        f"quarantine/dinov2/{unit.name}.jsonl",
        "photographs/corpus.tar",
    }
    mark = f"{DOCTORS}00"
    for path in (*left, *strange, mark):
        small.store.create(path, b"?")
    assert garbage(small) == {}
    age(small)
    doctors = {mark: "left of a doctor that died, or could delete nothing"}
    assert garbage(small) == dict.fromkeys(left, "left of a run that died") | doctors


def test_the_age_of_things_is_told_by_the_stores_own_clock(small, monkeypatch):
    renewed = made_anew(small, "dinov2", version=2)
    publish(small.store, lambda now: renewed.manifest)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 10 * 86400)
    assert remove_garbage(small.store) == []
    assert small.store.list("fit") == []


def test_looking_writes_nothing(small, monkeypatch):
    publish(small.store, lambda now: made_anew(small, "dinov2", version=2).manifest)
    monkeypatch.setattr(Store, "create", lambda *given: pytest.fail(f"it writes {given}"))
    assert len(garbage(small, timedelta(0))) == len(small.units)


def test_a_manifest_that_cannot_be_read_keeps_everything(small):
    publish(small.store, lambda now: made_anew(small, "dinov2", version=2).manifest)
    file = path_of(small, manifest_path(1))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DatasetError, match="not a readable manifest"):
        find_garbage(small.store)


def test_there_is_none_where_there_is_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match="no dataset here"):
        find_garbage(Store(tmp_path))


# --- the command ------------------------------------------------------------------------------------------------------


def run(*arguments: str):
    return CliRunner().invoke(app, ["gc", *arguments], catch_exceptions=False)


def test_the_command_says_what_goes_and_deletes_it(small):
    nothing = "nothing has been superseded"
    assert run(small.store.url).stdout == f"{nothing} for as long as 1 d: --keep TIME changes that\n"
    assert run(small.store.url, "--keep", "90m").stdout.startswith(f"{nothing} for as long as 1 h 30 min: --keep")
    assert run(small.store.url, "--keep", "0s").stdout == f"{nothing}\n"
    publish(small.store, lambda now: made_anew(small, "dinov2", version=2).manifest)
    before = digests(small.store.url)
    shown = run(small.store.url, "--keep", "0s", "--dry-run").stdout.splitlines()
    assert shown[0].startswith("a generation that was replaced: 4 objects, ")
    assert shown[1:5] == [f"  {small.token_path('dinov2', unit)}" for unit in sorted(small.units)]
    assert shown[-1].endswith(" would be deleted")
    assert digests(small.store.url) == before
    assert run(small.store.url, "--keep", "0s").stdout.splitlines()[-1].endswith(" are deleted")
    assert before.keys() - digests(small.store.url).keys() == {small.token_path("dinov2", u) for u in small.units}


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("12h", 43_200), (" 7d ", 604_800)])
def test_ages_are_written_with_their_units(text, seconds):
    assert parse_age(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5h", "1w", "1d2h"])
def test_other_ages_are_refused(text):
    with pytest.raises(DatasetError, match="write a number and s, m, h or d"):
        parse_age(text)
