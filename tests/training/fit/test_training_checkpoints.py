"""Checkpoints of trainings: complete or absent, whatever happens, and never a pickle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenloom.pipeline.storage.store import StorageError, Store
from tokenloom.training.fit.checkpoints import Checkpoints
from tokenloom.training.fit.shards import DamagedCheckpointError


def state() -> dict[str, torch.Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return {
        "weights/a": torch.randn(5, 7, generator=drawn),
        "weights/b": torch.randn(3, generator=drawn).bfloat16(),
        "weights/none": torch.zeros(0, 4),
        "guard": torch.tensor([0.5, 3.0], dtype=torch.float64),
    }


def files(folder: Path, step: int) -> list[Path]:
    return sorted((folder / f"checkpoints/{step:08d}").glob("*"))


def test_what_is_written_is_what_there_was_when_it_began(tmp_path):
    checkpoints, saved = Checkpoints(Store(tmp_path), 2), state()
    for step in (5, 6, 7):
        checkpoints.save(step, saved, {"step": step})
        saved["weights/a"].add_(1)  # the training goes on
    checkpoints.wait()
    assert checkpoints.latest() == 7
    assert [bool(files(tmp_path, step)) for step in (5, 6, 7)] == [False, True, True]
    read = {name: torch.full_like(one, 9) for name, one in state().items()}
    Checkpoints(Store(tmp_path), 2).load(7, read)
    want = state()
    for _ in range(2):
        want["weights/a"] += 1
    assert all(torch.equal(read[name], want[name]) for name in want)
    assert checkpoints.meta(6) == {"step": 6}
    tensors, index = files(tmp_path, 7)
    assert json.loads(index.read_bytes())["tensors"].keys() == want.keys()
    assert len(load_file(tensors)) == len(want)


def test_damage_and_other_networks_are_named(tmp_path):
    checkpoints = Checkpoints(Store(tmp_path), 2)
    checkpoints.save(5, state(), {})
    checkpoints.wait()
    other = {**state(), "weights/a": torch.zeros(5, 8)}
    with pytest.raises(DamagedCheckpointError, match=r"weights/a of shape \[5, 7\] there, .* \[5, 8\] here; 1 of 4"):
        checkpoints.load(5, other)
    tensors, index = files(tmp_path, 5)
    data = bytearray(tensors.read_bytes())
    data[-3] ^= 1
    tensors.write_bytes(data)
    with pytest.raises(DamagedCheckpointError, match=rf"{tensors.name}: the checkpoint is damaged \(its bytes aren't"):
        checkpoints.load(5, state())
    tensors.unlink()
    with pytest.raises(DamagedCheckpointError, match=r"does not exist\); delete checkpoints/00000005/index.json"):
        checkpoints.load(5, state())
    index.write_text('{"tensors": 1}')
    with pytest.raises(DamagedCheckpointError, match="no index of a checkpoint"):
        checkpoints.meta(5)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    checkpoints = Checkpoints(Store(tmp_path), 1)
    checkpoints.save(5, state(), {})
    checkpoints.wait()
    write = Store.replace

    def full(store: Store, path: str, data: bytes) -> None:
        if path.endswith("index.json"):
            raise StorageError("could not write it (OSError: No space left on device)", f"{store.url}/{path}")
        write(store, path, data)

    monkeypatch.setattr(Store, "replace", full)
    checkpoints.save(6, state(), {})
    with pytest.raises(StorageError, match=r"00000006/index.json: could not write it .*No space left"):
        checkpoints.wait()
    monkeypatch.undo()
    assert checkpoints.latest() == 5
    assert len(files(tmp_path, 6)) == 1
    checkpoints.save(7, state(), {})
    checkpoints.wait()
    assert files(tmp_path, 7)
    assert [path for step in (5, 6) for path in files(tmp_path, step)] == []
