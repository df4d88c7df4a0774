"""What is measured of a model: the losses by an independent sum, the bounds by hand, and through the command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import weave
from PIL import Image
from small_trainings import small_recipe, trained_here
from tokenloom.labelers.contract.kinds import Vector
from tokenloom.pipeline.dataset.manifest import DatasetError
from tokenloom.pipeline.views.view_pixels import Seen
from tokenloom.tokenizers.codebooks.codebook import ProductCodebook
from tokenloom.training.evaluation.from_rgb import LikenessSum
from tokenloom.training.evaluation.losses import cross_entropy, entropy, ratio, told
from tokenloom.training.evaluation.masked import Masker
from tokenloom.training.evaluation.names import renamed
from tokenloom.training.evaluation.opened import open_both
from tokenloom.training.evaluation.truth import Sample
from tokenloom.training.fit.open_model import open_network
from tokenloom.training.model.checkpoint import write_model
from tokenloom.training.model.tokens import Sides
from training_recipes import noise, run_command, two_datasets
from weaving import odd, recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With two datasets, and `run`, the output of a short training on them."""
    folder = tmp_path_factory.mktemp("evaluations")
    two_datasets(folder)
    trained_here(small_recipe(folder, steps=2))
    return folder


def test_bounds_of_unigrams():
    assert entropy(np.array([2, 2, 0])) == pytest.approx(math.log(2))
    assert cross_entropy(np.array([1, 3]), np.array([0, 1])) == pytest.approx(
        -(math.log(1 / 4) + 3 * math.log(3 / 4)) / 4
    )
    assert ratio(np.array([2.0]), np.array([4.0])) == (0.5, None)
    mean, error = ratio(np.array([1.0, 3.0, 5.0]), np.array([2.0, 2.0, 2.0]))
    assert (mean, error) == (1.5, pytest.approx(np.std([0.5, 1.5, 2.5], ddof=1) / math.sqrt(3)))


def test_losses_are_the_models_own_and_targets_are_the_same_without_the_others(folder):
    opened = open_both(str(folder / "run"), str(folder / "two"))
    (positions,) = opened.chunks(6, 8)
    masker = Masker(opened, 12)
    for one in masker.masked(positions, opened.targets):
        place = opened.config.names.index(one.name)
        assert set(one.alone.modality[one.alone.used].tolist()) <= {place}
        assert len(set(one.given.modality[one.given.used].tolist())) > 1
        for inputs in (one.alone, one.given):
            own = inputs.used & (inputs.modality == place)
            assert own.sum() == one.alone.used.sum()
            found = told(opened.model, inputs, one.sides, one.name)
            with torch.inference_mode():
                sums = opened.model(Sides(inputs, one.sides.targets, one.sides.labels, one.sides.arrays))
            assert found.nats.sum() == pytest.approx(float(sums.sum()), rel=1e-4)
            assert found.tokens.sum() == len(one.labels.ids)
        for row in range(len(positions)):  # nothing of what is to be said of an image is seen
            if opened.config.modalities[place].form == "grid":
                seen = one.alone.position[row][one.alone.used[row]].tolist()
                said = one.sides.targets.position[row][one.sides.targets.used[row]].tolist()
                assert sorted([*seen, *said]) == list(range(opened.config.modalities[place].length))


def test_the_command_says_the_same_twice_and_names_what_does_not_fit(folder, capsys):
    words = ("evaluate", str(folder / "run"), str(folder / "two"), "--limit", "5", "--input-tokens", "12", "--json")
    assert run_command(*words, "--against", str(folder / "one")) == 0
    first = json.loads(capsys.readouterr().out)
    assert run_command(*words) == 0
    again = json.loads(capsys.readouterr().out)
    assert set(first["losses"]) == {"caption", "color_palette", "dinov2"}
    for name, one in first["losses"].items():
        assert {**one, "unigram_against": None} == again["losses"][name]
        assert one["unigram"] < one["unigram_against"]
        assert one["gain"] == pytest.approx(one["alone"]["loss"] - one["given"]["loss"])
    assert first["picture"] is None
    page = folder / "page.html"
    assert run_command("evaluate", str(folder / "nowhere"), str(folder / "two"), "--report", str(page)) == 1
    assert "a model is a folder with config.json" in capsys.readouterr().err
    assert "a model is a folder with config.json" in page.read_text()
    assert run_command("evaluate", str(folder / "run"), str(folder / "two"), "--report", f"{folder}/two/p.html") == 2
    assert "that is in the dataset" in capsys.readouterr().err
    assert run_command("evaluate", str(folder / "run"), str(folder)) != 0
    assert str(folder) in capsys.readouterr().err


