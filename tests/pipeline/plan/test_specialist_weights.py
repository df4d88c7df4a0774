"""Weights of the specialists: tiny ones, from a disk and from S3, and licences that must be accepted first."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest
from tokenloom.labelers.contract.licences import NONE
from tokenloom.labelers.plugins.registry import describe_labelers, find_labeler
from tokenloom.pipeline.plan.recipe import RecipeError
from tokenloom.pipeline.plan.steps import step_graph
from tokenloom.pipeline.plan.weights import hash_files, localise, resolve
from weaving import odd, recipe

pytestmark = pytest.mark.slow

WITH_WEIGHTS = [
    row.reference
    for row in describe_labelers()
    if row.weights_licence and not (row.weights or "").startswith("package:")
]
LARGEST = 25e6
"""Bytes that tiny weights may have."""


def graph_of(modalities, **more):
    return step_graph(recipe("photos", "out", modalities, **more))


def fetched_from(url: str, local: Path) -> str:
    """Puts weights there, and gives the path at which they are fetched to."""
    filesystem, _ = fsspec.url_to_fs(url)
    for path in files_of(local):
        filesystem.put(str(path), f"{url}/{path.relative_to(local).as_posix()}" if local.is_dir() else url)
    fetched = resolve(url)
    assert fetched.sha256 == hash_files(local)
    return fetched.path


def files_of(weights: Path) -> list[Path]:
    return [weights] if weights.is_file() else [path for path in weights.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_tiny_weights_are_reproducible_and_small_and_load_from_a_store(name, tmp_path):
    labeler_class = find_labeler(name)
    local = Path(localise("tiny", labeler_class=labeler_class))
    assert hash_files(labeler_class.write_tiny(tmp_path)) == hash_files(local)
    assert sum(path.stat().st_size for path in files_of(local)) < LARGEST
    labeler = labeler_class(weights=fetched_from(f"memory://{uuid.uuid4()}/{local.name}", local))
    labeler.load("cpu")
    assert [m.kind for m in labeler.makes] == [m.kind for m in labeler_class(weights=str(local)).makes]


@pytest.mark.s3
def test_weights_load_from_s3(s3_url):
    """A folder of several files, and one file."""
    for name in ("dinov2", "imagebind"):
        labeler_class = find_labeler(name)
        local = Path(localise("tiny", labeler_class=labeler_class))
        assert local.is_dir() == (name == "dinov2")
        labeler_class(weights=fetched_from(f"{s3_url}/{local.name}", local)).load("cpu")


def test_noncommercial_weights_need_the_recipes_word_before_they_are_fetched():
    with pytest.raises(RecipeError, match=r"modalities\.imagebind: .*CC-BY-NC-SA-4\.0.*accept_license: CC-BY-NC-SA"):
        graph_of({"imagebind": {}})
    with pytest.raises(RecipeError, match=r"imagebind_huge\.pth: can't be fetched"):
        graph_of({"imagebind": {}}, accept_license="CC-BY-NC-SA-4.0")


def test_all_weights_that_need_a_word_are_named_at_once():
    modalities = {"imagebind": {}, "imagebind_global": {}, "depth": {"weights": "apple/DepthPro-hf"}, "human_poses": {}}
    with pytest.raises(RecipeError) as caught:
        graph_of(modalities, accept_license=["MIT"])
    named = [line.split(": ")[1] for line in str(caught.value).splitlines()]
    assert sorted(named) == ["modalities.depth", "modalities.human_poses", "modalities.imagebind"]


def test_weights_without_a_default_say_where_to_get_them():
    with pytest.raises(RecipeError, match=r"human_poses has no default weights; get them from https://github\.com"):
        graph_of({"human_poses": {}, "det": {"weights": "tiny"}})


def test_tiny_weights_need_no_licence_and_say_what_they_are():
    cards = graph_of({"imagebind": {}, "dinov2": {"weights": "facebook/dinov2-large"}, "ocr": {}}, weights="tiny").cards
    for name in ("imagebind", "dinov2"):
        weights = cards[name].weights
        assert weights is not None
        assert (weights.source, weights.licence, weights.random) == ("tiny", NONE, True)
    assert cards["ocr"].weights is not None
    assert not cards["ocr"].weights.random


def test_a_labeler_without_tiny_weights_says_so():
    with pytest.raises(RecipeError, match="Weighty has no tiny weights"):
        graph_of({"weighty": odd("Weighty")}, weights="tiny")
