"""What `tokenloom train` refuses, and what it goes on from: each named by the command, with the way out."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from in_process import without_ray
from safetensors.torch import load_file
from small_dataset import rewrite_tokens, write_dataset
from small_trainings import poisoned, small_recipe, very_small
from tokenloom.training.fit import guard
from training_recipes import run_command, two_datasets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With two datasets, and the output of a training of two steps."""
    folder = tmp_path_factory.mktemp("trainings")
    two_datasets(folder)
    small_recipe(folder, "run", steps=2, every=1)
    assert command(folder / "run.yaml") == 0
    return folder


@pytest.fixture(autouse=True)
def ray_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenloom.pipeline.cluster.session.stop_ray", lambda: None)  # the tests' own


def command(file: Path, *overrides: str) -> int:
    with without_ray(), very_small():
        return run_command("train", str(file), *(word for one in overrides for word in ("--set", one)))


def refusal(capsys: Any, file: Path, *overrides: str) -> str:
    """The line with which it is refused."""
    assert command(file, *overrides) in (1, 2)
    said = capsys.readouterr().err
    assert '  File "' not in said
    return said


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.input_tokens=0", "data.input_tokens: input should be at least 1"),
        ("data.target_tokens=[0, 8]", "data.target_tokens.0: input should be greater than or equal to 1"),
        ("data.batch_size=0", "data.batch_size: input should be greater than or equal to 1"),
        ("data.batch_size=7", "data.batch_size: 7 samples can't be dealt out evenly to 2 workers in 1 parts"),
        ("train.steps=0", "train.steps: input should be greater than or equal to 1"),
        ("train={output: x, tokens: 0}", "train.tokens: input should be greater than or equal to 1"),
        ("train.weight_decay=.inf", "train.weight_decay: input should be less than 1000"),
        ("model.start={rename: {a: b}}", "model.start.model: "),
    ],
)
def test_settings_that_can_not_be(folder, capsys, override, said):
    assert said in refusal(capsys, folder / "run.yaml", "train.workers=2", override)


def test_what_is_saved_by_others_or_spoilt(folder, tmp_path, capsys):
    """And how it goes on, as the message says."""
    shutil.copytree(folder / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run/model")
    output = f"train.output={tmp_path}/run"
    checkpoint = tmp_path / "run/checkpoints/00000002"
    index = checkpoint / "index.json"
    good = index.read_text()
    for change, said in (
        (lambda told: told["tensors"]["guard"].update(parts=[]), "guard isn't there as a whole"),
        (lambda told: told["tensors"]["guard"].update(dtype="load"), "load is no type of torch's"),
        (lambda told: told["tensors"]["guard"]["parts"][0].update(file="../x.safetensors"), "parts.0.file: "),
        (lambda told: told.update(meta={"epoch": 1}), "of something else than a training (they tell epoch of it)"),
    ):
        told = json.loads(good)
        change(told)
        index.write_text(json.dumps(told))
        assert said in refusal(capsys, folder / "run.yaml", output)
    index.write_text(good[:1000])
    assert "it is no index of a checkpoint" in refusal(capsys, folder / "run.yaml", output)
    index.write_text(good)
    (tensors,) = checkpoint.glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-100])
    said = refusal(capsys, folder / "run.yaml", output)
    found = re.search(rf"{tensors.name}: the checkpoint is damaged \(.*\); delete (\S+), and", said)
    assert found, said
    (tmp_path / "run" / found[1]).unlink()
    checkpoint.with_name(".metadata").write_bytes(pickle.dumps({"a": 1}))  # as of DCP itself; nobody reads it
    assert command(folder / "run.yaml", output) == 0
    assert "going on from step 1 of 2" in capsys.readouterr().out
    first, again = (load_file(one / "run/model/model.safetensors") for one in (folder, tmp_path))
    assert all(torch.equal(first[name], again[name]) for name in first)


def retell(**fields: Any) -> Callable[[Path], object]:
    """Of the first modality that the model has."""

    def change(model: Path) -> None:
        told = json.loads((model / "modalities.json").read_text())
        told[0].update(fields)
        (model / "modalities.json").write_text(json.dumps(told))

    return change


