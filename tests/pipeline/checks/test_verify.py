"""Verify: a sound dataset passes, and whatever is done to one is found and named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from small_dataset import CARDS, SmallDataset, path_of, rewrite_tokens, write_dataset, write_unit
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.checks.verify_unit import Holding, check_unit
from tokenloom.pipeline.cli import app
from tokenloom.pipeline.corpus.units import Unit
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.layout import label_path, token_path
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.storage.store import Store
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> SmallDataset:
    return write_dataset(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def small(pristine, tmp_path) -> SmallDataset:
    """A copy to damage."""
    shutil.copytree(pristine.store.url, tmp_path / "dataset")
    return replace(pristine, store=Store(tmp_path / "dataset"))


def delete_unit(small: SmallDataset, unit: Unit) -> None:
    for name in CARDS:
        for path in path_of(small, name).glob(f"{unit.name}.*"):
            path.unlink()


def findings(small: SmallDataset, deep: bool = False) -> set[tuple[str, str]]:
    return {(fault.problem, fault.object) for fault in verify(small.store, deep).faults}


# --- sound datasets ---------------------------------------------------------------------------------------------------


def test_a_sound_dataset_passes(small):
    seen = []
    report = verify(small.store.url, deep=True, watch=lambda report, units: seen.append((report.units, units)))
    assert report.faults == []
    assert report.ok
    assert (report.modalities, report.samples, report.units, report.shards) == (4, 16, 4, 24)
    assert report.bytes == sum(path.stat().st_size for name in CARDS for path in path_of(small, name).iterdir())
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_sound_dataset_passes_on_s3(s3_url):
    small = write_dataset(s3_url)
    assert verify(s3_url, deep=True).faults == []
    small.store.create("dinov2/notes.txt", b"hello")
    path = token_path("dinov2", small.units[0])
    small.store.replace(path, small.store.read(path)[:-1] + b"2")
    assert findings(small) == {("foreign", "dinov2/notes.txt"), ("damaged", path)}


def test_an_empty_unit_is_sound(tmp_path):
    """As a corpus shard gives it whose samples are all refused."""
    from webdataset.compat import WebDataset

    small = write_dataset(tmp_path, units=1, shards=1, samples=0)
    assert verify(small.store).faults == []
    assert list(open_dataset(tmp_path)) == []
    assert list(open_dataset(tmp_path).iterate(labels=True)) == []
    tar = path_of(small, label_path("caption", small.units[0]))
    assert list(WebDataset(str(tar), shardshuffle=False, empty_check=False)) == []


def test_nothing_there_is_no_dataset(tmp_path):
    with pytest.raises(DatasetError, match="there is nothing here"):
        verify(tmp_path / "nowhere")


# --- flipped bits -----------------------------------------------------------------------------------------------------


class Flipped(Store):
    """A store in which one bit of one object is flipped: (path, byte, bit)."""

    flip: tuple[str, int, int]

    def read(self, path: str) -> bytes:
        data = super().read(path)
        if path != self.flip[0]:
            return data
        _, at, bit = self.flip
        return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


@pytest.mark.parametrize("extension", ["parquet", "tar"])
def test_any_flipped_bit_of_a_shard_is_found(pristine, extension):
    unit = pristine.units[0]
    path = (token_path if extension == "parquet" else label_path)("caption", unit)
    holding = Holding(unit, (("caption", extension),), frozenset({"corpus"}))
    assert check_unit(pristine.store, pristine.manifest, holding, deep=False).faults == []
    store, missed = Flipped(pristine.store.url), []
    for at in range(pristine.store.size(path)):
        store.flip = (path, at, at % 8)
        faults = check_unit(store, pristine.manifest, holding, deep=False).faults
        if [(fault.problem, fault.object) for fault in faults] != [("damaged", path)]:
            missed.append(at)
    assert missed == []


def test_any_flipped_bit_of_the_manifest_is_found(tmp_path, pristine):
    """Bit 5, too, everywhere: it turns 1e-05 into 1E-05, and other letters' case."""
    manifest = replace(pristine.manifest, modalities={"dinov2": pristine.manifest.modalities["dinov2"]})
    manifest = replace(manifest, views={**manifest.views, "min_scale": 1e-05})
    store, missed = Flipped(tmp_path), []
    store.create("dataset.json", manifest.to_bytes())
    for bit in (None, 5):
        for at in range(store.size("dataset.json")):
            store.flip = ("dataset.json", at, at % 8 if bit is None else bit)
            if ("damaged", "dataset.json") not in {(fault.problem, fault.object) for fault in verify(store).faults}:
                missed.append((at, bit))
    assert missed == []


