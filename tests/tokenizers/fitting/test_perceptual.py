"""The perceptual loss: equal to what transformers' own hidden states give, and a training with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from tokenloom.labelers.contract.kinds import Image, Vector
from tokenloom.labelers.dinov2 import Dinov2
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.networks.preprocessing import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from tokenloom.labelers.networks.state_dicts import seeded
from tokenloom.labelers.siglip import Siglip
from tokenloom.tokenizers.fitting.perceptual import PerceptualLoss, blocks_of, quarters
from tokenloom.tokenizers.fitting.settings import FitSettings, PerceptualSettings
from tokenloom.tokenizers.fitting.training import Training
from tokenloom.tokenizers.vq.base import train
from tokenloom.tokenizers.vq.input_contract import contract_for
from tokenloom.tokenizers.vq.vq import VQParams, VQTokenizer

RESTORE = contract_for(Image(), 28, 28).restored
SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory) -> str:
    """A tiny DINOv2 of 2 blocks and patches of 14 pixels."""
    return str(Dinov2.write_tiny(tmp_path_factory.mktemp("dinov2")))


def pictures(count: int, side: int = 28, seed: int = 0) -> torch.Tensor:
    """As a network gives them: in [-1, 1] and a little beyond."""
    generator = torch.Generator().manual_seed(seed)
    return 2.4 * torch.rand(count, 3, side, side, generator=generator) - 1.2


def loss(weights: str, **settings: Any) -> PerceptualLoss:
    return PerceptualLoss.load(PerceptualSettings(weights=weights, **settings), weights, RESTORE, "cpu")


def write_clip(folder: Path) -> Path:
    """CLIP with its text tower, as it is published."""
    from transformers import CLIPConfig, CLIPModel

    text = {**SIZES, "vocab_size": 64, "max_position_embeddings": 8, "eos_token_id": 1}
    with seeded():
        CLIPModel(
            CLIPConfig(vision_config={**SIZES, "image_size": 32, "patch_size": 16}, text_config=text, projection_dim=16)
        ).save_pretrained(folder)
    return folder


def write_vit(folder: Path) -> Path:
    from transformers import ViTConfig, ViTModel

    with seeded():
        ViTModel(ViTConfig(**SIZES, image_size=32, patch_size=8)).save_pretrained(folder)
    return folder


def write_dinov3(folder: Path) -> Path:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    with seeded():
        DINOv3ViTModel(DINOv3ViTConfig(**SIZES, patch_size=16, num_register_tokens=2)).save_pretrained(folder)
    return folder


# --- the loss ---------------------------------------------------------------------------------------------------------


def by_hand(network: Any, mean: Any, std: Any, states: list[int], *both: torch.Tensor, **options: Any) -> float:
    """From transformers' hidden states, of which 0 is what goes into block 0; for pictures of whole patches."""
    features = []
    for one in both:
        pixels = ((one + 1) / 2 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
        with torch.no_grad():
            features.append(network(pixels, output_hidden_states=True, **options).hidden_states)
    distances = []
    for state in states:
        a, b = (found[state].double().numpy() for found in features)
        cosines = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        distances.append(np.mean(1 - cosines))
    return float(np.mean(distances))


def test_it_is_the_cosine_distance_of_dinov2s_hidden_states(dinov2):
    from transformers import Dinov2Model

    network = Dinov2Model.from_pretrained(dinov2).eval()
    a, b = pictures(3), pictures(3, seed=1)
    expected = [by_hand(network, IMAGENET_MEAN, IMAGENET_STD, states, a, b) for states in ([1, 2], [1], [2])]
    found = [loss(dinov2, blocks=blocks)(a, b).item() for blocks in (None, [0], [1])]
    assert found == pytest.approx(expected, rel=1e-5)
    assert min(found) > 0.01
    assert len(set(found)) == 3


def test_it_is_the_same_of_clip_in_its_own_colours(tmp_path):
    from transformers import CLIPVisionModel

    folder = str(write_clip(tmp_path))
    network = CLIPVisionModel.from_pretrained(folder).eval()
    a, b = pictures(2, 48), pictures(2, 48, seed=1)  # not the 32 pixels of its position embeddings
    expected = by_hand(network, CLIP_MEAN, CLIP_STD, [1, 2, 3], a, b, interpolate_pos_encoding=True)
    assert loss(folder)(a, b).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("write", [Siglip.write_tiny, write_vit, write_dinov3])
def test_other_families(write, tmp_path):
    folder = str(write(tmp_path))
    value = loss(folder)(pictures(2, 24), pictures(2, 24, seed=1))
    assert 0 < value < 2
    assert loss(folder, blocks=[0])(pictures(2, 24), pictures(2, 24, seed=1)) != value


def test_pictures_are_scaled_to_whole_patches(dinov2):
    """Of one colour, which any scaling leaves as it is: 20 pixels are seen as 28, and 29 as 42."""
    measure = loss(dinov2)
    grey, bright = torch.zeros(1, 3, 1, 1), torch.full((1, 3, 1, 1), 0.9)

    def at(side: int) -> float:
        return measure(grey.expand(1, 3, side, side), bright.expand(1, 3, side, side)).item()

    assert at(20) == pytest.approx(at(28), rel=1e-4)
    assert at(29) == pytest.approx(at(42), rel=1e-4)
    assert at(28) != pytest.approx(at(42), rel=1e-4)
    wide = measure(grey.expand(1, 3, 20, 40), bright.expand(1, 3, 20, 40))
    assert 0 < wide < 2


def test_equal_pictures_have_none(dinov2):
    assert loss(dinov2)(pictures(2), pictures(2)).item() == pytest.approx(0, abs=1e-6)


def test_a_batch_is_the_mean_of_its_pictures(dinov2):
    measure, a, b = loss(dinov2), pictures(4), pictures(4, seed=1)
    each = [measure(a[i : i + 1], b[i : i + 1]).item() for i in range(4)]
    assert measure(a, b).item() == pytest.approx(np.mean(each), rel=1e-5)


def test_gradients_flow_to_the_prediction_alone(dinov2):
    measure = loss(dinov2)
    prediction, target = pictures(2).requires_grad_(), pictures(2, seed=1).requires_grad_()
    measure(prediction, target).backward()
    assert prediction.grad is not None
    assert prediction.grad.abs().sum() > 0
    assert target.grad is None
    assert not measure._network.training
    assert all(not weight.requires_grad and weight.grad is None for weight in measure._network.parameters())


def test_half_precision_ends_in_float32(dinov2):
    measure, a, b = loss(dinov2), pictures(2), pictures(2, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        half = measure(a.bfloat16(), b)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(measure(a, b).item(), rel=0.05)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_blocks_end_the_quarters_of_the_depth():
    assert [quarters(depth) for depth in (1, 2, 3, 12, 24)] == [
        (0,), (0, 1), (0, 1, 2), (2, 5, 8, 11), (5, 11, 17, 23)
    ]  # fmt: skip


def test_a_block_that_isnt_there_is_named(dinov2):
    with pytest.raises(ValueError, match=r"no block 2 in .*; it has 0 to 1"):
        loss(dinov2, blocks=[0, 2])
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        PerceptualSettings(weights=dinov2, blocks=(-1,))


def test_the_usual_depth_is_transformers_own(tmp_path):
    """Configs leave out what is as usual."""
    from transformers import CLIPVisionConfig, Dinov2Config, DINOv3ViTConfig, SiglipVisionConfig, ViTConfig

    for config in (CLIPVisionConfig, Dinov2Config, DINOv3ViTConfig, SiglipVisionConfig, ViTConfig):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": config.model_type}))
        usual = quarters(config().num_hidden_layers)
        assert blocks_of(PerceptualSettings(weights=str(tmp_path)), str(tmp_path)) == usual


def test_other_checkpoints_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match=r"of 'bert'; .* dinov2, .*clip"):
        loss(str(tmp_path))


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        (Image(1, "float32", "intensity"), {}, "perceptual: .* kind image with intensity in 1 channels: leave it out"),
        (Image(1), {}, "with colour in 1 channels"),
        (Image(1, content="classes", classes=5), {}, "with classes in 1 channels"),
        (Vector(8), {}, "of the kind vector: leave it out"),
        (Image(), {"decoder": "unet_xt"}, "the decoder unet_xt learns to denoise"),
    ],
)
def test_labels_that_arent_pictures_and_denoisers_are_refused(dinov2, kind, params, message):
    tokenizer = VQTokenizer(kind, VQParams(**params))
    tokenizer.check_settings()
    tokenizer.settings = FitSettings(perceptual=PerceptualSettings(weights=dinov2))
    with pytest.raises(ValueError, match=message):
        tokenizer.design(np.zeros((4, 16, 16, 3), np.uint8), 0)


