"""What users give as what a model takes, and what it says as what users see; and what a model's folder says of both."""

from __future__ import annotations

import shutil

import torch
from small_models import MODALITIES, SIDE
from tokenloom.pipeline.dataset.dataset import open_dataset
from tokenloom.training.fit.open_model import open_model
from tokenloom.training.forms.given import read_given
from tokenloom.training.generation.seen import seen


def test_a_model_s_folder_is_enough(pictures, tmp_path):
    """Without the dataset that it was trained on."""
    shutil.copytree(pictures / "run/model", tmp_path / "alone")
    forms = open_model(str(tmp_path / "alone"))[1]
    row = open_dataset(pictures / "dataset")["1"]
    for name in MODALITIES:
        form = forms.target(name)
        (said,) = form.decode([row.values[name].tolist()])
        assert said.problem == ""
        assert form.encode(said.label).tolist() == row.values[name].tolist() or name == "human_poses"


def test_a_photograph_is_what_the_dataset_has_of_it(pictures, forms):
    photo = str(pictures / "corpus/3.png")
    given = read_given(forms, [photo, f"rgb={photo}", f"corners={pictures}/dataset#3"])
    assert list(given) == ["pixels", "rgb", "corners"]
    row = open_dataset(pictures / "dataset").get("3", modalities=["rgb"])
    assert given["rgb"].value.tolist() == row.values["rgb"].tolist()
    assert given["pixels"].value.shape == (SIDE, SIDE, 3)
    state = seen(forms.config, [{name: one.value for name, one in given.items()}, {}])
    assert state.arrays["pixels"][0].equal(torch.tensor(given["pixels"].value))
    assert state.known["rgb"].used.sum(dim=1).tolist() == [16, 0]
    assert state.known["corners"].rows[0] == list(range(len(given["corners"].value)))
