"""Status: figures from listings and ledgers alone, the estimate of the rest, and what people see."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_dataset import CARDS, made_anew, path_of, pending, repair_palette, write_dataset
from tokenloom.pipeline.checks.garbage import find_garbage
from tokenloom.pipeline.checks.status import LedgerCounts, Status, estimate_total, read_status
from tokenloom.pipeline.cli import app, main
from tokenloom.pipeline.commands import dataset as inspect_commands
from tokenloom.pipeline.corpus.unit_sets import UnitTable
from tokenloom.pipeline.corpus.units import Unit
from tokenloom.pipeline.dataset.finished import Stock, folders_of, recent_rate
from tokenloom.pipeline.dataset.folders import FolderListing
from tokenloom.pipeline.dataset.layout import ledger_path, manifest_path
from tokenloom.pipeline.dataset.ledger import digest_of
from tokenloom.pipeline.dataset.manifest import DatasetError, publish
from tokenloom.pipeline.dataset.merges import Merges
from tokenloom.pipeline.storage.store import Entry, Store
from typer.testing import CliRunner


def by_name(status: Status):
    return {modality.name: modality for modality in status.modalities}


def date_shards(small, modality: str, seconds_ago: list[float], now: float) -> None:
    """Gives a modality's shards, in the order of units, times of modification."""
    for unit, ago in zip(sorted(small.units), seconds_ago, strict=False):
        for path in Path(small.store.url, modality).glob(f"*/{unit.name}.*"):
            os.utime(path, (now - ago, now - ago))


def test_a_finished_dataset(tmp_path):
    small = write_dataset(tmp_path)
    status = read_status(small.store)
    assert status.finished
    assert (status.shards, status.complete_shards, status.total, status.exact, status.refused) == (2, 2, 16, True, 1)
    assert list(by_name(status)) == list(CARDS)
    for name, modality in by_name(status).items():
        assert (modality.units, modality.samples, modality.share, modality.finished) == (4, 16, 1.0, True)
        assert modality.quarantined == (1 if name == "color_palette" else 0)
        assert (modality.rate, modality.eta) == (None, None)


def test_a_dataset_under_way(tmp_path):
    """Two units a shard, one shard of three complete; canny_edge writes 4 samples every 10 s."""
    small, now = write_dataset(tmp_path, shards=3, units=2), time.time()
    date_shards(small, "canny_edge", [35, 25, 15], now)
    for unit in sorted(small.units)[3:]:
        for path in Path(tmp_path).glob(f"*/*/{unit.name}.*"):
            path.unlink()
    status = read_status(small.store, now=now)
    assert not status.finished
    assert (status.shards, status.complete_shards, status.total, status.exact) == (3, 1, 24, False)
    edges = by_name(status)["canny_edge"]
    assert (edges.units, edges.samples, edges.share, edges.finished) == (3, 12, 0.5, False)
    assert edges.rate == pytest.approx(0.4)
    assert edges.eta == pytest.approx(12 / 0.4)
    later = by_name(read_status(small.store, now=now + 3600))["canny_edge"]
    assert (later.rate, later.eta, later.samples) == (None, None, 12)


@pytest.mark.parametrize(("own", "rate"), [([], None), ([15], None), ([35, 25, 15], 0.4)])
def test_what_was_merged_tells_nothing_of_the_speed(own, rate):
    """Hours after it was written itself, or while other units are; of which the rate is that of their own times."""
    (path,), now = folders_of("canny_edge", CARDS["canny_edge"]), 1e9
    listing, table = FolderListing(path), UnitTable()
    units = [Unit("s-0123456789ab", at, at + 1, 4) for at in range(5)]
    merges = Merges({"merged-a": tuple(unit.name for unit in units[:2])})
    listing.merged["merged-a"] = Entry("merged-a.tar", 10, now - 500)
    for unit, ago in zip(units[2:], own, strict=False):
        listing.add(table.add(unit), 0, Entry(f"{unit.name}.tar", 10, now - ago))
    stock = Stock("canny_edge", {path: listing.fold(table, frozenset(), frozenset(), merges)})
    finished = stock.finished(CARDS["canny_edge"])
    assert finished.units == frozenset(units[: 2 + len(own)])
    assert finished.rate == (None if rate is None else pytest.approx(rate))
    assert finished.last == now - (15 if own else 500)