# --- training with it -------------------------------------------------------------------------------------------------


def tokenizer_for(weights: str | None, weight: float = 1.0, steps: int = 8, **settings: Any) -> VQTokenizer:
    tokenizer = VQTokenizer(
        Image(), VQParams(encoder="vit_xt_enc", decoder="vit_xt_dec", codes=16, patch_size=4, latent=8)
    )
    perceptual = PerceptualSettings(weights=weights, weight=weight) if weights else None
    tokenizer.settings = FitSettings(steps=steps, batch_size=8, learning_rate=2e-3, perceptual=perceptual, **settings)
    return tokenizer


def examples(count: int = 24) -> np.ndarray:
    """Gradients of colour, uint8 (count, 16, 16, 3)."""
    corners = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3)).astype(np.float32)
    across = np.linspace(0, 1, 16, dtype=np.float32)
    weights = np.stack([1 - across, across])
    return np.einsum("nhwc,hy,wx->nyxc", corners, weights, weights).astype(np.uint8)


def training(tokenizer: VQTokenizer) -> Training:
    network = tokenizer.design(examples(), 0)
    return Training(
        network,
        tokenizer.objective,
        examples(),
        tokenizer.to_batch,
        tokenizer.settings,
        0,
        perceptual=tokenizer.perceptual_loss(),
    )