def test_a_flipped_bit_of_any_other_object_is_found(small):
    files = [p for folder in ("tokenizers", "quarantine") for p in path_of(small, folder).rglob("*") if p.is_file()]
    assert len(files) >= 8
    for file in files:
        data = file.read_bytes()
        for at in (0, len(data) // 2, len(data) - 1):
            file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert findings(small) == {("damaged", str(file.relative_to(small.store.url)))}
        file.write_bytes(data)
    assert findings(small) == set()


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_shard_is_found(small, keep):
    for path in (token_path("dinov2", small.units[1]), label_path("canny_edge", small.units[1])):
        file = path_of(small, path)
        file.write_bytes(file.read_bytes()[:keep])
    assert findings(small) == {("damaged", token_path("dinov2", small.units[1])), ("damaged", path)}


# --- what the listings tell -------------------------------------------------------------------------------------------


def test_a_deleted_shard_is_missed(small):
    path_of(small, token_path("dinov2", small.units[2])).unlink()
    path_of(small, label_path("caption", small.units[3])).unlink()
    assert findings(small) == {
        ("missing", token_path("dinov2", small.units[2])),
        ("missing", label_path("caption", small.units[3])),
    }


def test_a_deleted_unit_is_a_gap_in_its_corpus_shard(small):
    first, last = sorted(small.units)[2:]
    delete_unit(small, first)
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("unfinished", first.shard)
    assert fault.what == "no units from position 0 to 1024"
    delete_unit(small, last)
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("unfinished", "the corpus")
    assert "units of 1 of 2" in fault.what


def test_a_deleted_last_unit_is_a_gap(small):
    last = sorted(small.units)[1]
    assert last.stop is None
    delete_unit(small, last)
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("unfinished", last.shard)
    assert fault.what == "no units from position 1024 to its end"


def test_a_modality_that_is_not_begun_is_unfinished(small):
    shutil.rmtree(path_of(small, "canny_edge"))
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object, fault.what) == (
        "unfinished",
        "canny_edge/*.tar",
        "none of its 4 units is made yet",
    )


def test_units_of_another_corpus_are_found(small):
    stranger = Unit("photos-00009-0123456789ab", 0, None, 4)
    small.keys[stranger] = ["x/1", "x/2", "x/3", "x/4"]
    write_unit(small, stranger)
    report = verify(small.store)
    assert "aren't the 2 that the corpus had" in next(f.what for f in report.faults if f.object == "the corpus")


def test_foreign_objects_are_named(small):
    unit = small.units[0]
    files = [
        "notes.txt",
        "depth/notes.txt",
        f"depth/{unit.name}.parquet",
        "dinov2/notes.txt",
        f"dinov2/{unit.name}.tar",
        f"dinov2/{unit.name}.parquet.bak",
        f"dinov2/below/{unit.name}.parquet",
        f"canny_edge/{unit.name}.parquet",
        f"quarantine/depth/{unit.name}.jsonl",
        f"quarantine/dinov2/{unit.name}.jsonl",
        f"quarantine/dinov2/{replace(unit, start=7).name}.jsonl",
        "quarantine/dinov2/notes.txt",
        "tokenizers/dinov2/notes.txt",
        "tokenizers/canny_edge/config.json",
        ".tmp-host-1-ab",
        "dinov2/.tmp-host-1-ab",
        "tokenizers/dinov2/.tmp-host-1-ab",
    ]
    for name in files:
        path = path_of(small, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"?")
    assert findings(small) == {("foreign", name) for name in files}


def test_leftovers_of_a_run_are_unfinished(small):
    for name in (f"fit/dinov2/{small.units[0].name}.tar", f"attempts/{small.units[0].name}/stage/0f"):
        small.store.create(name, b"")
    assert {problem for problem, _ in findings(small)} == {"unfinished"}


def test_many_foreign_objects_are_counted(small):
    for number in range(50):
        (path_of(small, "dinov2") / f"{number:02d}.txt").write_bytes(b"")
    faults = verify(small.store).faults
    assert len(faults) == 21
    assert faults[-1].what == "30 more like these"


