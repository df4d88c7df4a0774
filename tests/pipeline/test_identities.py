"""Identities: by what labelers and weights are known, wherever they lie."""

from __future__ import annotations

import pytest
from in_process import weave
from tokenloom.labelers.contract.labeler import Labeler
from tokenloom.labelers.plugins.registry import LABELER_GROUP, identity_of
from tokenloom.pipeline.plan.weights import told
from weaving import card_of, odd, recipe

pytestmark = pytest.mark.slow
MORE = {"units": {"samples": 3}, "views": {"size": 32}}


def test_weights_in_a_folder_are_told_by_a_path_that_is_the_same_from_everywhere(tmp_path, monkeypatch):
    (tmp_path / "w").write_bytes(b"!")
    monkeypatch.chdir(tmp_path)
    assert told("./w") == told("w") == str(tmp_path / "w")
    for source in ("tiny", "package:nsfw/model.onnx", "hub/model"):
        assert told(source) == source
    assert told("s3://key:secret@bucket/w") == "s3://bucket/w"


def test_a_labeler_is_known_by_its_name(corpus, tmp_path):
    """Not by the module that it lies in, nor by which of its modalities was asked for."""
    for name in ("dinov2", "dinov2_global"):
        assert identity_of(LABELER_GROUP, name, Labeler) == "dinov2"
    by_class = {"labeler": "tokenloom.labelers.canny_edge:CannyEdge", "keep": "labels"}
    weave(recipe(corpus, tmp_path / "out", {"canny_edge": by_class}, **MORE))
    assert card_of(tmp_path / "out", "canny_edge").labeler == "canny_edge"
    assert weave(recipe(corpus, tmp_path / "out", {"canny_edge": {"keep": "labels"}}, **MORE)).units == 0
    weave(recipe(corpus, tmp_path / "out", {"mean_colour": odd("MeanColour")}, **MORE))
    assert card_of(tmp_path / "out", "mean_colour").labeler == "odd_labelers:MeanColour"


def test_names_of_modalities_that_the_layout_needs_are_refused(corpus, tmp_path):
    from tokenloom.pipeline.plan.recipe import RecipeError

    for name in ("manifests", "vocabularies", "tokenizers"):
        with pytest.raises(RecipeError, match="can't be a modality's name"):
            recipe(corpus, tmp_path / "out", {name: {}})
