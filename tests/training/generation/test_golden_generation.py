"""What is generated is what ml-4m generates, step by step, with the network and the draws that were stored."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fourm import golden_config
from safetensors.torch import load_file
from tokenloom.training.data.masking import NOTHING
from tokenloom.training.generation.chain import Target, compose, generate
from tokenloom.training.generation.draws import SeededDraws
from tokenloom.training.generation.images import Decided, Step, image_steps
from tokenloom.training.generation.passes import Guidance
from tokenloom.training.generation.sampling import kept, probabilities
from tokenloom.training.generation.schedules import TokenSchedule, temperatures, token_counts
from tokenloom.training.generation.state import Known, State, TextIds, merged
from tokenloom.training.generation.texts import Said
from tokenloom.training.model.fourm import FourM

TEXT = TextIds(range(4, 204))
UNLUCKY = "maskgit_no_luck"


@dataclass
class StoredDraws:
    """The draws of a case: argmax of p / q with its stored q, of p where there is none; its stored orders."""

    io: Mapping[str, np.ndarray]

    def tokens(self, target: str, step: int, chances: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        if (name := f"out.{target}.noise{step}") in self.io:
            assert np.array_equal(self.io[f"{name}_pos"], places)
            chances = chances / torch.from_numpy(self.io[name])
        elif (name := f"out.{target}.noise") in self.io:
            chances = chances / torch.from_numpy(self.io[name][step])[:, None]
        return chances.argmax(dim=-1)

    def order(self, target: str, step: int, places: int) -> torch.Tensor:
        order = torch.from_numpy(self.io[f"out.{target}.perm"][step].astype(np.int64))
        return order.expand(2, places)


@dataclass
class Seen:
    """The steps of each target."""

    steps: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, target: str, step: Decided | Said) -> None:
        self.steps[target].append(step)


def cases(shared: Path) -> list[dict[str, Any]]:
    return json.loads((shared / "golden/generation/cases.json").read_text())["cases"]


@pytest.fixture(scope="module")
def golden(shared) -> Path:
    return shared / "golden/generation"


@pytest.fixture(scope="module")
def models(shared, golden) -> dict[str, FourM]:
    """As stored, and with each tensor multiplied as the golden data's README says."""
    folder = shared / "golden/fourm"
    stored = load_file(folder / "model.safetensors")
    factors = json.loads((golden / "cases.json").read_text())["scaled_weights"]
    scaled = {
        name: one * next((each["factor"] for each in factors if any(fnmatch(name, own) for own in each["tensors"])), 1)
        for name, one in stored.items()
    }
    made = {}
    for name, weights in (("plain", stored), ("scaled", scaled)):
        made[name] = FourM(golden_config(folder)).eval()
        made[name].load_state_dict(weights)
    return made


def state_of(model: FourM, io: Mapping[str, np.ndarray], prefix: str, pixels: np.ndarray) -> State:
    """What a case gives."""
    known, arrays = {}, {}
    for one in model.config.modalities:
        name = f"{prefix}.{one.name}"
        if f"{name}.input_mask" not in io:
            continue
        used = torch.from_numpy(~io[f"{name}.input_mask"])
        if f"{name}.roll" in io:
            rolled = np.roll(pixels, tuple(io[f"{name}.roll"]), axis=(2, 3))
            arrays[one.name] = (torch.from_numpy(rolled).float() - 128).permute(0, 2, 3, 1) / 64
            known[one.name] = Known(torch.full(used.shape, NOTHING), used)
        else:
            known[one.name] = Known(torch.from_numpy(io[f"{name}.tensor"]).long(), used)
    return State(len(next(iter(known.values())).used), known, arrays)


def targets_of(case: Mapping[str, Any], io: Mapping[str, np.ndarray]) -> list[Target]:
    told = case["builder_args"]
    schemes = told["autoregression_schemes"]
    return [
        Target(
            name,
            scheme="roar" if schemes[at] == "autoregressive" else schemes[at],
            steps=told["decoding_steps"][at] or 1,
            token_schedule=told["token_decoding_schedules"][at] or "cosine",
            temperature=told["temps"][at],
            temperature_schedule=told["temp_schedules"][at],
            top_k=case["top_k"],
            top_p=case["top_p"],
            **_weights(told["cfg_scales"][at]),
            **_stops(io, name, told["tokens_per_target"][at]),
        )
        for at, name in enumerate(told["target_domains"])
    ]


