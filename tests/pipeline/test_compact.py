"""Compaction: the same rows in fewer shards, for whoever reads, adds, retries, replaces or deletes afterwards.

TOKENLOOM_RACES=100 tries so many schedules of each race, and kills before every operation instead of some.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from in_process import copy_objects, given, said, weave, without_ray
from lock_step import Driver, Killed, LockStep
from tokenloom.pipeline.checks.garbage import find_garbage, remove_garbage
from tokenloom.pipeline.checks.quarantine import list_failures
from tokenloom.pipeline.checks.status import read_status
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.compact import Compacted, ShardSize, compact
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.layout import is_merged
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.retry import retry
from tokenloom.pipeline.run import execute
from tokenloom.pipeline.storage.store import Store
from weaving import digests, odd, recipe

MORE = {"units": {"samples": 1}, "views": {"size": 32, "count": 2}}
GRID = {"labeler": "odd_labelers:Grid", "keep": "both", "tokenizer": {"name": "codebook", "params": {"size": 4}}}
MODALITIES = {"grid": GRID, "mean_colour": odd("MeanColour")}

NOTHING = timedelta(seconds=-2)
"""What is kept: not even what was written just now, by a clock that may tell whole seconds."""


@pytest.fixture(scope="module")
def corpus(small_corpus: Path) -> Path:
    return small_corpus


def compacted(output: Path | str, samples: int = 4) -> Compacted:
    with without_ray():
        return compact(str(output), ShardSize(samples))


def rows_of(output: Path | str, labels: bool = False) -> list[Any]:
    dataset = open_dataset(output)
    return [
        (row.key, row.view, {name: None if v is None else v.tolist() for name, v in row.values.items()})
        for row in dataset.iterate(labels=labels)
    ]


def counts(output: Path | str) -> list[Any]:
    status = read_status(Store(output))
    return [(one.name, one.units, one.samples, one.quarantined, one.finished) for one in status.modalities]


def swept(output: Path | str) -> None:
    """Deletes whatever nobody who opens the dataset now would read."""
    remove_garbage(Store(output), NOTHING)
    assert find_garbage(Store(output), NOTHING) == []


def own_shards(output: Path) -> list[str]:
    return [
        path.name for path in output.rglob("*") if path.suffix in (".parquet", ".tar") and "merged-" not in path.name
    ]


@pytest.mark.parametrize("gone", [False, True])
def test_the_same_rows_in_fewer_shards(gone, corpus, tmp_path):
    """For readers, `status`, `verify` and a later `run`; whether or not the units' own shards are deleted."""
    output = tmp_path / "out"
    made = recipe(corpus, output, MODALITIES, **MORE)
    given(made)
    tokens, labels, told = rows_of(output), rows_of(output, labels=True), counts(output)
    before = open_dataset(output)
    len(before)
    done = compacted(output)
    assert (done.done, done.units, done.samples, done.problems) == (6, 18, 18, {})
    assert read_status(Store(output)).superseded > 0
    if gone:
        swept(output)
        assert own_shards(output) == []
        assert read_status(Store(output)).superseded == 0
    assert (rows_of(output), rows_of(output, labels=True), counts(output)) == (tokens, labels, told)
    assert [row.key for row in before] == [row.key for row in open_dataset(output)]
    assert before["coffee"].values["grid"].tolist() == open_dataset(output)["coffee"].values["grid"].tolist()
    files = open_dataset(output).files("grid")
    assert [pq.read_table(file).num_rows for file in files] == [8, 4]
    assert verify(output, deep=True).faults == []
    assert weave(made).units == 0
    state = digests(output)
    assert compacted(output).done == 0
    assert digests(output) == state


def test_what_was_opened_before_reads_on_when_the_units_shards_are_gone(corpus, tmp_path):
    output = tmp_path / "out"
    given(recipe(corpus, output, MODALITIES, **MORE))
    rows, before = rows_of(output), open_dataset(output)
    before["coffee"]  # so that it knows where everything is
    compacted(output)
    swept(output)
    assert len(list(before)) == len(rows)


def test_a_modality_that_is_added_joins_and_reads_what_was_merged(corpus, tmp_path):
    output = tmp_path / "out"
    given(recipe(corpus, output, MODALITIES, **MORE))
    compacted(output)
    swept(output)
    doubled = recipe(corpus, output, {**MODALITIES, "doubled": odd("Doubled")}, **MORE)
    assert weave(doubled).decodes == 0
    weave(recipe(corpus, tmp_path / "fresh", {**MODALITIES, "doubled": odd("Doubled")}, **MORE))
    assert rows_of(output, labels=True) == rows_of(tmp_path / "fresh", labels=True)
    assert verify(output, deep=True).faults == []


