"""What a run says at its end is of the dataset, whichever run made it: given again, it says the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpus_files import tar_bytes
from in_process import said
from tokenloom.pipeline.storage.store import Store
from weaving import odd, recipe


def written(path: Path, corpus: Path, output: Path, modalities: dict[str, Any]) -> Path:
    made = recipe(corpus, output, modalities, units={"samples": 2}, views={"size": 32}, max_failures=1)
    path.write_text(json.dumps(made.model_dump(mode="json", exclude_unset=True)))
    return path


@pytest.fixture
def tars(tmp_path, photos) -> Path:
    """Five: a whole one, half of one, one with a sample without an image and one that fails, two without samples."""
    folder = tmp_path / "tars"
    folder.mkdir()
    whole = tar_bytes([(f"a-{key}.jpg", photos[key]) for key in ("coffee", "rocket", "china")])
    (folder / "a.tar").write_bytes(whole)
    half = tar_bytes([(f"b-{key}.jpg", photos[key]) for key in ("coffee", "rocket", "china")])
    (folder / "b.tar").write_bytes(half[: len(half) // 2])
    bad = [("flower.jpg", photos["flower"]), ("notes.mov", b"\1"), ("c.jpg", photos["china"])]
    (folder / "c.tar").write_bytes(tar_bytes(bad))
    for name in ("d.tar", "e.tar"):
        (folder / name).write_bytes(tar_bytes([]))
    return folder


def test_a_run_with_nothing_to_do_says_what_is_wrong_as_the_first_did(tars, tmp_path, monkeypatch):
    output, waits = tmp_path / "out", odd("GridWaitsForFlower", params={"file": str(tmp_path / "now")})
    mine = written(tmp_path / "mine.json", tars, output, {"grid": waits, "mean_colour": odd("MeanColour")})
    first = said("run", mine).splitlines()
    told = [line for line in first if line.startswith(("incomplete: b.tar is broken", "`tokenloom quar"))]
    end = "; 1 label quarantined; 1 sample refused by the corpus reader, 1 part of the corpus that can't be read"
    assert len(told) >= 2
    assert first[-1].endswith(f"2 modalities{end} -> {output}")
    read: list[str] = []
    own = Store.read

    def reading(store: Store, path: str) -> bytes:
        read.append(path)
        return own(store, path)

    monkeypatch.setattr(Store, "read", reading)
    again = said("run", mine).splitlines()
    assert [line for line in again if line in told] == told
    assert again[-1] == f"nothing to do{end} -> {output}"
    ledgers = [path for path in read if path.startswith("quarantine/")]
    assert sorted(ledgers) == sorted(set(ledgers)), "each once"
    (tmp_path / "now").touch()
    said("quarantine", output, "--retry")
    assert said("run", mine).splitlines()[-1] == f"nothing to do{end.replace('; 1 label quarantined', '')} -> {output}"


def test_a_run_that_goes_on_counts_what_failed_before_it(tars, tmp_path):
    output, waits = tmp_path / "out", odd("GridWaitsForFlower", params={"file": str(tmp_path / "now")})
    mine = written(tmp_path / "mine.json", tars, output, {"grid": waits})
    whole = said("run", mine).splitlines()[-1].partition("; ")[2]
    more = written(tmp_path / "more.json", tars, output, {"grid": waits, "mean_colour": odd("MeanColour")})
    assert said("run", more).splitlines()[-1].partition("; ")[2] == whole


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"\0" * 512), Path.unlink])
def test_a_changed_file_is_called_by_its_name(change: Callable[[Path], object], tars, tmp_path):
    output = tmp_path / "out"
    said("run", written(tmp_path / "mine.json", tars, output, {"mean_colour": odd("MeanColour")}))
    change(tars / "e.tar")
    more = written(tmp_path / "more.json", tars, output, {"mean_colour": odd("MeanColour"), "grid": odd("Grid")})
    planned = said("plan", more, "--calibrate", "0")
    assert "left: grid in 4 of 5 shards" in planned
    for printed in (planned, said("run", more)):
        assert "2 corpus shards hold no sample: d.tar, e.tar" in printed
