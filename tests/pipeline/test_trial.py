"""What `plan` finds by trying a few samples: from all over the corpus, and all that fails or isn't taken of them; and
what a run says that finds no sample to fit tokenizers to."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from corpus_files import parquet_bytes, tar_bytes
from in_process import weave, without_ray
from tokenloom.pipeline.cli import main
from tokenloom.pipeline.cluster.session import EngineError
from tokenloom.pipeline.engine.estimate import calibrate
from tokenloom.pipeline.plan.plan import make_plan
from weaving import odd, recipe

CAPTIONS = {"caption": {"keep": "labels"}}
SMALL: dict[str, Any] = {"views": {"size": 32}, "units": {"samples": 4}}


def write(folder: Path, photo: bytes, **texts: Any) -> Path:
    """An image for each name, with `texts` in a JSON beside it unless they are None."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, fields in texts.items():
        (folder / f"{name}.png").write_bytes(photo)
        if fields is not None:
            (folder / f"{name}.json").write_text(json.dumps(fields))
    return folder


@pytest.fixture
def plan(tokenloom: Callable[..., str], tmp_path) -> Callable[..., str]:
    """What `plan` prints of a corpus, from where it tells of the trial."""

    def planned(corpus: Path, *words: object) -> str:
        with without_ray():
            printed = tokenloom("plan", "quickstart", "--corpus", corpus, "--output", tmp_path / "out", *words)
        return printed[printed.index("tried") :]

    return planned


# --- where it looks ---------------------------------------------------------------------------------------------------


def test_one_odd_picture_at_the_beginning_is_not_the_corpus(photos, plan, tmp_path):
    """A picture in the root, and captions in the folders below."""
    corpus = write(tmp_path / "corpus", photos["coffee"], new=None)
    for folder in "ab":
        write(corpus / folder, photos["coffee"], **{f"{n}": {"caption": "a cup"} for n in range(9)})
    said = plan(corpus, "--calibrate", 12)
    assert "tried on 12 samples here, from 3 of 3 shards" in said
    assert "is null" not in said


@pytest.mark.parametrize(("shards", "each", "count", "tried"), [(40, 1, 12, 12), (3, 9, 12, 12), (3, 2, 12, 6)])
@pytest.mark.parametrize("form", ["folder", "tar", "parquet"])
def test_the_trial_is_spread(photos, tmp_path, form, shards, each, count, tried):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for shard in range(shards):
        keys = [f"{shard:02d}-{n}" for n in range(each)]
        if form == "folder":
            write(corpus / f"{shard:02d}", photos["coffee"], **dict.fromkeys(keys))
        elif form == "tar":
            (corpus / f"{shard:02d}.tar").write_bytes(tar_bytes([(f"{key}.png", photos["coffee"]) for key in keys]))
        else:
            columns = {"key": keys, "image": [photos["coffee"]] * each}
            (corpus / f"{shard:02d}.parquet").write_bytes(parquet_bytes(columns))
    found = calibrate(make_plan(recipe(corpus, tmp_path / "out", CAPTIONS, **SMALL)), count)
    assert found is not None
    assert (found.samples, found.shards) == (tried, min(count, shards))
    assert found.bytes == tried * len(photos["coffee"])


def test_the_trial_is_spread_within_a_folder(photos, plan, tmp_path):
    """Captions beside the last third alone."""
    texts = {f"{n:02d}": {"caption": "a cup"} if n >= 40 else None for n in range(60)}
    said = plan(write(tmp_path / "corpus", photos["coffee"], **texts), "--calibrate", 12)
    assert "tried on 12 samples here, from 1 of 1 shard:" in said
    assert "is null" not in said


def test_what_is_left_alone_is_tried(photos, tmp_path):
    corpus = write(tmp_path / "corpus", photos["coffee"], **{f"{n}": None for n in range(9)})
    weave(made := recipe(corpus, tmp_path / "out", {"mean_colour": odd("MeanColour")}, **SMALL), limit=5)
    found = calibrate(make_plan(made), 30)
    assert found is not None
    assert found.samples == 1


def test_the_trial_is_of_the_steps_that_are_left(photos, tmp_path):
    """Also where labels that are kept have to be made for them; and for each sample its own."""
    corpus = write(tmp_path / "corpus", photos["coffee"], **{f"{n}": None for n in range(9)})
    first, later = {"mean_colour": odd("MeanColour")}, {"doubled": odd("Doubled"), **CAPTIONS}
    weave(recipe(corpus, tmp_path / "out", first, **SMALL))
    found = calibrate(make_plan(both := recipe(corpus, tmp_path / "out", {**first, **later}, **SMALL)), 30)
    assert found is not None
    assert (set(found.seconds), found.labels) == (set(later), dict.fromkeys(later, 9))
    (corpus / "other").mkdir()
    write(corpus / "other", photos["coffee"], x=None, y=None)
    found = calibrate(make_plan(both), 30)
    assert found is not None
    assert found.labels == {"mean_colour": 2, "doubled": 11, "caption": 11}


def test_the_trial_is_of_all_views(photos, tmp_path):
    """The third of each sample fails."""
    corpus = write(tmp_path / "corpus", photos["coffee"], **{f"{n}": None for n in range(5)})
    modalities = {"last": odd("ViewWaitsFor", params={"file": str(tmp_path / "now")}), "grey_image": odd("GreyImage")}
    more: dict[str, Any] = {**SMALL, "views": {"size": 32, "count": 3}}
    found = calibrate(make_plan(recipe(corpus, tmp_path / "out", modalities, **more)), 30)
    assert found is not None
    assert found.labels == dict.fromkeys(modalities, 15)
    assert [(one.modalities, one.count) for one in found.failing] == [(["last"], 5)]