def test_a_new_tokenizer_takes_merged_labels(corpus, tmp_path):
    output, fewer = tmp_path / "out", {**GRID, "tokenizer": {"name": "codebook", "params": {"size": 3}}}
    given(recipe(corpus, output, {"grid": GRID}, **MORE))
    compacted(output)
    swept(output)
    made = recipe(corpus, output, {"grid": fewer}, **MORE)
    assert weave(made, ["grid"]).decodes == 0
    weave(recipe(corpus, tmp_path / "fresh", {"grid": fewer}, **MORE))
    assert rows_of(output) == rows_of(tmp_path / "fresh")
    assert verify(output, deep=True).faults == []
    assert compacted(output).done == 2
    swept(output)
    assert rows_of(output) == rows_of(tmp_path / "fresh")


@pytest.mark.parametrize("keep", ["tokens", "labels", "both"])
def test_a_unit_that_is_tried_again_takes_its_rows_out_of_the_merged_shard(keep, corpus, now, tmp_path):
    output = tmp_path / "out"
    waits = odd("GridWaitsForFlower", params={"file": str(now)}, keep=keep, tokenizer=GRID["tokenizer"])
    made = recipe(corpus, output, {"grid": waits}, **MORE)
    weave(made)
    compacted(output)
    swept(output)
    assert [failure.key for failure in list_failures(Store(output))] == ["flower"] * 2
    now.touch()
    with without_ray():
        retry(str(output))
    rows = rows_of(output, labels=keep == "labels")
    assert len(rows) == 12
    assert all(values["grid"] for _, _, values in rows)
    assert list(list_failures(Store(output))) == []
    assert verify(output, deep=True).faults == []
    with pytest.raises(DatasetError, match=r"it also holds units that were made anew since.*tokenloom compact"):
        open_dataset(output).files("grid", labels=keep == "labels")
    compacted(output)
    swept(output)
    assert own_shards(output) == []
    assert rows_of(output, labels=keep == "labels") == rows
    assert len(open_dataset(output).files("grid", labels=keep == "labels")) == 2
    assert verify(output, deep=True).faults == []
    assert weave(made).units == 0


@pytest.mark.slow
def test_a_part_of_the_corpus_that_changes_takes_its_rows_out(corpus, tmp_path):
    output = tmp_path / "out"
    for folder in ("one", "two"):
        (tmp_path / "corpus").mkdir(exist_ok=True)
        shutil.copytree(corpus, tmp_path / "corpus" / folder)
    made = recipe(tmp_path / "corpus", output, MODALITIES, **MORE)
    weave(made)
    compacted(output, 12)
    swept(output)
    shutil.copy(corpus / "coffee.jpg", tmp_path / "corpus/one/rocket.jpg")
    weave(made, take_changes=True)
    fresh = tmp_path / "fresh"
    weave(recipe(tmp_path / "corpus", fresh, MODALITIES, **MORE))
    assert sorted(rows_of(output, labels=True)) == sorted(rows_of(fresh, labels=True))
    assert verify(output, deep=True).faults == []
    compacted(output, 12)
    swept(output)
    assert sorted(rows_of(output, labels=True)) == sorted(rows_of(fresh, labels=True))
    assert verify(output, deep=True).faults == []
    assert weave(made).units == 0


def test_a_corpus_that_has_grown_is_merged_on(corpus, tmp_path):
    corpus_folder = shutil.copytree(corpus, tmp_path / "corpus")
    output = tmp_path / "out"
    made = recipe(corpus_folder, output, MODALITIES, **MORE)
    weave(made)
    compacted(output)
    for number in range(3):
        shutil.copy(corpus_folder / "coffee.jpg", corpus_folder / f"z{number}.jpg")
    weave(made)
    assert len(rows_of(output)) == 18
    compacted(output)
    swept(output)
    assert len(rows_of(output)) == 18
    assert all(len(open_dataset(output).files(name, labels=True)) == 3 for name in MODALITIES)
    assert verify(output, deep=True).faults == []


def test_a_modality_without_any_value_is_still_told_of(corpus, tmp_path):
    output = tmp_path / "out"
    weave(recipe(corpus, output, {"nowhere": odd("Nowhere"), "mean_colour": odd("MeanColour")}, **MORE))
    assert read_status(Store(output)).null == ["nowhere"]
    compacted(output)
    swept(output)
    assert read_status(Store(output)).null == ["nowhere"]


def test_reading_in_order_takes_one_request_for_each_merged_shard(corpus, tmp_path, monkeypatch):
    output, opened = tmp_path / "out", Counter[str]()
    given(recipe(corpus, output, MODALITIES, **MORE))
    compacted(output, 4)
    dataset = open_dataset(output)
    for operation in ("read", "read_range", "stat"):
        own = getattr(Store, operation)

        def count(store: Store, path: str, *more: Any, own: Callable[..., Any] = own) -> Any:
            opened[path] += 1
            return own(store, path, *more)

        monkeypatch.setattr(Store, operation, count)
    assert len(list(dataset.iterate(labels=True))) == 12
    assert {path: count for path, count in opened.items() if "/merges/" not in path} == {
        url.removeprefix(f"{output}/"): 1 for name in MODALITIES for url in dataset.files(name, labels=True)
    }


