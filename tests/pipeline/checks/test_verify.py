"""Verify: a sound dataset passes, and whatever is done to one is found and named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from small_dataset import CARDS, VIEWS, SmallDataset, path_of, rewrite_tokens, write_dataset, write_unit
from tokenloom.pipeline.checks.verify import verify
from tokenloom.pipeline.checks.verify_unit import Held, Holding, check_unit
from tokenloom.pipeline.cli import app
from tokenloom.pipeline.corpus.units import Unit
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.layout import manifest_path, tokenizer_folder, vocabulary_path
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
        for path in path_of(small, name).glob(f"*/{unit.name}.*"):
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
    assert report.bytes == sum(path.stat().st_size for name in CARDS for path in path_of(small, name).glob("*/*"))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_sound_dataset_passes_on_s3(s3_url):
    small = write_dataset(s3_url, shards=1)
    assert verify(s3_url, deep=True).faults == []
    small.store.create("dinov2/notes.txt", b"hello")
    path = small.token_path("dinov2", small.units[0])
    small.store.replace(path, small.store.read(path)[:-1] + b"2")
    assert findings(small) == {("foreign", "dinov2/notes.txt"), ("damaged", path)}


def test_an_empty_unit_is_sound(tmp_path):
    """As a corpus shard gives it whose samples are all refused."""
    from webdataset.compat import WebDataset

    small = write_dataset(tmp_path, units=1, shards=1, samples=0)
    assert verify(small.store).faults == []
    assert list(open_dataset(tmp_path)) == []
    assert list(open_dataset(tmp_path).iterate(labels=True)) == []
    tar = path_of(small, small.label_path("caption", small.units[0]))
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
    path = (pristine.token_path if extension == "parquet" else pristine.label_path)("caption", unit)
    held = Held("caption", pristine.manifest.modalities["caption"], path, unit.name)
    holding = Holding(unit, (held,))
    assert check_unit(pristine.store, VIEWS, holding, deep=False).faults == []
    store, missed = Flipped(pristine.store.url), []
    for at in range(pristine.store.size(path)):
        store.flip = (path, at, at % 8)
        faults = check_unit(store, VIEWS, holding, deep=False).faults
        if [(fault.problem, fault.object) for fault in faults] != [("damaged", path)]:
            missed.append(at)
    assert missed == []


def test_any_flipped_bit_of_the_manifest_is_found(tmp_path, pristine):
    """Bit 5, too, everywhere: it turns 1e-05 into 1E-05, and other letters' case."""
    manifest = replace(pristine.manifest, modalities={"dinov2": pristine.manifest.modalities["dinov2"]})
    manifest = replace(manifest, views={**manifest.views, "min_scale": 1e-05})
    store, missed, path = Flipped(tmp_path), [], manifest_path(1)
    store.create(path, manifest.to_bytes())
    for bit in (None, 5):
        for at in range(store.size(path)):
            store.flip = (path, at, at % 8 if bit is None else bit)
            if ("damaged", path) not in {(fault.problem, fault.object) for fault in verify(store).faults}:
                missed.append((at, bit))
    assert missed == []


@pytest.mark.slow
def test_a_flipped_bit_of_any_other_object_is_found(small):
    folders = ("tokenizers", "vocabularies", "quarantine")
    files = [p for folder in folders for p in path_of(small, folder).rglob("*") if p.is_file()]
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
    for path in (small.token_path("dinov2", small.units[1]), small.label_path("canny_edge", small.units[1])):
        file = path_of(small, path)
        file.write_bytes(file.read_bytes()[:keep])
    assert findings(small) == {("damaged", small.token_path("dinov2", small.units[1])), ("damaged", path)}


# --- what the listings tell -------------------------------------------------------------------------------------------