def test_it_goes_on_bit_by_bit_the_same(dinov2):
    straight = training(tokenizer_for(dinov2))
    expected = [straight.advance() for _ in range(8)]
    first = training(tokenizer_for(dinov2))
    for _ in range(3):
        first.advance()
    stored = save(first.state())
    torch.manual_seed(12345)  # whatever another process would have there
    second = training(tokenizer_for(dinov2))
    second.restore(load(stored))
    assert [second.advance().parts for _ in range(5)] == [figures.parts for figures in expected[3:]]
    ends = straight.state(), second.state()
    assert ends[0].keys() == ends[1].keys() == load(stored).keys()  # nothing of the frozen network is among them
    assert not any("perceptual" in name or "position_embeddings" in name for name in ends[0])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    with pytest.raises(ValueError, match="other losses: last differ"):
        training(tokenizer_for(None)).restore(load(stored))


@pytest.mark.slow
def test_the_loss_is_made_smaller_and_shown(dinov2):
    seen = []
    tokenizer = tokenizer_for(dinov2, weight=2.0, steps=40)
    train(tokenizer, examples(), 0, seen.append)
    assert list(seen[0].parts) == ["reconstruction", "quantizer", "perceptual"]
    assert seen[-1].loss == pytest.approx(sum(seen[-1].parts.values()))
    assert seen[-1].to_json()["perceptual_loss"] == seen[-1].parts["perceptual"]
    assert tokenizer.facts["perceptual_loss"] == pytest.approx(seen[-1].parts["perceptual"])
    assert tokenizer.facts["settings"]["perceptual"]["weight"] == 2.0
    lighter = []
    train(tokenizer_for(dinov2, weight=1e-3, steps=40), examples(), 0, lighter.append)
    assert seen[0].parts["perceptual"] == pytest.approx(2e3 * lighter[0].parts["perceptual"])
    with_it, without = (np.mean([figures.parts["perceptual"] for figures in of[-20:]]) for of in (seen, lighter))
    assert with_it < 0.8 * 2e3 * without
    assert seen[0].gradient_norm != lighter[0].gradient_norm
    again = VQTokenizer.from_files(Image(), tokenizer.to_files())  # which needs no weights of the loss
    assert np.array_equal(again.encode(list(examples(2)))[1], tokenizer.encode(list(examples(2)))[1])


def test_without_it_nothing_changes():
    one = tokenizer_for(None)
    train(one, examples(), 0)
    assert "perceptual_loss" not in one.facts
    assert "perceptual" not in one.facts["settings"]


def test_settings_and_loss_come_together(dinov2):
    tokenizer = tokenizer_for(dinov2)
    network = tokenizer.design(examples(), 0)
    with pytest.raises(ValueError, match="perceptual loss is to be given where the settings have one"):
        Training(network, tokenizer.objective, examples(), tokenizer.to_batch, tokenizer.settings, 0)