# --- what it tells ----------------------------------------------------------------------------------------------------


def test_labels_that_fail_are_told_with_their_reason(photos, plan, tmp_path):
    texts = {f"{n}": {"caption": 3} if n < 4 else {"caption": "a cup"} for n in range(6)}
    corpus = write(tmp_path / "corpus", photos["coffee"], **texts)
    for name in ("x", "y"):
        (corpus / f"{name}.png").write_bytes(b"no image")
    lines = plan(corpus).splitlines()
    assert "of the 8 samples tried:" in lines
    assert "  4 of 8 labels of caption fail (0: the corpus field 'caption' holds a int, not a text)" in lines
    (line,) = (line for line in lines if "2 of 8 labels of " in line and "x: " in line)
    assert {"rgb", "canny_edge", "color_palette"} <= set(line.partition(" fail")[0].replace(",", "").split())


def test_all_labels_that_fail_are_not_null(photos, plan, tmp_path):
    corpus = write(tmp_path / "corpus", photos["coffee"], **{f"{n}": {"caption": n} for n in range(6)})
    said = plan(corpus)
    assert "6 of 6 labels of caption fail" in said
    assert "is null" not in said


def test_null_labels_are_told_beside_those_that_fail(photos, plan, tmp_path):
    texts = {f"{n}": {"caption": 1} if n < 2 else {"other": "x"} for n in range(6)}
    said = plan(write(tmp_path / "corpus", photos["coffee"], **texts))
    assert "2 of 6 labels of caption fail" in said
    assert "the other 4 labels of caption are null; the fields of these samples are: caption, other" in said


def test_what_lies_beside_the_images_is_told(photos, plan, tmp_path):
    corpus = write(tmp_path / "corpus", photos["coffee"], **{f"{n:02d}": None for n in range(12)})
    for n in range(12):
        for ending in ("CR2", "THM"):
            (corpus / f"{n:02d}.{ending}").write_bytes(bytes(range(256)))
    assert "24 files beside images that are no texts left out: 00.CR2, 00.THM" in plan(corpus)


def test_a_trial_without_a_fault_says_no_more_than_its_figures(photos, plan, tmp_path):
    corpus = write(tmp_path / "corpus", photos["coffee"], **{f"{n}": {"caption": "a cup"} for n in range(3)})
    said = plan(corpus)
    assert "tried on 3 samples here" in said
    assert "samples tried" not in said
    assert len(said.strip().splitlines()) == 2


# --- where nothing can be used ----------------------------------------------------------------------------------------


def lists(folder: Path, photo: bytes) -> None:
    write(folder, photo, **{f"a{n}": ["x"] for n in range(3)})


def latin(folder: Path, photo: bytes) -> None:
    write(folder, photo, a0=None, a1=None, a2=None)
    for n in range(3):
        (folder / f"a{n}.txt").write_bytes(b" " * n + "für".encode("latin-1"))


def paths(folder: Path, photo: bytes) -> None:
    folder.mkdir()
    images = pa.array(
        [{"bytes": None, "path": "x.jpg"}] * 3, pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    (folder / "a.parquet").write_bytes(parquet_bytes({"key": ["a0", "a1", "a2"], "image": images}))


def broken(folder: Path, photo: bytes) -> None:
    folder.mkdir()
    (folder / "a.tar").write_bytes(b"<html>" * 400)
    (folder / "b.tar").write_bytes(b"")


REASONS = {
    lists: r"3 of 3 refused \(InvalidJSON\), the first a0: the JSON beside the image can't be used: it holds a list",
    latin: r"3 of 3 refused \(NotText\), the first a0: the caption beside the image is no UTF-8",
    paths: r"3 of 3 refused \(NoImage\), the first a0: ",
    broken: r"2 parts of the corpus can't be read, the first: a.tar is broken at byte 0: this is no tar",
}


@pytest.mark.parametrize("make", REASONS)
def test_where_every_sample_is_refused_plan_and_run_say_why(photos, plan, tmp_path, make):
    corpus = tmp_path / "corpus"
    make(corpus, photos["coffee"])
    reason = REASONS[make]
    assert re.search(reason, plan(corpus))
    modalities = {"rgb": {"tokenizer": {"name": "patch_codebook", "params": {"size": 4}}}, "caption": {}}
    with pytest.raises(EngineError, match=reason) as error:
        weave(recipe(corpus, tmp_path / "out", modalities, **SMALL))
    assert "fit.units" not in str(error.value)
    assert str(corpus) in str(error.value) or " in a." in str(error.value)


def test_no_name_of_a_file_steers_a_terminal(photos, tmp_path, monkeypatch, capsys):
    members = [("a\x1b[31m.jpg", photos["coffee"]), ("a\x1b[31m.json", b"[]")]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    words = ["tokenloom", "run", "quickstart", "--corpus", str(tmp_path / "a.tar"), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    with without_ray(), pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert "the first a\\x1b[31m: the JSON" in capsys.readouterr().err


def test_where_there_is_more_to_read_the_error_says_how(photos, tmp_path):
    corpus = tmp_path / "corpus"
    lists(corpus, photos["coffee"])
    modalities = {"rgb": {"tokenizer": {"name": "patch_codebook", "params": {"size": 4}}}}
    made = recipe(corpus, tmp_path / "out", modalities, views={"size": 32}, units={"samples": 1}, fit={"units": 2})
    with pytest.raises(EngineError, match=r"2 of 2 refused .*a list, not an object.*more .*`fit.units`"):
        weave(made)