def test_a_modality_added_later_has_an_exact_total(tmp_path):
    small = write_dataset(tmp_path)
    for unit in small.units:
        small.store.delete(small.token_path("dinov2", unit))
    status = read_status(small.store)
    assert (status.total, status.exact, status.finished) == (16, True, False)
    assert (by_name(status)["dinov2"].share, by_name(status)["dinov2"].finished) == (0.0, False)
    assert by_name(status)["caption"].finished


def test_a_unit_counts_when_all_its_shards_are_there(tmp_path):
    small = write_dataset(tmp_path)
    small.store.delete(small.token_path("caption", small.units[0]))
    assert by_name(read_status(small.store))["caption"].units == 3


def test_only_names_and_ledgers_are_read_and_each_ledger_once(tmp_path, monkeypatch):
    """Of the shards those that a ledger lies beside, and one of each modality for a value, by ranges, and once."""
    small, reads, opened = write_dataset(tmp_path), [], []
    read, open_ = Store.read, Store.open
    monkeypatch.setattr(Store, "read", lambda self, path: reads.append(path) or read(self, path))
    monkeypatch.setattr(Store, "open", lambda self, path: opened.append(path) or open_(self, path))
    ledgers = LedgerCounts(small.store)
    for _ in range(2):
        assert by_name(read_status(small.store, ledgers))["color_palette"].quarantined == 1
    unit = small.units[0]
    own = [small.ledger_path(name, unit) for name in ("color_palette", "corpus")]
    assert sorted(reads) == sorted([manifest_path(1), manifest_path(1), *own])
    shards = [small.token_path(name, unit) for name in ("caption", "color_palette", "dinov2")]
    assert sorted(set(opened)) == sorted([*shards, small.label_path("canny_edge", unit)])
    assert len(opened) == 5


def test_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match="no dataset here"):
        read_status(Store(tmp_path))


# --- what is superseded, stale, or being made anew --------------------------------------------------------------------


def test_a_modality_that_is_being_made_anew_is_shown_beside_the_one_that_is_read(tmp_path):
    small = write_dataset(tmp_path)
    renewed = made_anew(small, "color_palette", units=2, version=2)
    pending(small, renewed, "color_palette")
    status = read_status(small.store)
    assert [(one.name, one.pending) for one in status.modalities][-1] == ("color_palette", True)
    current, new = (one for one in status.modalities if one.name == "color_palette")
    assert (current.units, current.share, current.finished, current.quarantined) == (4, 1.0, True, 1)
    assert (new.units, new.samples, new.share, new.finished, new.quarantined) == (2, 8, 0.5, False, 1)
    assert (status.finished, status.total, status.exact, status.superseded) == (False, 16, True, 0)
    publish(small.store, lambda now: renewed.manifest)
    assert not any(one.pending for one in read_status(small.store).modalities)


def test_a_modality_whose_new_tokenizer_is_not_fitted_has_no_units(tmp_path):
    small = write_dataset(tmp_path)
    card = small.manifest.modalities["dinov2"]
    assert card.tokens is not None
    tokens = replace(card.tokens, version=2, spec=None, files={})
    publish(small.store, lambda now: replace(small.manifest, pending={"dinov2": replace(card, tokens=tokens)}))
    new = read_status(small.store).modalities[-1]
    assert (new.name, new.pending, new.units, new.share, new.finished) == ("dinov2", True, 0, 0.0, False)


def test_what_is_stale_says_why(tmp_path):
    small = write_dataset(tmp_path)
    renewed = stale_edges(small)
    publish(small.store, lambda now: renewed.manifest)
    status = by_name(read_status(small.store))
    assert {name: one.stale for name, one in status.items() if one.stale} == {
        "canny_edge": ["it was made from caption as it was before"]
    }
    assert status["canny_edge"].finished


def stale_edges(small):
    """The dataset whose edges were made from its captions, which were made anew since."""
    captions = small.manifest.modalities["caption"].labels_generation
    return made_anew(made_anew(small, "canny_edge", requires={"caption": captions}), "caption", version=2)


