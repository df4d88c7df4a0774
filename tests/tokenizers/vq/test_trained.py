"""What all trained tokenizers share with whoever trains them: design, batches, finish, devices, licences."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from tokenloom.labelers.contract.kinds import FeatureMap, Image, Text
from tokenloom.tokenizers.text.wordpiece import WordPiece
from tokenloom.tokenizers.vq.base import DECODED_AT_ONCE, ENCODED_AT_ONCE, TrainedTokenizer
from tokenloom.tokenizers.vq.vq import VQParams, VQTokenizer

TINY = VQParams(encoder="vit_xt_enc", decoder="vit_xt_dec", codes=16)


def images(count: int, side: int = 16) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(0)).integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def test_a_design_is_a_function_of_sample_and_seed():
    examples = images(4)
    networks = []
    for seed in (1, 1, 2):
        torch.rand(3)
        before = torch.get_rng_state()
        networks.append(VQTokenizer(Image(), TINY).design(examples, seed).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(networks[0][name], networks[1][name]) for name in networks[0])
    assert not all(torch.equal(networks[0][name], networks[2][name]) for name in networks[0])


def test_a_design_takes_a_memory_map(tmp_path):
    features = np.random.Generator(np.random.PCG64(0)).standard_normal((70, 6, 2, 2)).astype(np.float16)
    np.save(tmp_path / "examples.npy", features)
    mapped = np.load(tmp_path / "examples.npy", mmap_mode="r")
    one, other = VQTokenizer(FeatureMap(6, 2, 2), TINY), VQTokenizer(FeatureMap(6, 2, 2), TINY)
    one.design(features, 0)
    other.design(mapped, 0)
    assert one.contract == other.contract
    assert torch.equal(one.to_batch(features[:3]), other.to_batch(np.asarray(mapped[:3])))


def test_finish_gives_a_network_that_is_ready_for_use():
    tokenizer = VQTokenizer(Image(), TINY)
    network = tokenizer.design(images(4), 0).train()
    tokenizer.finish(network, {"steps": 7})
    assert not tokenizer.network.training
    assert not any(weight.requires_grad for weight in tokenizer.network.parameters())
    assert tokenizer.facts == {"steps": 7}
    assert not tokenizer.needs_fit


def test_many_labels_go_through_in_parts():
    tokenizer = VQTokenizer(Image(), TINY)
    examples = images(max(ENCODED_AT_ONCE, DECODED_AT_ONCE) + 3)
    tokenizer.finish(tokenizer.design(examples, 0), {})
    seen = []
    tokenizer.network.encoder.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    tokens = tokenizer.encode(list(examples))
    assert seen == [ENCODED_AT_ONCE, 3]
    assert len(tokens) == len(tokenizer.decode(tokens)) == len(examples)
    np.testing.assert_array_equal(tokens[-1], tokenizer.encode([examples[-1]])[0])


def test_a_network_moves_to_where_it_is_wanted(monkeypatch):
    tokenizer = VQTokenizer(Image(), TINY)
    network, moves = tokenizer.design(images(4), 0), []
    monkeypatch.setattr(network, "to", lambda device: moves.append(device) or network)
    tokenizer.finish(network, {})
    tokenizer.use_device("cuda:1")
    tokenizer.finish(network, {})
    assert moves == ["cpu", "cuda:1", "cuda:1"]
    WordPiece(Text()).use_device("cuda:1")  # there is nothing to move


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_labels_of_the_same_kind():
    tokenizer = VQTokenizer(Image(), TINY)
    examples = images(4)
    tokenizer.finish(tokenizer.design(examples, 0), {})
    on_cpu = tokenizer.encode(list(examples))
    tokenizer.use_device("cuda")
    on_gpu = tokenizer.encode(list(examples))
    assert np.mean(np.stack(on_cpu) == np.stack(on_gpu)) > 0.9
    for label in tokenizer.decode(on_gpu):
        Image().check(label)
    assert VQTokenizer.from_files(Image(), tokenizer.to_files()).facts == {}


def test_published_weights_have_their_licence():
    weights = TrainedTokenizer.weights
    assert weights.licence_of("EPFL-VILAB/4M_tokenizers_rgb_16k_224-448") == "LicenseRef-Apple-sample-code"
    assert weights.licence_of("/models/4M_tokenizers_depth_8k_224-448") == "LicenseRef-Apple-sample-code"
    assert weights.licence_of("/models/mine") == "unknown"


@pytest.mark.slow
def test_tokenizer_classes_do_not_load_torch():
    code = (
        "import sys; import tokenloom.tokenizers.vq.vq; import tokenloom.tokenizers.instances.instances;"
        "import tokenloom.tokenizers.instances.human_poses;"
        "sys.exit(1 if 'torch' in sys.modules else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
