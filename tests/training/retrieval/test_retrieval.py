"""The samples of a dataset that are nearest to what is given."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from galleries import read_data
from hypothesis import given
from hypothesis import strategies as st
from in_process import weave
from tokenloom.pipeline.corpus.units import Unit
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.training.retrieval.nearest import Nearest, distances
from tokenloom.training.retrieval.query import refuse_other_space
from tokenloom.training.retrieval.vectors import Rows
from training_recipes import run_command
from weaving import odd, recipe


@given(
    numbers=st.lists(
        st.lists(st.lists(st.integers(-2, 2) | st.none(), min_size=2, max_size=2), max_size=6), max_size=5
    ),
    query=st.tuples(st.integers(-2, 2), st.integers(-2, 2)),
    count=st.integers(1, 8),
)
def test_the_nearest_are_those_of_all_at_once(numbers, query, count):
    """numbers: of each unit its samples, of each sample two views of one number, which stands for a vector."""
    nearest = Nearest(np.array(query, np.float32), count)
    expected = []
    for place, samples in enumerate(numbers):
        rows = [(s, v, [n, -n]) for s, views in enumerate(samples) for v, n in enumerate(views) if n is not None]
        unit, keys = Unit(f"u{place}", 0, len(samples), len(samples)), [f"{place}/{s}" for s in range(len(samples))]
        for sample, own in groupby(rows, key=lambda row: row[0]):
            far, view = min((float(np.hypot(*np.subtract(vector, query))), v) for _, v, vector in own)
            expected.append((far, len(expected), keys[sample], view))
        if rows:
            sample, view, vectors = zip(*rows, strict=True)
            nearest.add(Rows(unit, keys, np.array(sample), np.array(view), np.array(vectors, np.float32)))
    told = [(one.distance, one.key, one.view) for one in nearest.matches]
    assert told == [(pytest.approx(far), key, view) for far, _, key, view in sorted(expected)[:count]]


def test_small_distances_are_exact():
    far = np.full((2, 768), 1000.0, np.float32)
    far[1, 0] = np.nextafter(np.float32(1000), np.float32(2000))
    assert distances(far, far[0]).tolist() == [0.0, float(far[1, 0]) - 1000.0]


@pytest.fixture(scope="module")
def labelled(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another dataset of the same pictures, of another recipe: three views, labels kept, one of which failed."""
    output = tmp_path_factory.mktemp("labelled") / "kept"
    modalities = {"mean_colour": odd("MeanColour", keep="both"), "caption": {"labeler": "caption"}}
    weave(recipe(pictures / "corpus", output, modalities, views={"size": 32, "count": 3, "min_scale": 0.5}))
    return output


def retrieved(capsys, pictures: Path, dataset: Path, *words: str) -> dict:
    assert run_command("retrieve", str(pictures / "run"), str(dataset), "--json", *words) == 0
    return json.loads(capsys.readouterr().out)


def test_a_sample_finds_itself(pictures, labelled, tmp_path, capsys):
    label = open_dataset(labelled).get("3", 1, ["mean_colour"], labels=True).values["mean_colour"]
    np.save(tmp_path / "colour.npy", label)
    for dataset, origin, place in (
        (pictures / "dataset", "tokens", f"{pictures}/dataset#3"),
        (labelled, "labels", tmp_path / "colour.npy"),
    ):
        words = ["--from", f"mean_colour={place}", "--by", "mean_colour", "--limit", "6"]
        told = retrieved(capsys, pictures, dataset, *words)
        assert (told["vectors"], told["predicted"], told["samples"]) == (origin, False, 6)
        far = {one["key"]: one["distance"] for one in told["matches"]}
        assert len(far) == 6
        assert list(far.values()) == sorted(far.values())
        assert far["3"] == 0
    assert (told["matches"][0]["key"], told["matches"][0]["view"]) == ("3", 1)
    assert told["matches"][1]["distance"] > 0


@pytest.mark.parametrize("words", [["caption=a red ball"], ["{}/corpus/2.png", 'color_palette={{"1": [[1, 2, 3]]}}']])
def test_what_a_model_predicts_of_other_modalities_is_searched_for(pictures, labelled, capsys, words):
    given = [word for one in words for word in ("--from", one.format(pictures))]
    told = retrieved(capsys, pictures, labelled, *given, "--by", "mean_colour", "--limit", "3", "--seed", "4")
    assert (told["predicted"], len(told["matches"])) == (True, 3)
    assert told == retrieved(capsys, pictures, labelled, *given, "--by", "mean_colour", "--limit", "3", "--seed", "4")
    dataset = open_dataset(labelled)
    vectors = {(row.key, row.view): row.values["mean_colour"] for row in dataset.iterate(["mean_colour"], labels=True)}
    for one in told["matches"]:
        assert (one["key"], one["view"]) in vectors


def test_the_page_shows_what_was_given_and_what_was_found(pictures, labelled, tmp_path, capsys):
    page = tmp_path / "page"
    words = ["--from", f"{pictures}/corpus/2.png", "--from", "caption=<b>a ball</b>", "--by", "mean_colour"]
    assert run_command("retrieve", str(pictures / "run"), str(labelled), *words, "--output", str(page)) == 0
    printed = capsys.readouterr().out
    assert "by mean_colour, predicted, among 6 samples' labels" in printed
    assert f"page  {page}/index.html" in printed
    function, (told,) = read_data(page / "data/retrieved.js")
    assert function == "retrieved"
    assert [one["modality"] for one in told["given"]] == ["pixels", "caption"]
    assert told["given"][1]["text"] == "<b>a ball</b>"
    assert {one["origin"] for one in told["matches"]} == {"corpus"}
    for one in (told["given"][0]["picture"], *(match["image"] for match in told["matches"])):
        assert (page / one).is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--from", "caption=a ball", "--by", "caption"], "--by caption: it is no vector but text"),
        (["--from", "caption=a ball", "--by", "depth"], "has no modality 'depth'"),
        (["--from", "nowhere.png", "--by", "mean_colour"], "nowhere.png: no such file"),
        (["--from", "det=a ball", "--by", "mean_colour"], "a label of it is a file that ends in .json"),
    ],
)
def test_what_cannot_be_is_refused(pictures, labelled, capsys, words, told):
    assert run_command("retrieve", str(pictures / "run"), str(labelled), *words) == 2
    said = capsys.readouterr().err
    assert told in said
    assert '  File "' not in said


def test_a_dataset_without_the_modality_is_refused(pictures, tmp_path, capsys):
    weave(recipe(pictures / "corpus", tmp_path / "without", {"caption": {"labeler": "caption"}}))
    words = ["--from", "caption=a ball", "--by", "mean_colour"]
    assert run_command("retrieve", str(pictures / "run"), str(tmp_path / "without"), *words) == 2
    assert "has no modality mean_colour; it has caption" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change", [{"labeler": "odd_labelers:Other"}, {"params": {"side": 3}}, {"version": 7}], ids=str
)
def test_vectors_of_another_space_are_refused(forms, change):
    form = forms.target("mean_colour")
    refuse_other_space(form, form.card, "here")
    with pytest.raises(DatasetError, match="here: mean_colour is of another space than the model's"):
        refuse_other_space(form, replace(form.card, **change), "here")
