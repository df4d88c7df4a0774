"""A training recipe's datasets as a model: its modalities, its batches, and models of other data."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.training.data.loader import TrainingBatches
from tokenloom.training.model.config import ModalityConfig, ModelConfig
from tokenloom.training.model.fourm import FourM
from tokenloom.training.model.from_data import modalities_of, refuse_other_data
from tokenloom.training.model.losses import loss_weights
from tokenloom.training.model.start import initialise
from tokenloom.training.model.tokens import Sides
from training_recipes import content, illustrated, noise, two_datasets, written


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> TrainingBatches:
    """Batches with pixels and embeddings."""
    folder: Path = tmp_path_factory.mktemp("illustrated")
    one = {"url": str(illustrated(folder, noise())), "inputs": ["pixels", "corners", "caption"]}
    data = {"datasets": {"a": one}, "masking": "all2all", "input_tokens": 12, "target_tokens": 12, "batch_size": 8}
    return TrainingBatches(written(folder / "train.yaml", {"data": data}))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TrainingBatches:
    """Batches of two datasets with tokens of three sorts."""
    folder: Path = tmp_path_factory.mktemp("two")
    two_datasets(folder)
    return TrainingBatches(written(folder / "train.yaml", content(folder)))


def test_what_the_datasets_say_of_their_modalities(pictures, tokens):
    made = {one.name: one for one in modalities_of(pictures.data.mixture)}
    assert set(made) == {"pixels", "corners", "caption", "mean_colour"}
    assert made["pixels"] == ModalityConfig("pixels", "pixels", 4, grid=(2, 2), is_target=False)
    assert (made["corners"].form, made["corners"].width, made["corners"].length) == ("embeddings", 4, 3)
    assert not made["corners"].is_target
    assert (made["mean_colour"].form, made["mean_colour"].length) == ("grid", 3)
    assert (made["mean_colour"].grid, made["mean_colour"].is_input) == (None, False)
    for dataset in (pictures, tokens):
        mixture = dataset.data.mixture
        for one in modalities_of(mixture):
            if (spec := mixture.spec(one.name)) is not None:
                assert one.vocabulary == spec.vocabulary
                assert one.tokenizer
    grid = next(one for one in modalities_of(tokens.data.mixture) if one.name == "dinov2")
    spec = tokens.data.mixture.spec("dinov2")
    assert spec
    assert grid.grid == spec.grid
    assert grid.positions == "grid"


@pytest.mark.parametrize("dataset", ["pictures", "tokens"])
def test_a_model_learns_from_the_loaders_batches(request, dataset):
    """A step lowers the loss of the very batch, and no parameter is without a gradient."""
    batches: TrainingBatches = request.getfixturevalue(dataset)
    config = ModelConfig(modalities_of(batches.data.mixture), 16, 1, 1, 2)
    torch.manual_seed(0)
    model = initialise(FourM(config))
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    for batch in islice(iter(batches), 2):
        sides = Sides.of(config, batch, batches.modalities)
        weights = loss_weights(config, sides.labels.said(config), "mod")
        before = weights @ model(sides)
        before.backward()
        assert all(one.grad is not None for one in model.parameters())
        optimiser.step()
        optimiser.zero_grad()
        assert (weights @ model(sides)) < before
        longest = max(int(side.position[side.used].max()) for side in (sides.inputs, sides.targets))
        assert longest < max(one.length for one in config.modalities)


def test_a_model_sees_pixels_and_embeddings_of_the_loader(pictures):
    config = ModelConfig(modalities_of(pictures.data.mixture), 16, 1, 1, 2)
    model = initialise(FourM(config))
    batch = next(iter(pictures))
    sides = Sides.of(config, batch, pictures.modalities)
    made = model.embed_inputs(sides.inputs, sides.arrays)[0].detach().numpy()
    for row, column in np.argwhere(batch["inputs"]["used"].numpy()):
        name = pictures.modalities[batch["inputs"]["modality"][row, column]]
        at = int(batch["inputs"]["position"][row, column])
        vector = int(batch["inputs"]["ids"][row, column])
        embedding = model.input_embedding(name)
        if name == "corners":
            seen = batch["arrays"]["corners"][row, vector].float() if vector >= 0 else torch.zeros(4)
            expected = embedding.emb_proj(seen)
        elif name == "pixels":
            down, across = divmod(at, 2)
            patch = batch["arrays"]["pixels"][row, down * 16 :, across * 16 :][:16, :16] / 255
            seen = (patch - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
            expected = embedding.proj(seen.flatten())
        else:
            expected = embedding.token_emb(torch.tensor(vector))
        np.testing.assert_allclose(made[row, column], expected.detach().numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vocabulary": 500}, "vocabulary of mean_colour is 500, and of the data's"),
        ({"tokenizer": "another"}, "tokenizer of mean_colour is another, and of the data's"),
        ({"is_target": False, "is_input": True}, "has mean_colour as an input alone"),
        ({"length": 2}, "mean_colour has 2 places, and the data's has 3"),
        ({"name": "colour"}, "has no modality 'mean_colour', which the data have; it has "),
    ],
)
def test_a_model_of_other_data_is_refused(pictures, change, said):
    given = modalities_of(pictures.data.mixture)
    known = tuple(replace(one, **change) if one.name == "mean_colour" else one for one in given)
    refuse_other_data(ModelConfig((*given, replace(given[0], name="more")), 16, 1, 1, 2), given, "model/")
    with pytest.raises(CheckpointError, match=f"model/: {said}"):
        refuse_other_data(ModelConfig(known, 16, 1, 1, 2), given, "model/")
