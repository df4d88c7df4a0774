"""Exports whatever their format: resumed, read back, and refused in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from command import command
from small_dataset import SmallDataset, made_anew, path_of, pending, write_dataset
from tokenloom.pipeline.dataset.manifest import publish
from tokenloom.pipeline.storage import local
from tokenloom.pipeline.storage.local import LocalFiles
from tokenloom.training.use import printing

FORMATS = ("webdataset", "hf", "lm")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> SmallDataset:
    """Not to be changed."""
    return write_dataset(tmp_path_factory.mktemp("small") / "dataset")


@pytest.fixture
def own(tmp_path) -> SmallDataset:
    """For one test."""
    return write_dataset(tmp_path / "dataset")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Killed(BaseException):
    """Which nothing catches."""


class Dying:
    """Writes files, and after so many of them kills whoever asks for one more."""

    def __init__(self, writes: int) -> None:
        self.left, self.write = writes, local._write_temporary

    def __call__(self, folder: Path, data: bytes) -> Path:
        self.left -= 1
        if self.left < 0:
            raise Killed
        return self.write(folder, data)


def refused(*words: object) -> str:
    """The one line by which a command says that it can't."""
    ended = command("export", *words)
    assert ended.code == 2, ended
    assert ended.err.count("\n") == 1, ended.err
    return ended.err


