import json
import os

import pytest
import torch
from safetensors.torch import save_file
from tokenloom.labelers.networks.hub import CheckpointError, load_model, load_processor
from tokenloom.labelers.networks.state_dicts import fill, read_tensors, seeded


class Code:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_state_dicts_by_prefix(tmp_path, zipped):
    state = {"head.weight": torch.ones(3), "body.weight": torch.zeros(2), "epoch": 7}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert list(read_tensors(tmp_path / "a.pth")) == ["head.weight", "body.weight"]
    assert list(read_tensors(tmp_path / "a.pth", ("head.",))) == ["head.weight"]


def test_reads_safetensors(tmp_path):
    save_file({"a": torch.ones(3), "b": torch.ones(2)}, tmp_path / "a.safetensors")
    assert torch.equal(read_tensors(tmp_path / "a.safetensors", ("a",))["a"], torch.ones(3))


def test_pickled_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(3), "b": Code()}, "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil\.pth: holds more than tensors \(posix\.mkdir\)"):
        read_tensors("evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["cut.pth", "empty.pth", "text.pth", "cut.safetensors", "list.pth", "absent.pth"])
def test_what_is_no_checkpoint_is_named(tmp_path, name):
    torch.save({"a": torch.ones(100_000)}, tmp_path / "whole.pth")
    save_file({"a": torch.ones(100_000)}, tmp_path / "whole.safetensors")
    for suffix in ("pth", "safetensors"):
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.pth").write_text("version https://git-lfs")
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match=rf"{name}: (isn't a whole checkpoint|holds a list|no such file)"):
        read_tensors(tmp_path / name)


def test_a_model_is_filled_exactly():
    tensors = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    model = fill(torch.nn.Linear(2, 2), tensors, "a.pth")
    assert model(torch.ones(1, 2)).tolist() == [[3.0, 3.0]]
    with pytest.raises(
        CheckpointError, match=r"a\.pth: 3 tensors don't fit Linear: it lacks bias, it has an unknown x"
    ):
        fill(torch.nn.Linear(2, 2), {"weight": torch.ones(2, 3), "x": torch.ones(1)}, "a.pth")


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone():
    def draw():
        with seeded():
            return torch.rand(3)

    state = torch.get_rng_state()
    first = draw()
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(5)
    assert torch.equal(first, draw())


def test_a_checkpoint_that_brings_code_is_refused(tmp_path):
    """Without a question on the terminal, which transformers would ask."""
    from transformers import AutoModel, AutoProcessor

    config = {"model_type": "none_of_ours", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"auto_map": {"AutoProcessor": "code.Processor"}}))
    with pytest.raises(CheckpointError, match="asks for code of its own"):
        load_model(AutoModel, str(tmp_path), "cpu")
    with pytest.raises(CheckpointError, match="asks for code of its own"):
        load_processor(AutoProcessor, str(tmp_path))
