"""Trainings of a very small model in this process: what they make, leave behind, and go on from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import without_ray
from safetensors.torch import load_file
from small_trainings import Heard, losses, new_trainer, small_recipe, trained_here, very_small
from tokenloom.pipeline.plan.recipe_file import RecipeError
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.data.loader import TrainingBatches
from tokenloom.training.data.train_settings import ModelSettings, StartSettings
from tokenloom.training.fit.kept import OtherTrainingError
from tokenloom.training.fit.network import model_config, new_network, saved_network
from tokenloom.training.fit.suspects import sample_name
from tokenloom.training.fit.trainer import DivergedError
from training_recipes import run_command, two_datasets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With two datasets, and `run`, the output of a training on them that nothing disturbed."""
    folder = tmp_path_factory.mktemp("trainings")
    two_datasets(folder)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> Heard:
    heard = Heard()
    trained_here(small_recipe(folder), heard)
    return heard


def lines(output: Path) -> list[dict]:
    files = sorted((output / "metrics").iterdir())
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def model(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model/model.safetensors")


def test_a_recipe_may_say_what_a_size_is_made_of(folder):
    data = TrainingBatches(small_recipe(folder)).data

    def shape(**model: Any) -> tuple[int, ...]:
        recipe = small_recipe(folder)
        settings = recipe.model_copy(update={"model": ModelSettings(size="tiny", **model)})
        config = model_config(data, settings)
        return config.dim, config.encoder_depth, config.decoder_depth, config.num_heads

    assert shape() == (384, 6, 6, 6)
    assert shape(dim=96, depth=2) == (96, 2, 2, 6)
    recipe = small_recipe(folder).model_copy(update={"model": ModelSettings(size="tiny", tied=False, embedding_std=1)})
    network = new_network(model_config(data, recipe), recipe)
    said = network.target_embedding("caption")
    assert float(said.token_emb.weight.detach().std()) == pytest.approx(1, rel=0.1)
    assert float(said.to_logits.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    with pytest.raises(RecipeError, match=r"run.yaml:\d+: model: num_heads: 5 don't divide dim 384"):
        shape(heads=5)


def test_it_learns_and_leaves_a_line_for_each_step(folder, undisturbed):
    figures = undisturbed.figures
    assert undisturbed.said == ["training for 12 steps"]
    assert [one.step for one in figures] == list(range(1, 13))
    assert figures[-1].loss < figures[0].loss
    told = lines(folder / "run")
    assert [one["step"] for one in told] == list(range(1, 13))
    assert [one["loss"] for one in told] == [one.loss for one in figures]
    assert set(told[0]["losses"]) == {"caption", "color_palette", "dinov2"}
    events = sorted((folder / "run/tensorboard").iterdir())
    assert [path.name.rpartition(".")[2] for path in events] == ["00000000", "00000004", "00000008"]
    assert b"losses/dinov2" in events[0].read_bytes()
    names = {path.name for path in (folder / "run/model").iterdir()}
    assert names == {"config.json", "modalities.json", "model.safetensors", "tokenizers"}


@pytest.mark.parametrize("until", [3, 8])
def test_what_was_stopped_ends_in_the_same_bytes(folder, undisturbed, until):
    recipe, output = small_recipe(folder, f"until{until}"), folder / f"until{until}"
    stopped, heard = Heard(until), Heard()
    # It hears of it in a step, and all processes stop in the next.
    assert trained_here(recipe, stopped).step == until + 1
    assert not (output / "model").exists()
    assert trained_here(recipe, heard).step == 12
    assert heard.said == [f"going on from step {until + 1} of 12"]
    figures = [*stopped.figures, *heard.figures]
    assert [one.loss for one in figures] == [one.loss for one in undisturbed.figures]
    assert [one["step"] for one in lines(output)] == list(range(1, 13))
    first, again = model(folder / "run"), model(output)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert len(list((output / "checkpoints").iterdir())) <= 4


def test_a_finished_training_does_nothing_and_another_is_refused(folder, undisturbed):
    heard = Heard()
    assert trained_here(small_recipe(folder), heard).step == 12
    assert (heard.said, heard.figures) == (["going on from step 12 of 12"], [])
    with pytest.raises(
        OtherTrainingError, match=r"run holds another training: train.weight_decay is 0.1, and was 0.05"
    ):
        trained_here(small_recipe(folder, weight_decay=0.1))


def test_parts_and_precision_hardly_change_the_loss(folder):
    plain = losses(small_recipe(folder, "plain"))
    assert losses(small_recipe(folder, "parts", accumulation=4, checkpointing=True)) == pytest.approx(plain, abs=1e-5)
    half = losses(small_recipe(folder, "half", precision="bfloat16"))
    assert half != plain
    assert half == pytest.approx(plain, rel=2e-2)
    assert losses(small_recipe(folder, "token", loss="token"))[0] != pytest.approx(plain[0], rel=1e-2)


def test_steps_that_are_no_numbers_are_left_out_and_explained(folder):
    trainer, batches = new_trainer(small_recipe(folder, "broken"))
    steps = iter(batches)
    trainer.advance(next(steps))
    before = {name: one.clone() for name, one in trainer.state().items()}
    said: Any = trainer.network.decoder_embeddings["caption"]
    table = said.token_emb.weight
    batch = next(steps)
    labels, caption = batch["targets"]["labels"], batches.modalities.index("caption")
    row, column = (batch["targets"]["modality"] == caption).logical_and(labels >= 0).nonzero()[0].tolist()
    with torch.no_grad():
        table[labels[row, column]] = float("nan")  # whoever says captions at all divides by its logit
    figures, _ = trainer.advance(batch)
    assert figures.left_out == "the loss is nan"
    name = sample_name(batches.data, int(batch["positions"][row]))
    assert re.fullmatch(r"photos/\d+\.\d/\d \([ab], view [01]\)", name)
    assert any(one == f"caption of {name}: nan" for one in figures.suspects) or len(figures.suspects) > 5
    assert all(re.match(r"\w+ of photos/.*: nan$|and \d+ more$", one) for one in figures.suspects)
    assert figures.to_json()["losses"]["caption"] is None
    after = trainer.state()
    odd = [name for name in before if not torch.equal(before[name], after[name])]
    assert sorted(odd) == ["guard", "weights/decoder_embeddings.caption.token_emb.weight"]
    for _ in range(3):
        trainer.advance(next(steps))
    with pytest.raises(DivergedError, match="after 5 steps in a row that had to be left out; of the last the loss is"):
        trainer.advance(next(steps))


def test_it_begins_with_other_weights(folder, undisturbed):
    """Of the training before, without its palettes, and with a modality that is new."""
    recipe = small_recipe(folder, "started", steps=1)
    datasets = recipe.data.datasets["a"].url
    mixed = {"datasets": {"a": {"url": datasets, "inputs": ["caption", "dinov2"], "targets": ["dinov2"]}}}
    recipe = small_recipe(folder, "started", data=mixed, steps=1)
    assert recipe.model is not None
    begin = StartSettings(model=str(folder / "run"))
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"start": begin})})
    heard = Heard()
    trained_here(recipe, heard)
    assert heard.said[1].startswith("begins with model.start's weights of the network and of caption, dinov2")
    assert "left out: color_palette" in heard.said[1]
    saved = saved_network(Store(folder / "run"))  # as of the last checkpoint, where there is no model yet
    assert saved is not None
    assert all(torch.equal(one, model(folder / "run")[name]) for name, one in saved.state_dict().items())


