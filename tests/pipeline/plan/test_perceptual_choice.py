"""A perceptual loss in a recipe: whose weights it takes, how they are told apart, what is refused before any work."""

from __future__ import annotations

import io
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from rich.console import Console
from small_fits import fit_job, pictures
from tokenloom.labelers.dinov2 import Dinov2
from tokenloom.pipeline.commands.run import _print_licences
from tokenloom.pipeline.dataset.cards import ModalityCard
from tokenloom.pipeline.fitting.job import FitError
from tokenloom.pipeline.plan.plan import make_plan
from tokenloom.pipeline.plan.recipe import RecipeError
from tokenloom.pipeline.plan.steps import step_graph
from tokenloom.pipeline.plan.tokenizer_choice import perceptual_source
from tokenloom.pipeline.plan.weights import WeightsError, WeightsSource, hash_files, localise
from tokenloom.pipeline.storage.store import Store
from weaving import recipe


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return Dinov2.write_tiny(tmp_path_factory.mktemp("dinov2"))


def chosen(weights: Path | str, params: dict[str, Any] | None = None, **perceptual: Any) -> dict[str, Any]:
    """A modality's settings."""
    fit = {"steps": 8, "perceptual": {"weights": str(weights), **perceptual}}
    return {"tokenizer": {"params": params or {}, "fit": fit}}


def card(settings: dict[str, Any], modality: str = "rgb", **more: Any) -> ModalityCard:
    return step_graph(recipe("photos", "out", {modality: settings}, **more)).cards[modality]


def test_the_card_tells_the_weights_by_their_content(weights, tmp_path):
    here = card(chosen(weights))
    assert here.tokens is not None
    assert here.tokens.fit is not None
    assert here.tokens.fit["perceptual"] == {"weights": str(weights), "weight": 1.0, "sha256": hash_files(weights)}
    moved = Path(shutil.copytree(weights, tmp_path / "moved"))
    assert card(chosen(moved)).asked == here.asked
    (moved / "preprocessor_config.json").unlink()
    others = [
        chosen(moved),
        chosen(weights, weight=2.0),
        chosen(weights, blocks=[1]),
        {"tokenizer": {"fit": {"steps": 8}}},
    ]
    asked = {card(one).asked for one in (chosen(weights), *others)}
    assert len(asked) == 5


def test_without_such_a_loss_cards_are_as_they_were():
    tokens = card({"tokenizer": {"fit": {}}}).tokens
    assert tokens is not None
    assert "perceptual" not in (tokens.fit or {})


def test_weights_at_a_url_are_fetched_and_credentials_are_not_written_down(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path))
    url = "memory://someone:secret@bucket/dinov2"
    memory, place = fsspec.url_to_fs(url)
    memory.put(str(weights), place, recursive=True)
    one = recipe("photos", "memory://bucket/out", {"rgb": chosen(url)}, storage_options={"anon": False})
    tokens = step_graph(one).cards["rgb"].tokens
    assert tokens is not None
    assert tokens.fit is not None
    assert tokens.fit["perceptual"]["weights"] == "memory://bucket/dinov2"
    assert tokens.fit["perceptual"]["sha256"] == hash_files(weights)
    source = perceptual_source(one, "rgb")
    assert source is not None
    assert source == WeightsSource(url, {"anon": False})
    assert "secret" not in repr(source)
    shutil.rmtree(tmp_path / "weights")  # as on another machine
    assert hash_files(Path(source.fetch(hash_files(weights)))) == hash_files(weights)


def test_a_recipe_of_tiny_weights_takes_a_tiny_transformer():
    tokens = card(chosen("facebook/dinov2-base"), weights="tiny").tokens
    assert tokens is not None
    assert tokens.fit is not None
    found = tokens.fit["perceptual"]
    assert (found["weights"], found["sha256"]) == (
        "tiny", hash_files(Path(localise("tiny", labeler_class=Dinov2)))
    )  # fmt: skip


@pytest.mark.parametrize(
    ("modality", "params", "perceptual", "message"),
    [
        ("canny_edge", {}, {}, r"modalities\.canny_edge\.tokenizer\.fit\.perceptual: .*intensity in 1 channels"),
        ("rgb", {"decoder": "unet_xt"}, {}, r"modalities\.rgb\.tokenizer\.fit\.perceptual: the decoder unet_xt"),
        ("rgb", {}, {"blocks": [0, 2]}, r"modalities\.rgb\.tokenizer\.fit\.perceptual: blocks: .*it has 0 to 1"),
        ("rgb", {}, {"sha256": "0" * 64}, r"modalities\.rgb\.tokenizer\.fit\.perceptual: .*not 0000"),
        ("rgb", {}, {"block": [0]}, r"perceptual\.block: unknown key; did you mean 'blocks'"),
    ],
)
def test_what_cannot_be_is_named_before_any_work(weights, modality, params, perceptual, message):
    with pytest.raises(RecipeError, match=message):
        card(chosen(weights, params, **perceptual), modality)


def test_other_weights_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(RecipeError, match=r"fit\.perceptual: .*of 'bert'"):
        card(chosen(tmp_path))
    with pytest.raises(RecipeError, match=r"metaclip-b16.*CC-BY-NC-4\.0.*accept_license: CC-BY-NC-4\.0"):
        card(chosen("facebook/metaclip-b16"))
    with pytest.raises(RecipeError, match=r"fit\.perceptual\.weights: .*no such file"):
        card(chosen(tmp_path / "nowhere"))


def test_a_run_says_under_which_licence_the_weights_are(corpus_tar, weights, tmp_path):
    folder = shutil.copytree(weights, tmp_path / "dinov2-tiny")
    plan = make_plan(recipe(corpus_tar, tmp_path / "out", {"rgb": chosen(folder)}))
    console = Console(file=io.StringIO(), width=200, record=True)
    _print_licences(console, plan)
    assert re.search(r"dinov2-tiny +Apache-2\.0 +rgb", console.export_text())


def test_a_machine_that_holds_other_weights_is_refused(weights):
    source = WeightsSource(str(weights))
    assert source.fetch(None) == source.fetch(hash_files(weights)) == str(weights)
    with pytest.raises(WeightsError, match="was 1234 when they were chosen"):
        source.fetch("1234")


def test_a_job_has_the_weights_in_its_digest_and_its_fit(weights, tmp_path):
    def job(place: Path, sha256: str | None = hash_files(weights)):
        return fit_job(Store(tmp_path), perceptual={"weights": str(place), "sha256": sha256})

    digests = [one.digest(1, "labels") for one in (job(weights), job(weights, "other"), fit_job(Store(tmp_path)))]
    assert len(set(digests)) == 3
    moved = replace(job(Path("elsewhere")), perceptual=WeightsSource(str(weights)))
    assert moved.digest(1, "labels") == digests[0]
    assert moved.perceptual_weights() == str(weights)
    with pytest.raises(WeightsError, match="was other when"):
        job(weights, "other").perceptual_weights()
    tokenizer = job(weights).new_tokenizer()
    tokenizer.fit(pictures(8), 0)
    assert tokenizer.facts["perceptual_loss"] > 0
    assert tokenizer.facts["settings"]["perceptual"]["sha256"] == hash_files(weights)
    with pytest.raises(FitError, match="vq: perceptual: the decoder unet_xt"):
        replace(job(weights), params={"decoder": "unet_xt"}).new_tokenizer()