@pytest.mark.parametrize("to", FORMATS)
def test_what_a_kill_left_is_gone_on_with(dataset, tmp_path, to, monkeypatch):
    """Killed before any of the writes: what is there then is whole, and the second call makes the rest alone."""
    whole = tmp_path / "whole"
    assert command("export", dataset.store.url, whole, "--to", to).code == 0
    expected = contents(whole)
    for writes in range(len(expected)):
        out = tmp_path / f"killed-{writes}"
        with monkeypatch.context() as patch:
            patch.setattr(local, "_write_temporary", Dying(writes))
            with pytest.raises(Killed):
                command("export", dataset.store.url, out, "--to", to)
        before = contents(out) if out.exists() else {}
        assert before.items() <= expected.items()
        stamps = {path: (out / path).stat().st_mtime_ns for path in before if path.startswith("receipts/")}
        ended = command("export", dataset.store.url, out, "--to", to)
        assert ended.code == 0, ended.err
        assert contents(out) == expected
        assert {path: (out / path).stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.parametrize("to", FORMATS)
def test_what_is_there_is_not_made_again(dataset, tmp_path, to):
    out = tmp_path / "out"
    assert command("export", dataset.store.url, out, "--to", to).code == 0
    shutil.copytree(dataset.store.url, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*.parquet"):
        path.write_bytes(b"")  # it would be read
    again = command("export", tmp_path / "copy", out, "--to", to)
    assert again.code == 0, again.err
    assert "made before: " in again.out


@pytest.mark.parametrize("to", FORMATS)
def test_modalities_are_in_the_order_of_the_dataset_however_they_are_named(dataset, tmp_path, to):
    for out, names in ((tmp_path / "one", ("caption", "dinov2")), (tmp_path / "other", ("dinov2", "caption"))):
        options = [word for name in names for word in ("--modality", name)]
        assert command("export", dataset.store.url, out, "--to", to, *options).code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


@pytest.mark.parametrize("to", FORMATS)
def test_a_compacted_dataset_is_exported_to_the_same_bytes(own, tmp_path, to):
    assert command("export", own.store.url, tmp_path / "before", "--to", to).code == 0
    assert command("compact", own.store.url).code == 0
    assert any("merged-" in entry.name for entry in own.store.list())
    assert command("export", own.store.url, tmp_path / "after", "--to", to).code == 0
    assert contents(tmp_path / "after") == contents(tmp_path / "before")


def test_receipts_have_the_checksums(dataset, tmp_path):
    import hashlib

    assert command("export", dataset.store.url, tmp_path / "out", "--to", "webdataset").code == 0
    for receipt in (tmp_path / "out/receipts").iterdir():
        for path, file in json.loads(receipt.read_text())["files"].items():
            data = (tmp_path / "out" / path).read_bytes()
            assert file == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def damage_size(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(("damage", "why"), [(Path.unlink, "it was gone"), (damage_size, " bytes, not ")])
def test_what_is_gone_or_of_another_size_is_made_anew_and_told(dataset, tmp_path, to, damage, why):
    out = tmp_path / "out"
    words = ("export", dataset.store.url, out, "--to", to)
    assert ", read back -> " in command(*words).out
    expected = contents(out)
    number = max(path.name for path in (out / "receipts").iterdir())
    path = sorted(json.loads((out / "receipts" / number).read_text())["files"])[0]
    damage(out / path)
    again = command(*words)
    assert again.code == 0, again.err
    assert f"{path} is made anew: " in again.out
    assert why in again.out
    assert contents(out) == expected
    third = command(*words).out
    assert "anew" not in third
    assert "read back" not in third
    pieces = len(list((out / "receipts").iterdir()))
    assert f"made before: {pieces} of {pieces} piece" in third


def test_many_damaged_files_are_counted(dataset, tmp_path, monkeypatch):
    words = ("export", dataset.store.url, tmp_path / "out", "--to", "webdataset")
    assert command(*words).code == 0
    for path in (tmp_path / "out").glob("*.tar"):
        path.unlink()
    monkeypatch.setattr(printing, "_MOST_DAMAGED", 3)
    ended = command(*words)
    assert ended.out.count("is made anew: it was gone") == 3
    assert "made anew besides: 1 file\n" in ended.out


@pytest.mark.parametrize("to", FORMATS)
def test_verify_finds_a_bit_that_turned(dataset, tmp_path, to):
    out = tmp_path / "out"
    words = ("export", dataset.store.url, out, "--to", to)
    assert command(*words).code == 0
    expected = contents(out)
    path = sorted(path for path in expected if path.endswith((".tar", ".parquet")))[-1]
    damage_bit(out / path)
    assert "anew" not in command(*words).out
    ended = command(*words, "--verify")
    assert f"{path} is made anew: its bytes had another SHA-256" in ended.out
    assert ", read back -> " in ended.out
    assert contents(out) == expected


def test_a_kill_between_damage_and_repair_leaves_no_receipt_of_what_is_gone(dataset, tmp_path, monkeypatch):
    out = tmp_path / "out"
    words = ("export", dataset.store.url, out, "--to", "webdataset")
    assert command(*words).code == 0
    expected = contents(out)
    (out / "shard-00002.tar").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(local, "_write_temporary", Dying(0))
        with pytest.raises(Killed):
            command(*words)
    assert not (out / "receipts/00002.json").exists()
    assert command(*words).code == 0
    assert contents(out) == expected


# --- what is refused --------------------------------------------------------------------------------------------------


def test_an_unknown_format(dataset, tmp_path):
    assert "there is no such format; there are webdataset" in refused(
        dataset.store.url, tmp_path / "out", "--to", "zarr"
    )
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else(dataset, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("...")
    assert "holds something else already (thesis.tex)" in refused(
        dataset.store.url, tmp_path / "out", "--to", "webdataset"
    )
    (tmp_path / "out/export.json").write_text("[]")
    assert "isn't an export's" in refused(dataset.store.url, tmp_path / "out", "--to", "webdataset")


def test_a_folder_that_holds_another_export(dataset, tmp_path):
    assert command("export", dataset.store.url, tmp_path / "out", "--to", "webdataset").code == 0
    said = refused(dataset.store.url, tmp_path / "out", "--to", "webdataset", "--modality", "caption")
    assert "holds another export, whose modalities, " in said


def test_a_folder_in_the_dataset(dataset):
    said = refused(dataset.store.url, f"{dataset.store.url}/export", "--to", "webdataset")
    assert "foreign to the dataset that it lies in" in said


def test_no_dataset(tmp_path):
    assert "no dataset here" in refused(tmp_path / "nothing", tmp_path / "out", "--to", "webdataset")


def test_a_modality_that_there_isnt(dataset, tmp_path):
    said = refused(dataset.store.url, tmp_path / "out", "--to", "webdataset", "--modality", "depth")
    assert "there is no modality 'depth'" in said


def test_a_modality_without_tokens(dataset, tmp_path):
    said = refused(dataset.store.url, tmp_path / "out", "--to", "webdataset", "--modality", "canny_edge")
    assert "canny_edge can't be exported to webdataset: only its labels are kept" in said
    without = command("export", dataset.store.url, tmp_path / "out", "--to", "webdataset")
    assert "canny_edge is left out: only its labels are kept" in without.out


def test_a_dataset_that_is_being_written(own, tmp_path):
    path_of(own, own.token_path("caption", own.units[-1])).unlink()
    said = refused(own.store.url, tmp_path / "out", "--to", "webdataset")
    assert "caption isn't finished, it has 3 of 4 units" in said
    others = command("export", own.store.url, tmp_path / "out", "--to", "webdataset", "--modality", "dinov2")
    assert others.code == 0
    for name in ("caption", "color_palette", "dinov2"):
        path_of(own, own.token_path(name, own.units[-1])).unlink(missing_ok=True)
    path_of(own, own.label_path("canny_edge", own.units[-1])).unlink()
    said = refused(own.store.url, tmp_path / "out2", "--to", "webdataset")
    assert "1 of 2 shards of the corpus are complete" in said


def test_a_modality_that_is_being_made_anew(own, tmp_path):
    pending(own, made_anew(own, "color_palette", units=1, version=2), "color_palette")
    assert "color_palette is being made anew" in refused(own.store.url, tmp_path / "out", "--to", "webdataset")


def test_a_stale_modality(own, tmp_path):
    card = own.manifest.modalities["dinov2"]
    cards = {**own.manifest.modalities, "dinov2": replace(card, requires={"caption": "0" * 16})}
    publish(own.store, lambda now: replace(own.manifest, modalities=cards))
    assert "dinov2 is stale" in refused(own.store.url, tmp_path / "out", "--to", "webdataset")


def test_a_shard_that_is_cut_off(own, tmp_path):
    path = path_of(own, own.token_path("caption", own.units[1]))
    path.write_bytes(path.read_bytes()[:40])
    said = refused(own.store.url, tmp_path / "out", "--to", "webdataset")
    assert f"{own.token_path('caption', own.units[1])}: it isn't a readable Parquet file" in said
    assert len(list((tmp_path / "out/receipts").iterdir())) == 1  # of what came before


def test_a_dataset_that_has_grown(own, tmp_path):
    assert command("export", own.store.url, tmp_path / "out", "--to", "webdataset").code == 0
    from small_dataset import repair_palette

    repair_palette(own, own.units[0])
    said = refused(own.store.url, tmp_path / "out", "--to", "webdataset")
    assert "whose units differ" in said


def test_a_file_in_the_place_of_a_piece(dataset, tmp_path):
    out = tmp_path / "out"
    assert command("export", dataset.store.url, out, "--to", "webdataset").code == 0
    (out / "receipts/00001.json").unlink()
    (out / "shard-00001.tar").write_bytes(b"something else")
    assert "shard-00001.tar: it isn't what was exported" in refused(dataset.store.url, out, "--to", "webdataset")


def test_a_receipt_that_is_none(dataset, tmp_path):
    out = tmp_path / "out"
    assert command("export", dataset.store.url, out, "--to", "webdataset").code == 0
    for text in ("{", "[]", '{"files": {}}', '{"files": {"a": "0f"}}'):
        (out / "receipts/00001.json").write_text(text)
        assert "receipts/00001.json: it isn't a receipt" in refused(dataset.store.url, out, "--to", "webdataset")


def test_a_full_disk(dataset, tmp_path, monkeypatch):
    import errno

    create = LocalFiles.create

    def full(self, path, data):
        if path.endswith("2.tar"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return create(self, path, data)

    monkeypatch.setattr(LocalFiles, "create", full)
    ended = command("export", dataset.store.url, tmp_path / "out", "--to", "webdataset")
    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert "make room and run it again" in ended.err
    monkeypatch.undo()
    assert command("export", dataset.store.url, tmp_path / "out", "--to", "webdataset").code == 0
