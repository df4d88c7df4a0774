"""Sizes on paper: the published counts, and what the network really does and keeps."""

from __future__ import annotations

import pytest
import torch
from modalities_4m import MODALITIES_4M21
from tokenloom.training.model.config import SIZES, ModalityConfig, ModelConfig
from tokenloom.training.model.fourm import FourM
from tokenloom.training.model.sizes import Paper, Step, evenly, of_all_sizes, on_paper, table
from tokenloom.training.model.start import initialise

STEP = Step(batch_size=32, input_tokens=256, target_tokens=256)


@pytest.fixture(scope="module")
def papers() -> dict[str, Paper]:
    return of_all_sizes(MODALITIES_4M21, STEP)


def test_parameters_are_those_that_are_published(papers):
    """B, L and XL are named by their counts without embeddings; of tiny the reference's with 4M-21's was counted."""
    millions = {name: one.network / 1e6 for name, one in papers.items()}
    assert millions["B"] == pytest.approx(198, abs=1)
    assert millions["L"] == pytest.approx(705, abs=2)
    assert millions["XL"] == pytest.approx(2800, abs=30)
    assert papers["tiny"].parameters / 1e6 == pytest.approx(237, abs=1)


def test_operations_are_six_a_parameter_and_token_and_attention(papers):
    """Each parameter of the network is multiplied with the tokens of its side, forward once and backward twice."""
    for name, one in papers.items():
        dim, depth = SIZES[name].dim, SIZES[name].encoder_depth
        attention = 3 * depth * 3 * 4 * dim * 256 * 256  # of three sorts, scores and sums
        heads = 6 * sum(dim * one.vocabulary for one in MODALITIES_4M21 if one.is_target) * 256 / 17  # on the average
        assert one.flops_per_token * 512 == pytest.approx(6 * one.network * 256 + attention + heads, rel=0.1), name


def test_memory_falls_with_the_world_and_with_what_is_sharded(papers):
    for one in papers.values():
        assert one.memory("no_shard", 1) == 18 * one.parameters + one.activations
        assert one.memory("full_shard", 64) < one.memory("full_shard", 8) < one.memory("no_shard", 8)
        assert one.memory("full_shard", 8) < one.memory("shard_grad_op", 8)
    less = on_paper(ModelConfig.of_size("B", MODALITIES_4M21), Step(32, 256, 256, checkpointing=True))
    assert less.activations < papers["B"].activations / 2
    assert papers["B"].tokens_per_second() == pytest.approx(0.5 * 989.4e12 / papers["B"].flops_per_token)


@pytest.mark.parametrize("more", [{}, {"qk_norm": True, "num_register_tokens": 4}])
def test_activations_are_what_the_network_keeps(more):
    modalities = (
        ModalityConfig("depth", "grid", 196, 64, grid=(14, 14)),
        ModalityConfig("caption", "text", 256, 64),
    )
    config = ModelConfig(modalities, 256, 2, 2, 4, **more)
    step = Step(1, 128, 128)
    model = initialise(FourM(config))
    weights = {one.data_ptr() for one in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    held: list[torch.Tensor] = []  # so that no memory is given to a second one
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = model(evenly(config, step)).sum()
    total.backward()
    assert on_paper(config, step).activations == pytest.approx(sum(kept.values()) / 2, rel=0.1)


def test_tokens_are_shared_out_to_the_last():
    config = ModelConfig.of_size("tiny", MODALITIES_4M21)
    for tokens in (1, 16, 17, 256, 1000):
        sides = evenly(config, Step(1, tokens, tokens))
        assert sum(sides.inputs.counts) == sum(sides.targets.counts) == tokens


def test_the_table_has_a_row_for_every_size(papers):
    headings, rows = table(papers)
    assert [row[0] for row in rows] == ["tiny", "small", "B", "L", "XL"]
    assert all(len(row) == len(headings) for row in rows)
    assert rows[2][2] == "199 M"