def test_bytes_of_what_was_replaced_are_superseded(tmp_path):
    small = write_dataset(tmp_path)
    old = sum(path.stat().st_size for path in path_of(small, "caption").glob("*/*"))
    renewed = made_anew(small, "caption", version=2)
    pending(small, renewed, "caption")
    assert read_status(small.store).superseded == 0
    publish(small.store, lambda now: renewed.manifest)
    for strange in ("caption/notes.txt", f"caption/copies/{small.units[0].name}.parquet"):
        small.store.create(strange, b"?" * 999)
    status = read_status(small.store)
    assert (status.superseded, status.finished) == (old, True)


def test_bytes_of_a_unit_that_was_tried_again_are_superseded_once_the_later_try_is_complete(tmp_path):
    small = write_dataset(tmp_path)
    folders = list(path_of(small, "color_palette").iterdir())
    assert len(folders) == 2
    old = [path for folder in folders for path in folder.glob(f"{small.units[0].name}.*")]
    assert read_status(small.store).superseded == 0
    repair_palette(small, small.units[0])
    assert read_status(small.store).superseded == sum(path.stat().st_size for path in old)
    (again,) = folders[0].glob("*-r1.*")
    again.unlink()  # by which the first try is what is read still
    assert read_status(small.store).superseded == 0


@pytest.mark.parametrize("name", ["dinov2", "caption"])
def test_tokenizers_and_vocabularies_count_among_what_is_superseded(tmp_path, name):
    """All that `gc` deletes but ledgers, of which this modality has none; none while others are being fitted."""
    small = write_dataset(tmp_path)
    without = {other: card for other, card in small.manifest.modalities.items() if other not in (name, "color_palette")}
    publish(small.store, lambda now: replace(small.manifest, modalities=without))
    found = [one for one in find_garbage(small.store, timedelta(0)) if not one.path.startswith("quarantine/")]
    assert {one.path.split("/")[0] for one in found} >= {name, "tokenizers"}
    assert read_status(small.store).superseded == sum(one.size for one in found)


def test_ledgers_that_no_shard_refers_to_are_not_counted(tmp_path):
    small = write_dataset(tmp_path)
    unit, card = small.units[0], small.manifest.modalities["color_palette"]
    data = small.store.read(small.ledger_path("color_palette", unit)) * 3
    for stem in (unit.name, f"{unit.name}-r1", small.units[1].name):
        small.store.create(ledger_path("color_palette", card.tokens_generation, stem, digest_of(data)), data)
    assert by_name(read_status(small.store))["color_palette"].quarantined == 1
    repair_palette(small, unit)
    assert by_name(read_status(small.store))["color_palette"].quarantined == 0


# --- estimates --------------------------------------------------------------------------------------------------------


def chain(shard: int, counts: list[int], end: bool) -> list[Unit]:
    last = len(counts) - 1
    return [
        Unit(f"s-{shard:012x}", at, None if end and at == last else at + 1, count) for at, count in enumerate(counts)
    ]


def test_the_total_is_unknown_until_a_shard_is_complete():
    assert estimate_total(frozenset(), 5) == (0, None)
    assert estimate_total(frozenset(chain(0, [9, 9], end=False)), 5) == (0, None)


def test_shards_not_begun_hold_what_complete_ones_hold():
    units = [*chain(0, [5, 5], True), *chain(1, [10, 10], True), *chain(2, [1], False), *chain(3, [20], False)]
    assert estimate_total(frozenset(units), 6) == (2, 10 + 20 + 15 + 20 + 2 * 15)


@given(st.lists(st.lists(st.integers(0, 99_999), min_size=1, max_size=5), min_size=1, max_size=8))
def test_the_total_of_complete_shards_is_exact(counts):
    units = frozenset(unit for shard, own in enumerate(counts) for unit in chain(shard, own, end=True))
    assert estimate_total(units, len(counts)) == (len(counts), sum(map(sum, counts)))


def test_the_rate_is_that_of_the_last_ten_minutes():
    times = np.array([0.0, 5000.0, 5100.0, 5200.0])
    assert recent_rate(times, np.array([9999, 10, 20, 30])) == pytest.approx(50 / 200)
    assert recent_rate(np.array([7.0, 7.0]), np.array([1, 1])) is None
    assert recent_rate(np.array([]), np.array([])) is None


