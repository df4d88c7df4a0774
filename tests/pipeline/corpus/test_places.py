"""One place that is named in several ways: through `..`, through links, with slashes too many."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from corpus_files import contents, corpus_of
from in_process import weave
from tokenloom.pipeline.corpus.corpus import CorpusSettings
from tokenloom.pipeline.dataset.manifest import require_manifest
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import RecipeError
from tokenloom.pipeline.storage.store import Store, absolute_url
from weaving import odd, recipe, shards_of, write_manifest

COLOUR = {"mean_colour": odd("MeanColour")}


@pytest.fixture
def place(tmp_path: Path, monkeypatch, photos) -> Path:
    """The working directory `here`, the corpus `st` beside it and a link to that; in the corpus a link to `far`."""
    for folder in ("here", "st/deep", "far/deep"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("st/a", "st/deep/b", "far/deep/c"):
        (tmp_path / f"{name}.png").write_bytes(photos["coffee"])
    (tmp_path / "st_link").symlink_to(tmp_path / "st")
    (tmp_path / "deep_link").symlink_to(tmp_path / "st/deep")
    (tmp_path / "st/more").symlink_to(tmp_path / "far")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize(
    ("corpus", "output", "inside"),
    [
        ("../st", "../st/out", True),
        ("../st", "{}/st/out", True),
        ("{}/st", "../here/../st/out", True),
        ("../st", "../st/../out", False),
        ("../st/deep/..", "../out", False),
        ("../st/deep/..", "../st/out", True),
        ("../st", "../st_link/out", True),
        ("../st_link", "../st/out", True),
        ("../st_link/*", "../st/deep/out", True),
        ("../st_link/*.png", "../st/out", False),
        ("../st", "../far/out", True),
        ("../st", "../far/deep/out", True),
        ("../st/deep", "../far/out", False),
        ("../deep_link/..", "../st/out", True),  # the folder above that to which the link leads
        ("../deep_link/..", "../out", False),
        ("../st", "../st_link_/out", False),
        ("/{}/st", "{}//st/out", True),
    ],
)
def test_an_output_inside_the_corpus_is_found_by_whatever_name(place, corpus, output, inside):
    made = recipe(corpus.format(place), output.format(place), COLOUR)
    if inside:
        with pytest.raises(RecipeError, match=r"output: .*lies in the corpus.*--output"):
            make_plan(made)
    else:
        make_plan(made)


def test_a_corpus_beside_the_working_directory_is_the_corpus(place):
    """By whatever name it is given, its keys, its ids and its root are the same."""
    plain = corpus_of(str(place / "st"))
    for url in ("../st", "../here/.././st/", "../deep_link/..", f"/{place}/st", f"file://{place}/here/../st"):
        one = corpus_of(url)
        assert (one.find(), one.shards()) == (plain.find(), plain.shards())
    assert set(contents(plain)[0]) == {"a", "deep/b", "more/deep/c"}


def test_a_list_that_names_a_place_twice_takes_it_once(place):
    urls = ["../st/a.png", f"{place}/st", "../here/../st/deep", "../st/deep/../a.png"]
    assert set(contents(corpus_of(urls))[0]) == {"a", "deep/b", "more/deep/c"}
    assert corpus_of(urls).find().root == str(place / "st")


def test_a_link_keeps_its_name(place):
    assert corpus_of("../st_link").find().root == str(place / "st_link")
    assert absolute_url("../st_link/x") == str(place / "st_link/x")


def test_a_dataset_whose_root_was_written_with_dots_goes_on(place):
    """As versions before this one wrote it."""
    made = recipe(place / "st/deep", place / "out", COLOUR)
    weave(made)
    store, before = Store(place / "out"), shards_of(place / "out")
    manifest = require_manifest(store)
    dotted = replace(manifest.corpus, root=f"{place}/here/../st/deep")
    write_manifest(store, replace(manifest, corpus=dotted))
    assert weave(made).units == 0
    urls = {"url": [str(place / "far"), "../st/deep"]}
    tally = weave(made.model_copy(update={"corpus": CorpusSettings.model_validate(urls)}))
    assert tally.samples == 1
    assert before.items() <= shards_of(place / "out").items()


def test_protocols_of_one_name_are_one_place():
    assert absolute_url("s3a://bucket/a/") == absolute_url("s3://bucket/a") == "s3://bucket/a"
    assert absolute_url("gcs://bucket/a") == "gs://bucket/a"
