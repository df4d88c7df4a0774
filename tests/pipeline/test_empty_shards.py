"""Shards that hold no sample, each beside a good one: the run completes, and what was wrong is counted and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pytest
from corpus_files import parquet_bytes, tar_bytes
from in_process import weave, without_ray
from tokenloom.pipeline.checks.quarantine import list_failures
from tokenloom.pipeline.checks.status import read_status
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.cluster.session import EngineError
from tokenloom.pipeline.corpus.left_out import LEFT_OUT
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.engine.tally import TooManyFailuresError
from tokenloom.pipeline.plan.recipe import RecipeError
from tokenloom.pipeline.storage.store import Store
from weaving import recipe

pytestmark = pytest.mark.slow

MODALITIES = {
    "rgb": {"tokenizer": {"name": "patch_codebook", "params": {"size": 4}}},
    "caption": {"keep": "both"},
    "metadata": {},
}
SMALL = {"views": {"size": 32}, "units": {"samples": 2}}
HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * 40

EMPTY: dict[str, tuple[bytes, str]] = {
    "zero-byte.tar": (b"", "the file is empty"),
    "error-page.tar": (HTML, "this is no tar"),
    "no-members.tar": (tar_bytes([]), ""),
    "no-images.tar": (tar_bytes([("a.txt", b"a"), ("b.txt", b"b")]), "no image"),
    "no-samples.tar": (tar_bytes([("README", b"the photographs of 2019")]), ""),
    "no-rows.parquet": (parquet_bytes({"jpg": pa.array([], pa.binary()), "caption": pa.array([], pa.string())}), ""),
    "no-columns.parquet": (parquet_bytes({}), "no column looks like the image"),
    "null-images.parquet": (parquet_bytes({"jpg": pa.nulls(4, pa.binary()), "caption": list("abcd")}), "is null"),
    "zero-byte.parquet": (b"", "no Parquet file"),
}
"""What makes a unit without samples, and words of the reason where one is given."""


def write_good(folder: Path, photos: dict[str, bytes], extension: str) -> None:
    """The shard `good`, of four photographs."""
    keys = sorted(photos)[:4]
    if extension == "tar":
        data = tar_bytes([member for key in keys for member in ((f"{key}.jpg", photos[key]), (f"{key}.txt", b"x"))])
    else:
        data = parquet_bytes({"key": keys, "jpg": [photos[key] for key in keys], "caption": ["x"] * 4})
    (folder / f"good.{extension}").write_bytes(data)


@pytest.mark.parametrize("name", EMPTY)
def test_a_shard_without_samples_costs_itself(name, photos, tmp_path):
    (tmp_path / "corpus").mkdir()
    content, reason = EMPTY[name]
    (tmp_path / "corpus" / name).write_bytes(content)
    write_good(tmp_path / "corpus", photos, name.rpartition(".")[2])
    made = recipe(tmp_path / "corpus", tmp_path / "out", MODALITIES, **SMALL, max_failures=0.6)
    tally = weave(made)
    assert (tally.samples, bool(tally.rejected)) == (4, bool(reason))
    assert weave(made).units == 0
    store = Store(tmp_path / "out")
    assert verify(store, deep=True).faults == []
    refused = [failure.reason for failure in list_failures(store, ["corpus"]) if failure.error != LEFT_OUT]
    assert len(refused) == tally.rejected
    assert all(reason in one for one in refused)
    status = read_status(store)
    assert (status.finished, status.total, status.refused + len(status.broken)) == (True, 4, tally.rejected)
    assert status.empty == [name]
    rows = list(open_dataset(str(tmp_path / "out")).iterate(["rgb", "caption"]))
    assert sorted(row.key for row in rows) == sorted(photos)[:4]


@pytest.mark.parametrize(("extension", "engine"), [("tar", nullcontext), ("parquet", without_ray)])
def test_a_run_says_which_shards_were_empty(ray_session, tokenloom, photos, tmp_path, extension, engine):
    """All of them at once, those of one sort through Ray."""
    (tmp_path / "corpus").mkdir()
    write_good(tmp_path / "corpus", photos, extension)
    mine = [name for name in EMPTY if name.endswith(extension)]
    for name in mine:
        (tmp_path / "corpus" / name).write_bytes(EMPTY[name][0])
    words = ("quickstart", "--corpus", tmp_path / "corpus", "--output", tmp_path / "out")
    with engine():
        printed = tokenloom("run", *words, "--set", "max_failures=0.9")
    assert "4 samples in" in printed
    assert f"{len(mine)} corpus shards hold no sample" in printed
    assert f"tokenloom quarantine {tmp_path / 'out'}" in printed
    status = tokenloom("status", tmp_path / "out")
    assert f"{len(mine)} corpus shards hold no sample" in status
    for name in sorted(mine)[:3]:
        assert name in printed
        assert name in status


@pytest.mark.parametrize("name", EMPTY)
def test_a_corpus_without_any_sample_is_an_error_in_words(name, tmp_path):
    """That says why, and gives no advice that doesn't help: there is no more of it to read."""
    content, reason = EMPTY[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises((EngineError, RecipeError)) as told:
        weave(recipe(tmp_path / name, tmp_path / "out", MODALITIES, **SMALL))
    assert name in str(told.value)
    if isinstance(told.value, EngineError):  # something was begun: exit code 1
        assert (reason or "they hold none") in str(told.value)
        assert "fit.units" not in str(told.value)


@pytest.mark.parametrize("units", [1, 2])
def test_more_of_the_corpus_is_advised_where_there_is_more(units, photos, tmp_path):
    (tmp_path / "corpus").mkdir()
    columns = {"jpg": [None] * 700 + list(photos.values()), "key": [f"{number}" for number in range(700 + len(photos))]}
    for name in ("a", "b", "c"):
        named = {**columns, "key": [f"{name}{key}" for key in columns["key"]]}
        (tmp_path / "corpus" / f"{name}.parquet").write_bytes(parquet_bytes(named))
    more = {"units": {"samples": 5}, "views": {"size": 32}, "max_failures": 1}
    made = recipe(tmp_path / "corpus", tmp_path / "out", MODALITIES, fit={"units": units}, **more)
    with pytest.raises(EngineError, match=r"is null in row 0.*There may be more to read than these") as told:
        weave(made)
    replacing = str(told.value).partition(", with --replace ")[2].split(" --replace ")
    larger = recipe(tmp_path / "corpus", tmp_path / "out", MODALITIES, fit={"units": 40}, **more)
    assert weave(larger, replacing).samples == 18


def test_broken_shards_are_no_samples(tokenloom: Callable[..., str], photos, tmp_path):
    """Two good tars, one that is cut, an empty one and an error's page; in one a sample that is refused."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    keys = sorted(photos)
    for name, own in {"0.tar": keys[:3], "1.tar": keys[3:]}.items():
        (folder / name).write_bytes(tar_bytes([(f"{key}.jpg", photos[key]) for key in own]))
    whole = tar_bytes([("x.jpg", photos["coffee"]), ("x.json", b"[]"), ("y.jpg", photos["coffee"])])
    (folder / "2.tar").write_bytes(whole[: len(whole) // 2 + 4096])
    (folder / "3.tar").write_bytes(b"")
    (folder / "4.tar").write_bytes(HTML)
    out, words = tmp_path / "out", ("--corpus", folder, "--output", tmp_path / "out", "--set", "max_failures=0.5")
    parts = "1 sample refused by the corpus reader, 3 parts of the corpus that can't be read"
    with without_ray():
        ran = tokenloom("run", "quickstart", *words)
        assert f"; {parts} -> " in ran
        told = tokenloom("status", out)
        assert parts in told.splitlines()
        planned = tokenloom("plan", "quickstart", *words)
        for text in (ran, told, planned):
            assert "3 corpus shards hold no sample: 2.tar, 3.tar, 4.tar" in text
            assert "incomplete: 4.tar is broken at byte 0: this is no tar" in text
        cases = tokenloom("quarantine", out)
        assert f"4 cases, {parts}" in cases
        assert cases.count("part of a shard") == 3
        retried = tokenloom("quarantine", out, "--retry")
        assert f"what the corpus reader refused isn't tried again ({parts})" in retried
    assert json.loads(tokenloom("status", out, "--json"))["refused"] == 1


def test_too_many_broken_shards_are_called_so(photos, tmp_path):
    write_good(tmp_path, photos, "tar")
    for name in "abcd":
        (tmp_path / f"{name}.tar").write_bytes(HTML)
    with pytest.raises(TooManyFailuresError, match="most of them what the corpus reader refused"):
        weave(recipe(tmp_path, tmp_path.with_name("out"), {"metadata": {"keep": "labels"}}, max_failures=0.4))
