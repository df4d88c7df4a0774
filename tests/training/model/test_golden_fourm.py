"""The network gives what ml-4m's gives, on the stored numbers of two small ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from fourm import golden_config, modality_tensors, selected
from safetensors.torch import load_file
from tokenloom.training.model.fourm import FourM
from tokenloom.training.model.losses import LossType, loss_weights
from tokenloom.training.model.tokens import Sides


@dataclass(frozen=True)
class Case:
    told: Mapping
    io: Mapping[str, np.ndarray]
    model: FourM
    sides: Sides

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.io[name])


@pytest.fixture(
    scope="module", params=["fourm/io", "fourm/io_empty_target", "fourm_tied/io", "fourm_tied/io_empty_target"]
)
def case(request, shared) -> Case:
    folder, _, name = request.param.partition("/")
    folder = shared / "golden" / folder
    told, config = json.loads((folder / "config.json").read_text()), golden_config(folder)
    io = dict(np.load(folder / f"{name}.npz"))
    model = FourM(config).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    lengths = told["num_encoder_tokens"], told["num_decoder_tokens"]
    orders = told["encoder_modality_order"], told["decoder_modality_order"]
    return Case(told, io, model, selected(config, modality_tensors(io, config.names), *orders, lengths))


def test_what_is_selected(case):
    numbers = torch.tensor([case.told["modalities"][name]["id"] for name in case.model.config.names] + [-1])
    for side, prefix in ((case.sides.inputs, "encoder"), (case.sides.targets, "decoder")):
        assert torch.equal(~side.used, case.tensor(f"{prefix}_mask"))
        assert torch.equal(numbers[side.modality], case.tensor(f"{prefix}_mod_mask").long())
    ids = torch.zeros_like(case.tensor("target_ids"))
    ids.view(-1)[case.sides.labels.order] = case.sides.labels.ids
    assert torch.equal(ids, case.tensor("target_ids"))
    both = case.sides.targets.used[:, None, :] & case.sides.targets.used[:, :, None]
    blocked = ~case.sides.targets.self_attention_mask[:, 0]
    assert torch.equal(blocked[both], case.tensor("decoder_self_attention_mask")[both])


@torch.inference_mode()
def test_embeddings_outputs_and_losses(case):
    model, sides = case.model, case.sides
    for made, prefix in (
        (model.embed_inputs(sides.inputs, sides.arrays), "encoder"),
        (model.embed_targets(sides.targets), "decoder"),
    ):
        for own, name in zip(made, ("tokens", "emb"), strict=True):
            torch.testing.assert_close(own, case.tensor(f"{prefix}_{name}"), atol=1e-5, rtol=0)
    encoded = model.encode(sides.inputs, sides.arrays)
    used, context = sides.inputs.used, model.context(encoded)
    torch.testing.assert_close(encoded.output[used], case.tensor("encoder_output")[used], atol=5e-4, rtol=0)
    torch.testing.assert_close(context[used], case.tensor("context")[used], atol=5e-4, rtol=0)
    decoded, used = model.decode(sides.targets, context, encoded.used), sides.targets.used
    torch.testing.assert_close(decoded[used], case.tensor("decoder_output")[used], atol=5e-4, rtol=0)
    counts = dict(zip(model.config.names, sides.labels.counts, strict=True))
    for name, rows in model.logits(decoded, sides.labels):
        assert len(rows) == counts[name]
        if counts[name]:
            torch.testing.assert_close(rows, case.tensor(f"logits.{name}"), atol=5e-4, rtol=0)
    sums = model(sides)
    said = sides.labels.said(model.config)
    for one, total, count in zip(model.config.targets, sums, said, strict=True):
        assert abs(total / max(count, 1) - case.tensor(f"loss.{one.name}")) < 1e-4
    kinds: tuple[tuple[LossType, str], ...] = ("mod", "loss"), ("token", "loss_token")
    for loss_type, name in kinds:
        weights = loss_weights(model.config, said, loss_type)
        assert abs(weights @ sums - case.tensor(name)) < 1e-4
