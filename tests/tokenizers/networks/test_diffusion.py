"""The diffusion decoder: the UNet against diffusers' own, sampling against the formulas of its papers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenloom.tokenizers.networks.diffusion import noise_scheduler, noised, sample
from tokenloom.tokenizers.networks.unet import PatchedUNet
from tokenloom.tokenizers.networks.vq_checkpoint import read_published
from tokenloom.tokenizers.networks.vq_config import UNetSize, VQConfig
from tokenloom.tokenizers.networks.vq_network import DiVAE, build

TINY = VQConfig(enc_type="vit_xt_enc", dec_type="unet_xt", image_size=32, codebook_size=16, latent_dim=8, n_channels=1)


def tiny(**changes: Any) -> VQConfig:
    return VQConfig(**{**TINY.model_dump(), **changes})


# --- the UNet ---------------------------------------------------------------------------------------------------------

SIZE = UNetSize(channels=32, multipliers=(1, 2, 2), blocks=2, attention=(2,))

RES_BLOCK = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def counterpart_names() -> dict[str, str]:
    """Names of our modules, and what diffusers' UNet2DModel calls the same module."""
    modules = {"middle_block.0": "mid_block.resnets.0", "middle_block.1": "mid_block.attentions.0"}
    modules["middle_block.2"] = "mid_block.resnets.1"
    place = 1
    for level in range(3):
        for block in range(2):
            modules[f"input_blocks.{place}.0"] = f"down_blocks.{level}.resnets.{block}"
            modules[f"input_blocks.{place}.1"] = f"down_blocks.{level}.attentions.{block}"
            place += 1
        modules[f"input_blocks.{place}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
        place += 1
    for level in range(3):
        for block in range(3):
            place = 3 * level + block
            modules[f"output_blocks.{place}.0"] = f"up_blocks.{level}.resnets.{block}"
            modules[f"output_blocks.{place}.1"] = f"up_blocks.{level}.attentions.{block}"
            modules[f"output_blocks.{place}.{1 + (level == 1)}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
    return modules


def to_diffusers(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    modules, renamed = counterpart_names(), {}
    for name, tensor in state.items():
        stem, _, kind = name.rpartition(".")
        if stem in ENDS or stem in modules:
            renamed[f"{ENDS.get(stem) or modules[stem]}.{kind}"] = tensor
            continue
        block = next(block for block in modules if stem.startswith(f"{block}."))
        inside, target = stem.removeprefix(f"{block}."), modules[block]
        if inside == "qkv":
            for part, piece in zip(("to_q", "to_k", "to_v"), tensor.chunk(3), strict=True):
                renamed[f"{target}.{part}.{kind}"] = piece.flatten(1) if kind == "weight" else piece
        elif inside == "proj_out":
            renamed[f"{target}.to_out.0.{kind}"] = tensor.flatten(1) if kind == "weight" else tensor
        else:
            renamed[f"{target}.{RES_BLOCK.get(inside, 'group_norm')}.{kind}"] = tensor
    return renamed


@pytest.mark.slow
@torch.no_grad()
def test_the_unet_is_diffusers_s_on_patches() -> None:
    from diffusers.models.unets.unet_2d import UNet2DModel

    torch.manual_seed(0)
    ours = PatchedUNet(channels=2, condition=5, size=SIZE)
    for parameter in ours.parameters():
        parameter.normal_(std=0.08)
    theirs = UNet2DModel(
        in_channels=2 * 16 + 5,
        out_channels=2 * 16,
        block_out_channels=(32, 64, 64),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=64,
    )
    theirs.load_state_dict(to_diffusers(ours.state_dict()))
    images, condition, times = torch.randn(2, 2, 32, 48), torch.randn(2, 5, 2, 3), torch.tensor([3, 981])

    patches = images.reshape(2, 2, 8, 4, 12, 4).permute(0, 1, 3, 5, 2, 4).reshape(2, 32, 8, 12)
    enlarged = condition.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    expected = theirs(torch.cat([patches, enlarged], dim=1), times).sample
    expected = expected.reshape(2, 2, 4, 4, 8, 12).permute(0, 1, 4, 2, 5, 3).reshape(2, 2, 32, 48)
    assert expected.std() > 0.01
    torch.testing.assert_close(ours(images, times, condition), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_untrained_unet_predicts_zero() -> None:
    unet = PatchedUNet(channels=1, condition=4, size=UNetSize(32, (1, 2), 1, ()))
    assert not unet(torch.randn(1, 1, 16, 16), torch.tensor([5]), torch.randn(1, 4, 1, 1)).any()


# --- the diffusion ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_the_last_timestep_is_pure_noise(schedule: str) -> None:
    scheduler = noise_scheduler(tiny(beta_schedule=schedule))
    signal = scheduler.alphas_cumprod
    assert signal[-1] == 0
    assert (signal.diff() < 0).all()
    assert signal[0] > 0.99


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction", "epsilon"])
def test_targets_are_what_the_noised_images_lack(prediction_type: str) -> None:
    config = tiny(prediction_type=prediction_type, zero_terminal_snr=prediction_type != "epsilon")
    scheduler = noise_scheduler(config)
    clean = torch.randn(64, 1, 8, 8)
    images, times, target = noised(scheduler, clean, torch.Generator().manual_seed(1))
    signal = scheduler.alphas_cumprod[times][:, None, None, None].sqrt()
    noise = (1 - signal**2).sqrt()
    if prediction_type == "sample":
        assert torch.equal(target, clean)
    elif prediction_type == "v_prediction":
        torch.testing.assert_close(signal * images - noise * target, clean)
    else:
        torch.testing.assert_close(signal * clean + noise * target, images)
    assert len(times.unique()) > 32
    assert 0 <= times.min() <= times.max() <= 999
    again = noised(scheduler, clean, torch.Generator().manual_seed(1))
    assert torch.equal(again[0], images)
    assert torch.equal(again[1], times)


@pytest.mark.parametrize("prediction_type", ["sample", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 3, 25])
def test_who_knows_the_image_samples_it(prediction_type: str, steps: int) -> None:
    scheduler = noise_scheduler(tiny(prediction_type=prediction_type))
    clean, start = torch.rand(2, 1, 8, 8), torch.randn(2, 1, 8, 8)

    def denoise(images: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        if prediction_type == "sample":
            return clean
        signal = scheduler.alphas_cumprod[times][:, None, None, None].sqrt()
        return (signal * images - clean) / (1 - signal**2).sqrt()

    torch.testing.assert_close(sample(scheduler, denoise, start, steps), clean, rtol=0, atol=2e-5)


@pytest.mark.parametrize("clip", [False, True])
def test_sampling_is_ddim(clip: bool) -> None:
    """Against formula 12 of arXiv 2010.02502 in float64, with betas made free of signal as arXiv 2305.08891 does."""
    betas = np.linspace(1e-4, 0.02, 1000)
    roots = np.sqrt(np.cumprod(1 - betas))
    roots = (roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])
    start = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    def denoise(images: Any, time: Any) -> Any:
        return 0.9 * images + time / 1000 - 0.4

    images, seen = start.double().numpy(), []
    for time, before in ((999, 749), (749, 499), (499, 249), (249, None)):
        clean = denoise(images, time)
        clean = clean.clip(-1, 1) if clip else clean
        noise = (images - roots[time] * denoise(images, time)) / np.sqrt(1 - roots[time] ** 2)
        root = 1.0 if before is None else roots[before]
        images = root * clean + np.sqrt(1 - root**2) * noise

    def watched(images: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        seen.append(times.tolist())
        return denoise(images, times.view(-1, 1, 1, 1))

    sampled = sample(noise_scheduler(tiny(clip_sample=clip)), watched, start, 4)
    assert seen == [[999], [749], [499], [249]]
    np.testing.assert_allclose(sampled.numpy(), images, rtol=1e-4, atol=1e-4)


def test_predicting_noise_from_noise_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="epsilon can't sample with zero_terminal_snr"):
        tiny(prediction_type="epsilon")


# --- the network ------------------------------------------------------------------------------------------------------


def test_the_reference_s_diffusion_network(shared: Path) -> None:
    """Its UNet is as it starts, and predicts zero: the steps' results are zero too, whatever the noise."""
    _, _, network = read_published(shared / "golden/vq/depth_divae")
    expected = {name: torch.from_numpy(a) for name, a in np.load(shared / "golden/vq/depth_divae/io.npz").items()}
    assert torch.equal(network.tokenize(expected["x"]), expected["tokens"])
    with torch.no_grad():
        torch.testing.assert_close(network.latents(expected["x"]), expected["latent"], rtol=0, atol=1e-5)
    decoded = network.decode_tokens(expected["tokens"], torch.Generator().manual_seed(5), steps=3)
    torch.testing.assert_close(decoded, expected["recon"], rtol=0, atol=1e-5)


@pytest.fixture
def trained_a_little() -> DiVAE:
    torch.manual_seed(0)
    network = build(tiny(image_size=16))
    assert isinstance(network, DiVAE)
    torch.nn.init.normal_(network.get_parameter("decoder.out.2.weight"), std=0.1)
    return network


def test_decoding_is_a_function_of_tokens_and_noise(trained_a_little: DiVAE) -> None:
    tokens = torch.randint(16, (2, 1, 2))
    network = trained_a_little.eval()
    first, again, other = (network.decode_tokens(tokens, torch.Generator().manual_seed(s), steps=2) for s in (1, 1, 2))
    assert first.shape == (2, 1, 16, 32)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_training_pass_reaches_encoder_and_decoder(trained_a_little: DiVAE) -> None:
    x = torch.randn(4, 1, 16, 16)
    network = trained_a_little.train()
    torch.nn.init.normal_(network.get_parameter("decoder.input_blocks.1.0.out_layers.3.weight"), std=0.1)
    output = network(x, torch.Generator().manual_seed(0))
    assert torch.equal(output.target, x)
    assert output.prediction.shape == x.shape
    (output.prediction - output.target).square().mean().backward()
    for name in ("encoder.proj.weight", "quant_proj.weight", "decoder.input_blocks.0.0.weight"):
        gradient = network.get_parameter(name).grad
        assert gradient is not None, name
        assert gradient.abs().sum() > 0, name


def test_tokenising_needs_no_diffusers_and_decoding_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "diffusers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    network = build(tiny()).eval()
    tokens = network.tokenize(torch.zeros(1, 1, 32, 32))
    with pytest.raises(ModuleNotFoundError, match=r"diffusers"):
        network.decode_tokens(tokens)