def test_the_output_may_be_any_url(folder):
    url = f"memory://{folder.name}"
    recipe = small_recipe(folder, "elsewhere", steps=2)
    assert recipe.train is not None
    trained_here(recipe.model_copy(update={"train": recipe.train.model_copy(update={"output": url})}))
    names = [entry.name.partition(".safetensors")[0] for entry in Store(url).list()]
    assert {"checkpoints/00000002/index.json", "metrics/00000000.jsonl", "model/model"} <= set(names)


def test_the_command_trains_and_says_what_is_wrong(folder, capsys, monkeypatch):
    monkeypatch.setattr("tokenloom.pipeline.cluster.session.stop_ray", lambda: None)  # the tests' own, that others use
    small_recipe(folder, "command", steps=2)
    file = str(folder / "command.yaml")
    with without_ray(), very_small():
        assert run_command("train", file) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"^step 2 of 2, loss \S+, rate \S+, gradient \S+, tokens/s [\d,]+, left 0 s$", said, re.MULTILINE
    ), said
    assert said.endswith(f"2 steps are done -> {folder}/command\n")
    for more, wrong in (
        (
            ["--set", "train=null"],
            "--set train=null: train: it is missing, and says what is trained; write it, as `train: ",
        ),
        (["--set", "train.workers=3"], "data.batch_size: 8 samples can't be dealt out evenly to 3 workers in 1 parts"),
        (["--set", "model.sise=B"], "--set model.sise=B: model.sise: unknown key; did you mean 'size'?"),
    ):
        assert run_command("train", file, *more) == 2
        assert wrong in capsys.readouterr().err