# --- what people see --------------------------------------------------------------------------------------------------


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_the_command_prints_a_table(tmp_path):
    small = write_dataset(tmp_path)
    lines = run("status", str(tmp_path)).stdout.splitlines()
    assert lines[0].split() == ["modality", "units", "samples", "done", "quarantined", "rate", "left"]
    assert lines[2].split() == ["color_palette", "4", "16", "100%", "1", "-", "done"]
    assert "16 samples, 2 of 2 corpus shards complete" in lines
    assert "1 sample refused by the corpus reader" in lines
    small.store.delete(small.token_path("dinov2", small.units[0]))
    assert run("status", str(tmp_path)).stdout.splitlines()[3].split()[:4] == ["dinov2", "3", "12", "75%"]


def test_a_run_that_was_stopped_is_told(tmp_path):
    """Whether another is at work its output can't tell."""
    small = write_dataset(tmp_path)
    small.store.delete(small.token_path("dinov2", small.units[0]))
    goes_on = "where no run is at work, the same command goes on from there"
    assert goes_on not in run("status", str(tmp_path)).stdout
    shards = [path for path in tmp_path.rglob("*") if path.suffix in (".parquet", ".tar")]
    for shard in shards:
        os.utime(shard, (time.time() - 3600, time.time() - 3600))
    assert f"\nthe last shard was written 1 h ago; {goes_on}\n" in run("status", str(tmp_path)).stdout
    for shard in shards:
        shard.unlink()
    assert f"\nno shard is written yet; {goes_on}\n" in run("status", str(tmp_path)).stdout


def test_the_command_tells_what_is_stale_pending_and_superseded(tmp_path):
    small = write_dataset(tmp_path)
    renewed = stale_edges(small)
    publish(small.store, lambda now: renewed.manifest)
    pending(renewed, made_anew(renewed, "dinov2", units=1, version=2), "dinov2")
    printed = run("status", str(tmp_path)).stdout
    assert printed.splitlines()[5].split()[:5] == ["dinov2", "(new)", "1", "4", "25%"]
    notes = " ".join(printed.split())
    assert "(new): takes the place of the one of its name" in notes
    assert "canny_edge is stale: it was made from caption as it was before; --replace canny_edge makes it anew" in notes
    assert f" superseded: `tokenloom gc {tmp_path}` deletes" in notes


def test_the_command_prints_json(tmp_path):
    write_dataset(tmp_path)
    status = json.loads(run("status", str(tmp_path), "--json").stdout)
    assert status["finished"] is True
    assert status["modalities"][0] == {
        "name": "caption",
        "units": 4,
        "samples": 16,
        "quarantined": 0,
        "share": 1.0,
        "rate": None,
        "eta": None,
        "finished": True,
        "last_written": status["modalities"][0]["last_written"],
        "stale": [],
        "pending": False,
        "behind": 0,
    }


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_watching_waits_for_a_dataset_and_ends_when_it_is_finished(tmp_path, monkeypatch, as_json):
    small = write_dataset(tmp_path)
    lacking = path_of(small, small.token_path("dinov2", small.units[0]))
    data = lacking.read_bytes()
    lacking.unlink()
    manifests = (tmp_path / "manifests").rename(tmp_path.parent / f"{tmp_path.name}-manifests")
    naps = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 2:  # a run begins
            manifests.rename(tmp_path / "manifests")
        if len(naps) == 4:
            lacking.write_bytes(data)

    monkeypatch.setattr(inspect_commands.time, "sleep", nap)
    ended = run("status", str(tmp_path), "--watch", *as_json)
    output = ended.stdout
    assert len(naps) == 4
    assert ended.stderr.count("no dataset here") == ended.stderr.count("; waiting for one\n") == 1
    if as_json:
        assert [json.loads(line)["finished"] for line in output.splitlines()] == [False, False, True]
    else:
        assert output.count("dinov2") == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_ctrl_c_is_how_watching_ends(tmp_path, monkeypatch, capsys, number, code):
    small = write_dataset(tmp_path)
    path_of(small, small.token_path("dinov2", small.units[0])).unlink()
    monkeypatch.setattr(inspect_commands.time, "sleep", lambda seconds: signal.raise_signal(number))
    monkeypatch.setattr(sys, "argv", ["tokenloom", "status", str(tmp_path), "--watch"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == code
    assert (capsys.readouterr().err == "") == (code == 0)
