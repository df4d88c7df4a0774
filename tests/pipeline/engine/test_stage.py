"""A stage at work, in this process: what bad samples and bad labelers cost, and what reaches the shards."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
from PIL import Image
from tokenloom.pipeline.cluster.session import EngineError
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.plan.recipe import RecipeError
from weaving import failures_of, labels_of, missing, odd, recipe, shards_of, weave_here

KEYS = ["astronaut", "chelsea", "china", "coffee", "flower", "rocket"]


@pytest.mark.parametrize("units", [2, 6])
def test_labels_are_stored_in_the_corpus_order(corpus_folder, tmp_path, units):
    weave_here(recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("MeanColour")}, units={"samples": units}))
    labels = labels_of(tmp_path / "out", "mean_colour")
    assert [key for key, _ in labels] == KEYS
    flower = np.load(io.BytesIO(labels["flower", 0] or b""))
    assert flower[0] > flower[1]  # a pink dahlia


def test_a_sample_that_raises_costs_itself_alone(corpus_folder, tmp_path):
    weave_here(recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("Raises")}))
    assert missing(tmp_path / "out", "mean_colour") == {"coffee"}
    (failure,) = failures_of(tmp_path / "out", "mean_colour")
    assert (failure.key, failure.error, failure.reason) == (
        "coffee",
        "ZeroDivisionError",
        "coffee is not good for me",
    )


def test_wrong_labels_are_quarantined_and_an_absent_one_is_not(corpus_folder, tmp_path):
    weave_here(recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("GivesNaN")}))
    assert missing(tmp_path / "out", "mean_colour") == {"coffee", "rocket", "china", "flower"}
    reasons = {failure.key: failure.reason for failure in failures_of(tmp_path / "out", "mean_colour")}
    assert set(reasons) == {"coffee", "rocket", "china"}
    assert "NaN" in reasons["coffee"]
    assert "(4,)" in reasons["rocket"]
    assert "int64" in reasons["china"]


def test_a_labeler_that_forgets_a_label_is_named(corpus_folder, tmp_path):
    weave_here(recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("ForgetsOne")}))
    assert missing(tmp_path / "out", "mean_colour") == set(KEYS)
    assert "ForgetsOne.label returned 0 mean_colour labels" in failures_of(tmp_path / "out", "mean_colour")[0].reason


def test_what_needs_a_failed_label_fails_with_its_reason(corpus_folder, tmp_path):
    modalities = {"mean_colour": odd("Raises"), "doubled": odd("Doubled")}
    weave_here(recipe(corpus_folder, tmp_path / "out", modalities))
    assert missing(tmp_path / "out", "doubled") == {"coffee"}
    (failure,) = failures_of(tmp_path / "out", "doubled")
    assert failure.reason == "needs mean_colour, which failed: coffee is not good for me"


def test_a_broken_image_costs_what_looks_at_it_and_keeps_its_caption(corpus_folder, tmp_path):
    (corpus_folder / "coffee.jpg").write_bytes((corpus_folder / "coffee.jpg").read_bytes()[:5000])
    (corpus_folder / "rocket.jpg").write_bytes(b"")
    modalities = {"caption": {"keep": "labels"}, "mean_colour": odd("MeanColour")}
    weave_here(recipe(corpus_folder, tmp_path / "out", modalities))
    assert missing(tmp_path / "out", "caption") == set()
    assert missing(tmp_path / "out", "mean_colour") == {"coffee", "rocket"}
    reasons = {failure.key: failure.reason for failure in failures_of(tmp_path / "out", "mean_colour")}
    assert "truncated" in reasons["coffee"]


@pytest.mark.parametrize("views", [1, 3])
def test_the_bytes_do_not_depend_on_how_steps_are_grouped(corpus_folder, tmp_path, views):
    """One fused stage, a stage per step, and one modality after another end in the same objects."""
    (corpus_folder / "coffee.jpg").write_bytes(b"not an image")
    modalities = {
        "mean_colour": odd("GivesNaN"),
        "doubled": odd("Doubled"),
        "canny_edge": {"keep": "labels"},
        "metadata": {"keep": "labels"},
    }
    more = {"views": {"count": views, "size": 64}, "units": {"samples": 4}}
    weave_here(recipe(corpus_folder, tmp_path / "fused", modalities, **more))
    weave_here(recipe(corpus_folder, tmp_path / "split", modalities, **more), split=True)
    for count in range(1, len(modalities) + 1):
        weave_here(recipe(corpus_folder, tmp_path / "later", dict(list(modalities.items())[:count]), **more))
    fused = shards_of(tmp_path / "fused")
    assert len(fused) == 4 * 2 + 6  # shards, ledgers
    assert shards_of(tmp_path / "split") == fused
    assert shards_of(tmp_path / "later") == fused
    assert len(labels_of(tmp_path / "fused", "canny_edge")) == 6 * views


def test_an_added_modality_reads_kept_labels_instead_of_images(corpus_folder, tmp_path):
    weave_here(recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("MeanColour")}))
    both = recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("MeanColour"), "doubled": odd("Doubled")})
    (payload,) = weave_here(both)
    assert payload.decodes == 0
    assert list(payload.done) == ["doubled"]


def test_a_lost_ledger_of_kept_labels_is_no_missing_label(corpus_folder, tmp_path):
    """Without it nobody knows that a label failed, and what hangs on it would be null for ever."""
    weave_here(recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("Raises")}))
    shutil.rmtree(tmp_path / "out" / "quarantine")
    both = recipe(corpus_folder, tmp_path / "out", {"mean_colour": odd("Raises"), "doubled": odd("Doubled")})
    with pytest.raises(DatasetError, match=r"quarantine/mean_colour/.*\.jsonl: it is missing"):
        weave_here(both)


def test_eight_light_labelers_cost_one_decode(corpus_folder, tmp_path):
    modalities = {"rgb": {"keep": "labels"}, "canny_edge": {"keep": "labels"}, "metadata": {"keep": "labels"}}
    (payload,) = weave_here(recipe(corpus_folder, tmp_path / "out", {**modalities, "mean_colour": odd("MeanColour")}))
    assert payload.decodes == len(KEYS)


def test_views_are_crops_of_the_sample(corpus_folder, tmp_path):
    settings = {"views": {"count": 2, "size": 32}}
    weave_here(recipe(corpus_folder, tmp_path / "out", {"rgb": {"keep": "labels"}}, **settings))
    labels = labels_of(tmp_path / "out", "rgb")
    first, second = (np.asarray(Image.open(io.BytesIO(labels["china", view] or b""))) for view in (0, 1))
    assert first.shape == second.shape == (32, 32, 3)
    assert np.abs(first.astype(int) - second).mean() > 1


@pytest.mark.parametrize("made", [True, False])
def test_a_labeler_that_raises_while_it_is_made_or_loaded_is_named(corpus_folder, tmp_path, made):
    broken = odd("RaisesLoading", params={"made": made})
    with pytest.raises((RecipeError, EngineError)) as raised:
        weave_here(recipe(corpus_folder, tmp_path / "out", {"mean_colour": broken, "caption": {"keep": "labels"}}))
    assert str(raised.value) == (
        "recipe: modalities.mean_colour: the labeler odd_labelers:RaisesLoading can't be made: OSError: no libfoo"
        if made
        else "mean_colour: the labeler odd_labelers:RaisesLoading can't be loaded: RuntimeError: no libfoo"
    )
