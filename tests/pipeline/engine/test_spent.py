"""Where time goes: on a clock that only what is measured moves, every second is told, once, and of what it was."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import odd_labelers
import pytest
from in_process import weave
from tokenloom.pipeline.engine import chunks, spent
from tokenloom.pipeline.engine.loaded_models import LoadedModels
from tokenloom.pipeline.engine.spent import Spent, StageTimes, Straggler
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.codebooks.codebook import ProductCodebook
from weaving import odd, recipe


class Clock:
    """Stands still, but for what `moved_by` says of a function's calls. moved: seconds in all."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.moved, self._patch, self._lock = 0.0, patch, threading.Lock()
        patch.setattr(spent, "time", SimpleNamespace(perf_counter=lambda: self.moved))

    def moved_by(self, owner: object, name: str, seconds: float) -> None:
        function = getattr(owner, name)

        def moving(*given, **named):
            with self._lock:
                self.moved += seconds
            return function(*given, **named)

        self._patch.setattr(owner, name, moving)


def test_the_parts_add_up_to_the_whole(corpus_folder, tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    tokens = {"name": "product_codebook", "params": {"parts": 1, "size": 2}}
    modalities = {"mean_colour": odd("MeanColour", keep="tokens", tokenizer=tokens), "doubled": odd("Doubled")}
    stages = [{"modalities": ["mean_colour"]}, {"modalities": ["doubled"]}]
    more = {"units": {"samples": 2}, "fit": {"units": 1}, "resources": {"stages": stages}}
    plain = recipe(corpus_folder, tmp_path / "out", modalities, **more)
    weave(plain, limit=1)  # fits the codebook
    clock.moved_by(odd_labelers.MeanColour, "label", 8)
    clock.moved_by(odd_labelers.Doubled, "label", 4)
    clock.moved_by(ProductCodebook, "encode", 2)
    clock.moved_by(chunks, "decode_view", 1)
    clock.moved_by(Store, "create", 0.5)
    clock.moved_by(LoadedModels, "tokenizer", 0.25)
    tally = weave(plain)
    times = tally.times
    assert [*times] == ["read", "mean_colour", "doubled"]
    assert {name: (stage.units, stage.samples) for name, stage in times.items()} == dict.fromkeys(times, (2, 4))
    first, second = times["mean_colour"], times["doubled"]
    assert (first.models, second.models) == ({"mean_colour": 16}, {"doubled": 8})
    assert (first.seconds["decode"], first.seconds["model"], first.seconds["tokenise"]) == (4, 16, 4)
    assert (first.seconds["load"], second.seconds["decode"], second.seconds["tokenise"]) == (0.5, 0, 0)
    assert first.seconds["write"] == second.seconds["write"] == 2 * 2 * 0.5  # a mark and a shard
    assert sum(stage.total - stage.seconds["idle"] for stage in times.values()) == clock.moved
    assert first.worked == first.total - first.seconds["idle"] - 0.5 == 4 + 16 + 4 + 2
    assert [one.seconds for one in first.stragglers] == [13, 13]
    assert {one.most for one in first.stragglers} == {"mean_colour"}


def test_what_is_kept_does_not_grow_with_the_units():
    times = StageTimes()
    for unit in range(1000):
        times.add(Spent("stage", {"write": unit % 500, "load": 5000.0, "idle": 9000.0}, {}), f"unit-{unit:04d}", 3)
    assert (times.units, times.samples, times.seconds["load"]) == (1000, 3000, 5e6)
    slowest = [(499, "unit-0999"), (499, "unit-0499"), (498, "unit-0998")]
    assert times.stragglers == [Straggler(seconds, unit, 3, "write") for seconds, unit in slowest]