def _weights(scale: float | list[float]) -> dict[str, Any]:
    return {"weights": tuple(scale)} if isinstance(scale, list) else {"weight": scale}


def _stops(io: Mapping[str, np.ndarray], name: str, most: int | None) -> dict[str, Any]:
    """Of a text: its last target id ends it, at most as many are said as there are places."""
    tensor, wanted = io.get(f"in.{name}.tensor"), ~io.get(f"in.{name}.target_mask", np.ones((1, 1), bool))
    if f"out.{name}.raw_ids" not in io or tensor is None:
        return {}
    return {"stop": int(tensor[0][wanted[0]][-1]), "most": min(int(wanted[0].sum()), most or 256)}


NAMES = (
    "roar_1step",
    "roar_25steps_padding",
    "roar_6steps",
    "roar_known_tokens",
    "maskgit_1_cosine",
    "maskgit_4_cosine",
    "maskgit_4_linear",
    "maskgit_8_cosine",
    "maskgit_8_linear",
    "maskgit_filtered",
    "maskgit_known_tokens",
    "maskgit_noise",
    "maskgit_noise_filtered",
    "ar_infill",
    "ar_longest",
    "ar_noise",
    "ar_noise_filtered",
    "ar_stop_default",
    "ar_stop_sentinel",
    "ar_stop_word",
    "ar_to_the_end",
    "chain3",
    "chain3_guided",
    "chain3_guided_grow",
    "chain_text_first",
    "cfg_ar_1.5",
    "cfg_ar_3.0",
    "cfg_maskgit_1.5",
    "cfg_maskgit_3.0",
    "cfg_negative",
    "cfg_roar_3.0",
    "cfg_roar_all_dropped",
    "cfg_weak_0.5",
    "multi_chain2",
    "multi_maskgit",
    "multi_maskgit_negative",
    "multi_roar_1step",
    "plain_ar",
    "plain_cfg_roar_1step",
    "plain_maskgit_2",
)


def test_no_case_is_left_out(golden):
    assert sorted(one["name"] for one in cases(golden.parents[1])) == sorted([*NAMES, UNLUCKY])


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_each_step(golden, models, name):
    case = next(one for one in cases(golden.parents[1]) if one["name"] == name)
    io, pixels = dict(np.load(golden / f"{name}.npz")), np.load(golden / "rgb_u8.npz")["rgb_u8"]
    model, seen, draws = models[case["weights"]], Seen(), StoredDraws(io)
    targets = targets_of(case, io)
    if case["multi_guided"]:
        pulling = [state_of(model, io, f"in.cond{at}", pixels) for at in range(2)]
        made = compose(model, state_of(model, io, "in.uncond", pixels), pulling, targets, draws, seen)
    else:
        told = case["builder_args"]
        state = state_of(model, io, "in", pixels)
        conditions, grow = told["cond_domains"], told["cfg_grow_conditioning"]
        made = generate(model, state, targets, TEXT, draws, conditions, grow, seen)
    for target in case["targets"]:
        check = _check_text if f"out.{target}.raw_ids" in io else _check_image
        check(io, target, seen.steps[target], 2e-3 if case["weights"] == "scaled" else 5e-4)
        known, used = made.known[target], ~io[f"final.{target}.input_mask"]
        if case["multi_guided"]:  # whose state without conditions has lost it again
            used = np.ones_like(used)
        if name == "ar_stop_word":  # ml-4m keeps what follows a stop that is no sentinel
            used = used[:, : known.used.shape[1]] & known.used.numpy()
            assert known.rows[0][-1] == targets[0].stop
        assert np.array_equal(known.used.numpy(), used)
        assert np.array_equal(known.ids.numpy()[used], io[f"final.{target}.tensor"][:, : used.shape[1]][used])


def _check_image(io: Mapping[str, np.ndarray], target: str, steps: list[Decided], bound: float) -> None:
    assert len(steps) == len(io[f"out.{target}.num_tokens"])
    for number, step in enumerate(steps):
        known = step.guidance.base.known[target]
        written = io[f"out.{target}.step_selected"][number]
        chosen = np.zeros_like(written)
        for row in range(len(chosen)):
            chosen[row, step.places[row][step.chosen[row]]] = True
        assert np.array_equal(chosen, written)
        assert np.array_equal(known.ids.numpy()[written], io[f"out.{target}.step_tokens"][number][written])
        if f"out.{target}.step_conf" in io:
            for field_, own, atol in (("step_conf", step.confidence, 1e-3), ("step_samples", step.ids, 0)):
                stored = np.take_along_axis(io[f"out.{target}.{field_}"][number], step.places.numpy(), axis=1)
                np.testing.assert_allclose(own, stored, atol=atol, rtol=0)
    for which, step in (("first", steps[0]), ("last", steps[-1])):
        stored = io.get(f"out.{target}.logits_{which}")
        if stored is None:  # of a single step
            assert len(steps) == 1
            continue
        for row, places in enumerate(io[f"out.{target}.logits_{which}_pos"]):
            at = [step.places[row].tolist().index(place) for place in places]
            np.testing.assert_allclose(step.logits[row, at], stored[row], atol=bound, rtol=0)