def test_a_deleted_shard_is_missed(small):
    path_of(small, small.token_path("dinov2", small.units[2])).unlink()
    path_of(small, small.label_path("caption", small.units[3])).unlink()
    assert findings(small) == {
        ("missing", small.token_path("dinov2", small.units[2])),
        ("missing", small.label_path("caption", small.units[3])),
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
    assert fault.what == "there are units of 1 of its 2 shards, but none of s3://photos/photos-00001.tar"


def test_a_deleted_last_unit_is_a_gap(small):
    last = sorted(small.units)[1]
    assert last.stop is None
    delete_unit(small, last)
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("unfinished", last.shard)
    assert fault.what == "no units from position 1024 to its end"


def test_a_modality_that_is_not_begun_is_unfinished(small):
    shutil.rmtree(path_of(small, "canny_edge"))
    folder = small.label_path("canny_edge", small.units[0]).rpartition("/")[0]
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("unfinished", f"{folder}/*.tar")
    assert fault.what == "none of its 4 units is made yet"


def test_units_of_another_corpus_are_found(small):
    stranger = Unit("photos-00009-0123456789ab", 0, None, 4)
    small.keys[stranger] = ["x/1", "x/2", "x/3", "x/4"]
    write_unit(small, stranger)
    assert findings(small) == {("foreign", stranger.shard)}


def test_foreign_objects_are_named(small):
    unit, cards, other = small.units[0], small.manifest.modalities, "0" * 16
    tokens, labels = (
        path(name, unit).rpartition("/")[0]
        for path, name in ((small.token_path, "dinov2"), (small.label_path, "canny_edge"))
    )
    tokenizer = tokenizer_folder(cards["dinov2"].tokenizer_digest)
    ledgers = f"quarantine/dinov2/{cards['dinov2'].tokens_generation}"
    files = [
        "notes.txt",
        "manifests/notes.txt",
        "manifests/1.json",
        f"manifests/below/{manifest_path(1).rpartition('/')[2]}",
        "depth/notes.txt",
        f"depth/tokens-{other}/{unit.name}.parquet",
        "dinov2/notes.txt",
        f"dinov2/{unit.name}.parquet",
        f"dinov2/tokens-{other}/{unit.name}.parquet",
        f"dinov2/labels-{other}/{unit.name}-r2.tar",
        f"{tokens}/{unit.name}.tar",
        f"{tokens}/{unit.name}.parquet.bak",
        f"{tokens}/{unit.name}-r0.parquet",
        f"{tokens}/below/{unit.name}.parquet",
        f"{labels}/{unit.name}.parquet",
        f"quarantine/depth/{other}/{unit.name}-{other}.jsonl",
        f"quarantine/dinov2/{other}/{unit.name}-{other}.jsonl",
        f"{ledgers}/{unit.name}.jsonl",
        f"{ledgers}/{replace(unit, start=7).name}-{other}.jsonl",
        f"{ledgers}/notes.txt",
        f"{tokenizer}/notes.txt",
        f"tokenizers/{other}/config.json",
        f"vocabularies/{other}/vocabulary.json",
        ".tmp-host-1-ab",
        "dinov2/.tmp-host-1-ab",
        f"{tokens}/.tmp-host-1-ab",
        f"{ledgers}/.tmp-host-1-ab",
        f"{tokenizer}/.tmp-host-1-ab",
    ]
    for name in files:
        path = path_of(small, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"?")
    lost = {f"depth/tokens-{other}", f"dinov2/tokens-{other}", f"dinov2/labels-{other}"}  # of another manifest
    expected = {("foreign", name) for name in files if name.rpartition("/")[0] not in lost}
    assert findings(small) == expected | {("missing", manifest_path(2))}


def test_leftovers_of_a_run_are_unfinished(small):
    for name in (f"fit/dinov2/sample/{small.units[0].name}.tar", f"attempts/{small.units[0].name}/stage/0f"):
        small.store.create(name, b"")
    assert {problem for problem, _ in findings(small)} == {"unfinished"}


def test_many_foreign_objects_are_counted(small):
    for number in range(50):
        (path_of(small, "dinov2") / f"{number:02d}.txt").write_bytes(b"")
    faults = verify(small.store).faults
    assert len(faults) == 21
    assert faults[-1].what == "30 more like these"


def test_missing_and_exchanged_tokenizer_files_are_named(small):
    cards = small.manifest.modalities
    tokens = cards["caption"].tokens
    assert tokens is not None
    assert tokens.vocabulary is not None
    vocabulary = vocabulary_path(tokens.vocabulary.digest)
    config, other = (
        f"{tokenizer_folder(cards[name].tokenizer_digest)}/config.json" for name in ("dinov2", "color_palette")
    )
    path_of(small, config).unlink()
    path_of(small, vocabulary).unlink()
    assert findings(small) == {("missing", config), ("missing", vocabulary)}
    (way_out,) = {fault.way_out for fault in verify(small.store).faults if fault.object == vocabulary}
    assert "make caption, color_palette anew" in way_out
    path_of(small, config).write_bytes(path_of(small, other).read_bytes())
    assert findings(small) == {("damaged", config), ("missing", vocabulary)}


# --- sound shards in the wrong place ----------------------------------------------------------------------------------


def test_a_renamed_shard_is_found(small):
    unit = small.units[0]
    path = path_of(small, small.token_path("dinov2", unit))
    renamed = replace(unit, count=5)
    path.rename(path_of(small, small.token_path("dinov2", renamed)))
    assert findings(small) == {
        ("missing", small.token_path("dinov2", unit)),
        ("misplaced", small.token_path("dinov2", renamed)),
    }


def test_swapped_units_are_found(small):
    one, other = (path_of(small, small.token_path("dinov2", unit)) for unit in small.units[:2])
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert findings(small) == {("misplaced", small.token_path("dinov2", unit)) for unit in small.units[:2]}


def test_swapped_modalities_are_found(small):
    one, other = (small.token_path(name, small.units[0]) for name in ("caption", "color_palette"))
    first, second = path_of(small, one).read_bytes(), path_of(small, other).read_bytes()
    path_of(small, one).write_bytes(second)
    path_of(small, other).write_bytes(first)
    assert findings(small) == {("misplaced", one), ("misplaced", other)}


def test_a_shard_of_another_make_is_found(small):
    unit = small.units[0]
    rewrite_tokens(small, "dinov2", unit, generation="f" * 16)
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("misplaced", small.token_path("dinov2", unit))
    assert "it is of the generation ffffffffffffffff" in fault.what


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
    path = path_of(small, manifest_path(1))
    data = json.loads(path.read_bytes())
    data["seed"] = 1
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    (fault,) = verify(small.store).faults
    assert (fault.problem, fault.object) == ("damaged", manifest_path(1))
    assert "changed by hand" in fault.what
    path.unlink()
    assert findings(small) == {("missing", "manifests")}


def test_a_manifest_of_a_later_format_is_refused(small):
    path = path_of(small, manifest_path(1))
    path.write_bytes(path.read_bytes().replace(b'"version": 2', b'"version": 3', 1))
    (fault,) = verify(small.store).faults
    assert "reads 'tokenloom' version 2" in fault.what


# --- the command ------------------------------------------------------------------------------------------------------


def run(*arguments: str):
    return CliRunner().invoke(app, ["verify", *arguments], catch_exceptions=False)


def test_the_command_says_so_when_all_is_well(small):
    result = run(small.store.url, "--deep")
    assert result.exit_code == 0
    assert result.stdout.startswith("24 shards of 4 modalities read, 16 samples in 4 units, ")
    assert result.stdout.endswith(": all as written, nothing missing, nothing foreign\n")


def test_the_command_names_each_object_and_the_way_out(small):
    path = small.token_path("dinov2", small.units[0])
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
