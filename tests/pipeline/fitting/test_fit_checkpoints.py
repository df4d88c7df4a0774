"""Checkpoints: complete or absent, two of them, nobody else's; and a line of metrics for each step, once."""

from __future__ import annotations

import json

import pytest
import torch
from tokenloom.pipeline.fitting import checkpoints as fit_checkpoints
from tokenloom.pipeline.fitting.checkpoints import Checkpoints, remove_fit
from tokenloom.pipeline.storage.store import Store

PREFIX = "fit/_rgb"


def state(step: int) -> dict[str, torch.Tensor]:
    return {"network/weight": torch.full((300,), float(step)), "counts": torch.tensor([step])}


def checkpoints(store: Store, job: str = "a" * 16) -> Checkpoints:
    return Checkpoints(store, PREFIX, job)


def step_of(found: dict[str, torch.Tensor] | None) -> int | None:
    return None if found is None else int(found["counts"][0])


def names(store: Store) -> list[str]:
    return [entry.name for entry in store.list(f"{PREFIX}/checkpoints")]


def test_the_last_two_are_kept(place):
    assert checkpoints(place).latest() is None
    for step in (5, 10, 15):
        checkpoints(place).save(step, state(step))
    found = checkpoints(place).latest()
    assert found is not None
    assert found.keys() == state(15).keys()
    assert all(torch.equal(tensor, state(15)[name]) for name, tensor in found.items())
    assert [name for name in names(place) if name.endswith(".json")] == [f"{'a' * 16}-{s:08d}.json" for s in (10, 15)]


def test_one_of_several_parts_counts_when_all_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_checkpoints, "_PART", 1000)
    store = Store(tmp_path)
    many = {f"tensor-{index}": torch.full((200,), float(index)) for index in range(5)}
    checkpoints(store).save(5, state(5))
    checkpoints(store).save(10, many)
    assert len([name for name in names(store) if "00000010" in name]) == 6
    found = checkpoints(store).latest()
    assert found is not None
    assert all(torch.equal(found[name], many[name]) for name in many)
    store.delete(f"{PREFIX}/checkpoints/{'a' * 16}-00000010.json")  # as a kill before the end leaves it
    assert step_of(checkpoints(store).latest()) == 5
    assert not checkpoints(store).remove_others()
    assert [name for name in names(store) if "00000010" in name] == []


def test_those_of_another_fit_are_removed_with_its_metrics(place):
    other = checkpoints(place, "b" * 16)
    other.add_metrics({"step": 5, "loss": 1.0})
    other.save(5, state(5))
    mine = checkpoints(place)
    assert mine.latest() is None
    assert mine.remove_others()
    assert not mine.remove_others()
    assert place.list(PREFIX) == []


def test_metrics_that_are_ahead_are_made_again(place):
    first = checkpoints(place)
    for step in (1, 2, 3):
        first.add_metrics({"step": step, "loss": 0.5})
    first.save(3, state(3))
    first.add_metrics({"step": 4, "loss": 0.25})
    first.write_metrics()
    second = checkpoints(place)
    assert step_of(second.latest()) == 3
    second.add_metrics({"step": 4, "loss": 0.25})
    second.add_metrics({"step": 5, "loss": 0.125})
    second.save(5, state(5))
    lines = [json.loads(line) for line in place.read(f"{PREFIX}/metrics.jsonl").splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    remove_fit(place, PREFIX)
    assert place.list(PREFIX) == []


def test_a_damaged_one_is_named(tmp_path):
    store = Store(tmp_path)
    checkpoints(store).save(5, state(5))
    checkpoints(store).save(10, state(10))
    path = f"{PREFIX}/checkpoints/{'a' * 16}-00000010-000.safetensors"
    store.replace(path, store.read(path)[:-7])
    with pytest.raises(ValueError, match=r"10-000\.safetensors: the checkpoint is damaged.*delete a+-0+10\.json"):
        checkpoints(store).latest()
    store.delete(f"{PREFIX}/checkpoints/{'a' * 16}-00000010.json")
    assert step_of(checkpoints(store).latest()) == 5