def _check_text(io: Mapping[str, np.ndarray], target: str, steps: list[Said], bound: float) -> None:
    raw = io[f"out.{target}.raw_ids"][:, 1:]
    assert np.array_equal(torch.stack([step.ids for step in steps], dim=1), raw)
    for which, step in (("first", steps[0]), ("last", steps[-1])):
        np.testing.assert_allclose(step.logits, io[f"out.{target}.logits_{which}"], atol=bound, rtol=0)


@torch.inference_mode()
def test_chance_that_decides_nothing(golden, models):
    """torch.multinomial gave the same tokens and places whatever its seed; so do our own draws."""
    case = next(one for one in cases(golden.parents[1]) if one["name"] == UNLUCKY)
    io, pixels = dict(np.load(golden / f"{UNLUCKY}.npz")), np.load(golden / "rgb_u8.npz")["rgb_u8"]
    model, (target,) = models[case["weights"]], case["targets"]
    steps = [Step(one["num_tokens"], one["temperature"]) for one in case["schedule"]]
    state = state_of(model, io, "in", pixels)
    for seed in range(3):
        decided = list(image_steps(model, Guidance(state), target, "maskgit", steps, SeededDraws(seed, state.samples)))
        for number, step in enumerate(decided):
            written = io[f"out.{target}.step_selected"][number]
            now = step.guidance.base.known[target]
            assert np.array_equal(now.ids.numpy()[written], io[f"out.{target}.step_tokens"][number][written])
        assert decided[-1].guidance.base.known[target].used.all()


def test_token_and_temperature_schedules(golden):
    told = json.loads((golden / "schedules.json").read_text())
    for one in told["token_schedules"]:
        names: list[TokenSchedule] = ["linear"] if one.get("cosine_unusable") else ["linear", "cosine"]
        for name in names:
            counts = token_counts(one["n_tokens"], one["steps"], name)
            assert counts == tuple(count for count in one[name] if count)
    for one in told["temperature_schedules"]:
        found = temperatures(one["num_tokens"], one["temp"], one["temp_schedule"])
        np.testing.assert_allclose(found, one["temperature"], rtol=1e-12)


def test_what_filters_leave(golden):
    told, stored = json.loads((golden / "filters.json").read_text()), np.load(golden / "filters.npz")
    sure = [one for one in told["filters"] if not one.get("raises") and not _accident(one)]
    assert len(sure) > 200
    for one in sure:
        logits = torch.from_numpy(stored[f"logits.{one['logits']}"])
        assert np.array_equal(kept(logits, _number(one), one["top_p"]), stored[one["key"]]), one
    logits = torch.from_numpy(stored["sampling.logits"])
    for one in told["sampling"]:
        prefix = f"sampling.{one['index']}"
        chances = probabilities(logits, one["temperature"], _number(one), one["top_p"])
        noise = stored.get(f"{prefix}.noise", 1.0)  # where something is drawn
        ids = (chances.numpy() / noise).argmax(axis=-1)
        assert np.array_equal(ids, stored[f"{prefix}.samples"])
        np.testing.assert_allclose(
            np.take_along_axis(chances.numpy(), ids[..., None], -1)[..., 0], stored[f"{prefix}.probs"], atol=1e-5
        )


def _accident(one: Mapping[str, Any]) -> bool:
    """Rounding decides, or a sort that isn't stable."""
    distance = one["smallest_distance_of_cumulated_probability_to_top_p"]
    return bool(one["top_p"]) and (one["cut_goes_through_equal_logits"] or (distance is not None and distance < 1e-5))


def _number(one: Mapping[str, Any]) -> float:
    return int(one["top_k"]) if one["top_k_type"] == "int" else float(one["top_k"])


def test_merging(golden):
    for one in json.loads((golden / "init.json").read_text())["merges"]:
        assert merged(one["input_ids"], one["generated"], TEXT) == one["merged"]