def test_the_command_says_what_it_did_and_what_is_left_to_do(corpus, tmp_path):
    output = tmp_path / "out"
    given(recipe(corpus, output, MODALITIES, **MORE))
    told = said("compact", output, "--samples", 4)
    assert "6 of 6 merged shards" in told
    assert "18 units merged, modality by modality, into 6 shards" in told
    assert f"`tokenloom gc {output}` deletes the units' own" in told
    assert "nothing to merge" in said("compact", output, "--samples", 4)
    assert "a unit that was merged with others: 18 objects" in said("gc", output, "--keep", "0s", "--dry-run")
    assert "no dataset here" in said("compact", tmp_path, code=2)


@pytest.mark.s3
def test_on_s3_through_ray(corpus, s3_url, ray_session):
    made = recipe(corpus, s3_url, MODALITIES, **MORE)
    weave(made)
    rows, told = rows_of(s3_url), counts(s3_url)
    assert compact(s3_url, ShardSize(4)).done == 6
    swept(s3_url)
    assert (rows_of(s3_url), counts(s3_url)) == (rows, told)
    assert sum(one["grid"] is not None for one in open_dataset(s3_url).ray(["grid"]).iter_rows()) == 12
    assert verify(s3_url, deep=True).faults == []
    assert weave(made).units == 0


# --- kills, and other drivers -----------------------------------------------------------------------------------------

MANY = int(os.environ.get("TOKENLOOM_RACES", "0"))
FEW = {**MORE, "views": {"size": 32}, "units": {"samples": 2}}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["compact", "gc"])
def test_one_that_is_killed_before_any_operation_leaves_nothing_wrong(command, corpus, tmp_path):
    """And the next does what is left."""
    first, step = f"memory://{uuid.uuid4()}", 0
    made = recipe(corpus, first, {"grid": GRID}, **FEW)
    weave(made)
    rows, store = rows_of(first), Store(first)
    work = compacted if command == "compact" else swept
    while True:
        output = Store(f"memory://{uuid.uuid4()}")
        copy_objects(store, output)
        if command == "gc":
            compacted(output.url)
        one = Driver(lambda url=output.url: work(url), dies_at=step)
        LockStep(one).run(0)
        assert rows_of(output.url) == rows
        told = {fault.object: fault.way_out for fault in verify(output).faults}
        assert all(is_merged(path) and "compact" in way_out for path, way_out in told.items() if "_clock" not in path)
        if one.error is None:
            break
        assert isinstance(one.error, Killed)
        compacted(output.url)
        swept(output.url)
        assert rows_of(output.url) == rows
        assert verify(output, deep=True).faults == []
        assert len(open_dataset(output.url).files("grid")) == 2
        step += 1 if MANY else 3
    assert step > 20


SEEDS = range(MANY or 3)


def race(seed: int, *work: Callable[[], Any]) -> None:
    drivers = [Driver(one) for one in work]
    with without_ray():
        LockStep(*drivers).run(seed)
    for one in drivers:
        if one.error is not None and not isinstance(one.error, DatasetError):
            raise one.error


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("other", ["compact", "otherwise", "gc", "retry", "run", "replace"])
def test_beside_another_driver(other, seed, corpus, now):
    """Whatever they do to each other, no row is lost or doubled, and what both did is there in the end."""
    output = f"memory://{uuid.uuid4()}"
    waits = odd("GridWaitsForFlower", params={"file": str(now)}, keep="both", tokenizer=GRID["tokenizer"])
    made = recipe(corpus, output, {"grid": waits}, **FEW)
    given(made, limit=5 if other == "run" else None)
    if other == "gc":
        compacted(output, 2)
    fewer = {**waits, "tokenizer": {"name": "codebook", "params": {"size": 3}}}
    anew = recipe(corpus, output, {"grid": fewer if other == "replace" else waits}, **FEW)
    if other == "retry":
        now.touch()
    others: dict[str, Callable[[], Any]] = {
        "compact": lambda: compact(output, ShardSize(4)),
        "otherwise": lambda: compact(output, ShardSize(6)),
        "gc": lambda: remove_garbage(Store(output), timedelta(0)),
        "retry": lambda: retry(output),
        "run": lambda: execute(make_plan(made)),
        "replace": lambda: execute(make_plan(anew, ["grid"])),
    }
    race(seed, lambda: compact(output, ShardSize(4)), others[other])
    weave(anew)
    keys = [key for key, _, _ in rows_of(output)]
    assert sorted(keys) == ["astronaut", "chelsea", "china", "coffee", "flower", "rocket"]
    assert [key for key, _, values in rows_of(output) if values["grid"] is None] == (["flower"] * (other != "retry"))
    compacted(output, 4)
    swept(output)
    assert [key for key, _, _ in rows_of(output)] == keys
    assert verify(output, deep=True).faults == []
    assert 1 <= len(open_dataset(output).files("grid")) <= 2
    with without_ray():
        assert make_plan(anew).works == []