def cut(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickled(model: Path) -> None:
    shutil.rmtree(model)
    model.mkdir()
    torch.save({"a": torch.ones(1)}, model / "checkpoint-9.pth")


def of_dcp(model: Path) -> None:
    shutil.rmtree(model)
    model.mkdir()
    (model / "__0_0.distcp").write_bytes(b"PK")


def test_models_that_can_not_be_begun_with(folder, tmp_path, capsys):
    model = tmp_path / "other"
    nothing = lambda model: None  # noqa: E731
    for damage, overrides, said in (
        (retell(tokenizer="another"), [], "tokenizer of caption is another, and of the model's caption "),
        (retell(vocabulary=7), [], "vocabulary of caption is 7, and of the model's caption "),
        (nothing, ["model.start.rename.caption=dinov2"], "form of dinov2 is grid, and of the model's caption text"),
        (nothing, ["model.start.rename.caption=words"], "has no modality 'words'; it has caption, color_palette"),
        (nothing, ["model.start.rename.depth=caption"], "'depth' is no modality of the model, which has caption"),
        (nothing, ["model.registers=2"], "lacks register_tokens; the model is another"),
        (cut, [], "model.safetensors: isn't a whole checkpoint"),
        (pickled, [], "has no config.json; checkpoint-9.pth might run code, and isn't read"),
        (of_dcp, [], "has no config.json; __0_0.distcp might run code, and isn't read"),
        (shutil.rmtree, [], "has no config.json"),
    ):
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(folder / "run/model", model)
        damage(model)
        told = refusal(capsys, folder / "run.yaml", f"train.output={tmp_path}/out", f"model.start={model}", *overrides)
        assert said in told, told
        assert str(model) in told, told
    assert not (tmp_path / "out").exists()


def test_names_of_modalities_in_a_model(folder, tmp_path, capsys):
    model = tmp_path / "other"
    shutil.copytree(folder / "run/model", model)
    (model / "modalities.json").unlink()  # as published ones lack it
    begun = [f"train.output={tmp_path}/out", "train.steps=1", f"model.start={model}", "model.start.rename.caption=null"]
    assert command(folder / "run.yaml", *begun) == 0
    said = capsys.readouterr().out
    assert "begins with model.start's weights of the network and of color_palette, dinov2; new: " in said
    assert "new: encoder_embeddings.caption, decoder_embeddings.caption; left out: caption\n" in said


def left_out(said: str) -> list[str]:
    return re.findall(r"^step \d+ is left out: (.*)$", said, re.MULTILINE)


def test_a_sample_that_is_no_number_is_named(tmp_path, capsys):
    poisoned(tmp_path, steps=14)
    assert command(tmp_path / "run.yaml") == 0
    said = capsys.readouterr().out
    told = left_out(said)
    assert 1 <= len(told) < 14
    assert all(one.startswith("the loss is nan; ") and " of 3 (pictures, view 0): nan" in one for one in told), said
    assert not any(re.search(r" of [^3] \(pictures", one) for one in told), said
    weights = load_file(tmp_path / "run/model/model.safetensors")
    assert all(bool(one.isfinite().all()) for one in weights.values())


def test_a_sample_that_jumps_out_is_named(tmp_path, capsys, monkeypatch):
    """The first that isn't like all before."""
    monkeypatch.setattr(guard, "_SETTLED", 60)
    alike, odd = write_dataset(f"{tmp_path}/one"), write_dataset(f"{tmp_path}/two")
    for name in ("caption", "color_palette", "dinov2"):
        first = next(one for one in alike.reader.tokens(alike.units[0], name).values if one is not None)
        other = (first + 5) % 16 if name == "dinov2" else first
        for small, tokens in ((alike, first), (odd, other)):
            for unit in small.units:
                rewrite_tokens(small, name, unit, change=lambda before, tokens=tokens: [tokens] * len(before))
    sides = {"inputs": ["caption"], "targets": ["dinov2"]}
    datasets = {"a": {"url": f"{tmp_path}/one", "weight": 149, **sides}, "b": {"url": f"{tmp_path}/two", **sides}}
    small_recipe(tmp_path, data={"datasets": datasets, "batch_size": 1}, steps=80, base_learning_rate=2, spike=3)
    assert command(tmp_path / "run.yaml") == 0
    said = capsys.readouterr().out
    told, *more = left_out(said)
    assert not more
    assert re.match(r"the gradient's norm is \S+, \d+ times the usual \S+; no sample by itself; the largest", told)
    assert re.search(r"are; dinov2 of photos/\S+ \(b, view \d\): ", told), told
    lines = [json.loads(line) for file in sorted((tmp_path / "run/metrics").iterdir()) for line in file.open()]
    (step,) = [line["step"] for line in lines if line.get("left_out")]
    assert 70 < step < 80