def test_missing_and_exchanged_tokenizer_files_are_named(small):
    path_of(small, "tokenizers/dinov2/config.json").unlink()
    path_of(small, "tokenizers/vocabulary.json").unlink()
    assert findings(small) == {
        ("missing", "tokenizers/dinov2/config.json"),
        ("missing", "tokenizers/vocabulary.json"),
    }


# --- sound shards in the wrong place ----------------------------------------------------------------------------------


def test_a_renamed_shard_is_found(small):
    unit = small.units[0]
    path = path_of(small, token_path("dinov2", unit))
    renamed = replace(unit, count=5)
    path.rename(path_of(small, token_path("dinov2", renamed)))
    assert findings(small) == {
        ("missing", token_path("dinov2", unit)),
        ("misplaced", token_path("dinov2", renamed)),
    }


def test_swapped_units_are_found(small):
    one, other = (path_of(small, token_path("dinov2", unit)) for unit in small.units[:2])
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert findings(small) == {("misplaced", token_path("dinov2", unit)) for unit in small.units[:2]}


def test_swapped_modalities_are_found(small):
    one, other = (token_path(name, small.units[0]) for name in ("caption", "color_palette"))
    first, second = path_of(small, one).read_bytes(), path_of(small, other).read_bytes()
    path_of(small, one).write_bytes(second)
    path_of(small, other).write_bytes(first)
    assert findings(small) == {("misplaced", one), ("misplaced", other)}


def test_a_shard_of_another_make_is_found(small):
    unit = small.units[0]
    rewrite_tokens(small, "dinov2", unit, fingerprint="f" * 32)
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("misplaced", token_path("dinov2", unit))
    assert "--replace dinov2" in fault.way_out


# --- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_that_occurs_in_two_units_is_found(tmp_path):
    small = write_dataset(tmp_path)
    unit, other = small.units[1], small.units[3]
    delete_unit(small, other)
    small.keys[other][2] = small.keys[unit][1]
    write_unit(small, other)
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("duplicate", f"key {small.keys[unit][1]!r}")
    assert unit.name in fault.what
    assert other.name in fault.what


# --- the manifest -----------------------------------------------------------------------------------------------------


def test_an_edited_manifest_is_found(small):
    path = path_of(small, "dataset.json")
    data = json.loads(path.read_bytes())
    data["seed"] = 1
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("damaged", "dataset.json")
    assert "changed by hand" in fault.what
    path.unlink()
    assert findings(small) == {("missing", "dataset.json")}


def test_a_manifest_of_a_later_format_is_refused(small):
    path = path_of(small, "dataset.json")
    path.write_bytes(path.read_bytes().replace(b'"version": 1', b'"version": 2', 1))
    (fault,) = verify(small.store).faults
    assert "reads 'tokenloom' version 1" in fault.what


# --- the command ------------------------------------------------------------------------------------------------------


def run(*arguments: str):
    return CliRunner().invoke(app, ["verify", *arguments], catch_exceptions=False)


def test_the_command_says_so_when_all_is_well(small):
    result = run(small.store.url, "--deep")
    assert result.exit_code == 0
    assert result.stdout.startswith("24 shards of 4 modalities read, 16 samples in 4 units, ")
    assert result.stdout.endswith(": all as written, nothing missing, nothing foreign\n")


def test_the_command_names_each_object_and_the_way_out(small):
    path = token_path("dinov2", small.units[0])
    file = path_of(small, path)
    file.write_bytes(file.read_bytes()[:-1])
    (path_of(small, "dinov2") / "a[red]\x1b.txt").write_bytes(b"")
    result = run(small.store.url)
    assert result.exit_code == 1
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert path in lines
    assert lines[lines.index(path) + 2] == "-> delete it and run the recipe again, which makes it anew"
    assert r"dinov2/a[red]\x1b.txt" in lines
    assert lines[-1] == "2 findings: 1 damaged, 1 foreign"
    as_json = run(small.store.url, "--json")
    assert as_json.exit_code == 1
    report = json.loads(as_json.stdout)
    assert report["ok"] is False
    assert [fault["object"] for fault in report["faults"]] == ["dinov2/a[red]\x1b.txt", path]