def test_a_published_model_goes_by_4ms_names(folder, tmp_path, capsys):
    model = open_network(str(folder / "run"))
    called = renamed(model, {"dinov2": "tok_dinov2@224"})
    write_model(called.config, called.state_dict(), tmp_path / "published")
    found = []
    for checkpoint in (folder / "run", tmp_path / "published"):
        assert run_command("evaluate", str(checkpoint), str(folder / "two"), "--limit", "4", "--json") == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[1]["losses"] == found[0]["losses"]
    assert found[1]["notes"] == ["the model's tok_dinov2@224 is the dataset's dinov2", *found[0]["notes"]]


def test_what_a_model_makes_up_is_unread_and_what_the_dataset_has_must_decode():
    rng, kind = np.random.default_rng(0), Vector(4)
    labels = list(rng.normal(size=(32, 4)).astype(np.float32))
    codes = ProductCodebook(kind, ProductCodebook.Params(parts=2, size=4))
    codes.fit(labels, 0)
    sums, seen = LikenessSum(codes, True), Seen(np.zeros((8, 8, 3), np.uint8), "", None)
    sample = Sample("a", seen, {"v": codes.encode(labels[:1])[0]}, {"v": labels[0]})
    sums.add("v", sample, sample.tokens["v"])
    sums.add("v", sample, np.array([0, 4]))
    means = sums.means()
    assert means
    assert (means.samples, means.unread) == (1, 1)
    with pytest.raises(ValueError, match="takes 2 tokens"):
        sums.add("v", replace(sample, tokens={"v": np.zeros(3, int)}), np.zeros(2, int))
    with pytest.raises(DatasetError, match=r"v of a can't be compared with what its tokens decode to: .*\(3,\)"):
        sums.add("v", replace(sample, labels={"v": labels[0][:3]}), np.zeros(2, int))


def test_from_pictures_what_is_said_is_measured_beside_the_tokenizers_own_loss(tmp_path, capsys):
    (tmp_path / "corpus").mkdir()
    for key, pixels in noise(4).items():
        Image.fromarray(pixels).save(tmp_path / f"corpus/{key}.png")
        (tmp_path / f"corpus/{key}.txt").write_text(f"picture number {key} of four")
    codes = {"name": "product_codebook", "params": {"parts": 3, "size": 4}}
    modalities = {
        "caption": {"labeler": "caption", "keep": "both"},
        "mean_colour": odd("MeanColour", keep="tokens", tokenizer=codes),
    }
    url = str(tmp_path / "out")
    weave(recipe(tmp_path / "corpus", tmp_path / "out", modalities, views={"size": 32}))
    data = {"datasets": {"a": {"url": url, "inputs": ["pixels", "caption", "mean_colour"]}}}
    trained_here(small_recipe(tmp_path, data=data, steps=1))
    assert run_command("evaluate", str(tmp_path / "run"), url, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["picture"] == "pixels"
    caption = found["from_picture"]["caption"]
    assert (caption["against"], caption["bound"]["exact"]) == ("labels", 1.0)
    assert found["from_picture"]["mean_colour"]["against"] == "tokens"
    page = tmp_path / "pages/found.html"
    assert run_command("evaluate", str(tmp_path / "run"), url, "--report", str(page)) == 0
    assert "From pixels" in capsys.readouterr().out
    assert json.loads(page.with_suffix(".json").read_text()) == found
    shown = page.read_text()
    assert "<h2>From pixels, against the dataset&#x27;s labels</h2>" in shown
    assert f"<td>{caption['samples']}</td><td>{caption['unread']}</td>" in shown
    assert f"<td>{found['losses']['caption']['given']['loss']:.3f}</td>" in shown
    assert "beyond a unigram model" in shown
    assert 'http-equiv="refresh"' not in shown
