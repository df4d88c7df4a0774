"""The linear start: a fresh network is principal components, whose codes are k-means."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenloom.labelers.contract.kinds import Image
from tokenloom.tokenizers.codebooks.kmeans import kmeans
from tokenloom.tokenizers.fitting.linear_start import components_of, start_codes, start_linear, takes_linear_start
from tokenloom.tokenizers.networks.vq_config import VQConfig
from tokenloom.tokenizers.networks.vq_network import VQVAE, build
from tokenloom.tokenizers.vq.vq import VQParams, VQTokenizer

CONFIG = VQConfig(
    image_size=32,
    patch_size=4,
    enc_type="vit_xt_enc",
    dec_type="vit_xt_dec",
    post_mlp=True,
    codebook_size=64,
    latent_dim=12,
    norm_codes=False,
    kmeans_init=True,
)


def waves(count: int = 24, channels: int = 3, size: int = 32) -> torch.Tensor:
    """Smooth pictures in about [-1, 1], float32 (count, channels, size, size)."""
    rng = np.random.default_rng(0)
    at = np.linspace(0, 2 * np.pi, size)
    phases = rng.uniform(0, 6.28, (count, channels, 1, 1))
    rows, columns = rng.uniform(0, 3, (2, count, channels, 1, 1))
    return torch.from_numpy(np.sin(rows * at[:, None] + columns * at + phases).astype(np.float32))


def started(config: VQConfig = CONFIG, images: torch.Tensor | None = None, gain: float = 1, offset: float = 0) -> VQVAE:
    torch.manual_seed(0)
    network = build(config)
    assert isinstance(network, VQVAE)
    start_linear(network, waves().split(7) if images is None else [images], gain, offset)
    return network.eval()


def restored_by_components(images: torch.Tensor, patch: int, number: int) -> np.ndarray:
    """What scikit-learn's PCA of patches restores, (count, channels, size, size)."""
    from sklearn.decomposition import PCA

    count, channels, size, _ = images.shape
    cells = size // patch
    patches = images.numpy().reshape(count, channels, cells, patch, cells, patch).transpose(0, 2, 4, 1, 3, 5)
    rows = patches.reshape(count * cells**2, -1)
    pca = PCA(number).fit(rows)
    back = pca.inverse_transform(pca.transform(rows)).reshape(patches.shape)
    return back.transpose(0, 3, 1, 4, 2, 5).reshape(images.shape)


@pytest.mark.slow
def test_without_codes_the_network_restores_what_pca_does():
    images = waves()
    restored = started().reconstruct_unquantised(images)
    np.testing.assert_allclose(restored, restored_by_components(images, 4, 12), atol=2e-4)


def test_feature_maps_are_their_own_cells():
    features = waves(channels=40, size=8)
    config = CONFIG.model_copy(update={"n_channels": 40, "patch_proj": False, "patch_size": 1, "image_size": 8})
    restored = started(config, features).reconstruct_unquantised(features)
    np.testing.assert_allclose(restored, restored_by_components(features, 1, 12), atol=2e-4)


def test_latents_do_not_tell_where_a_cell_is():
    tile = waves(1, size=4).repeat(1, 1, 8, 8)
    latents = started().latents(tile).flatten(2)
    torch.testing.assert_close(latents, latents[:, :, :1].expand_as(latents), atol=2e-4, rtol=0)


@pytest.mark.parametrize("quantizer", ["lucid", "fsq"])
def test_latents_have_unit_variance(quantizer):
    fsq = {"quant_type": "fsq", "levels": (8, 6, 5), "codebook_size": 240, "latent_dim": 3, "kmeans_init": False}
    config = VQConfig.model_validate({**CONFIG.model_dump(), **(fsq if quantizer == "fsq" else {})})
    variances = started(config).latents(waves()).detach().transpose(0, 1).flatten(1).var(1)
    assert variances.mean().item() == pytest.approx(1, rel=0.01)
    if quantizer == "fsq":
        torch.testing.assert_close(variances, torch.ones(3), atol=0.01, rtol=0)


def test_the_first_codes_are_those_of_k_means():
    images, network = waves(), started()
    network.train()(images)
    restored = network.eval().decode_tokens(network.tokenize(images))
    rows = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1).numpy()
    assert (restored - images).square().sum().item() < 1.2 * kmeans(rows, 64, seed=0).objective[-1]


@pytest.mark.parametrize(
    "change", [{}, {"norm_codes": True}, {"quant_type": "residual", "num_codebooks": 2, "codebook_size": 16}]
)
def test_codes_start_as_k_means_of_many_latents(change):
    images, network = waves(96), started(CONFIG.model_copy(update=change))
    start_codes(network, images.split(13), latents_at_once=640, seed=0)
    books = network.quantize.ema_codebooks
    assert all(book.initted and book.cluster_size.sum().item() == pytest.approx(640) for book in books)
    latents = network.latents(images).detach()
    if change.get("norm_codes"):
        latents = torch.nn.functional.normalize(latents, dim=1)
    codes = network.tokens_to_embedding(network.tokenize(images))
    rows = latents.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    clusters = kmeans(rows, len(books[0].embed), seed=1, spherical=books[0].cosine)
    assert (codes - latents).square().sum().item() < 1.05 * clusters.objective[-1]


def test_there_may_be_more_codes_than_latents():
    image, network = waves(1), started(CONFIG.model_copy(update={"codebook_size": 100}))
    start_codes(network, [image], latents_at_once=64, seed=0)
    (book,) = network.quantize.ema_codebooks
    assert not book.cluster_size[64:].any()
    assert network.tokenize(image).max() < 64
    torch.testing.assert_close(network.tokens_to_embedding(network.tokenize(image)), network.latents(image).detach())


def test_gain_and_offset_are_of_the_output():
    images = waves()
    plain, scaled = (
        started().reconstruct_unquantised(images),
        started(gain=8, offset=-4).reconstruct_unquantised(images),
    )
    torch.testing.assert_close(scaled, 8 * plain - 4, atol=2e-3, rtol=0)


def test_blocks_learn_from_the_first_step():
    network = started().train()
    output = network(waves())
    (output.prediction - output.target).square().mean().backward()
    names = [name for name, _ in network.named_parameters() if name.endswith("attn.proj.weight")]
    assert len(names) == 4
    for name in names:
        gradient = network.get_parameter(name).grad
        assert gradient is not None
        assert gradient.abs().max() > 0


def test_latents_without_a_component_begin_at_zero_and_can_learn():
    config = CONFIG.model_copy(update={"n_channels": 1, "patch_size": 2, "latent_dim": 9})
    images = waves(channels=1)
    network = started(config, images).train()
    assert not network.latents(images)[:, 4:].any()
    assert network.latents(images)[:, :4].all(dim=1).any()
    output = network(images)
    (output.prediction - output.target).square().mean().backward()
    gradient = network.quant_proj.weight.grad
    assert gradient is not None
    assert gradient[4:].any(dim=1).all()


def test_any_seed_will_do():
    tokenizer = VQTokenizer(Image(), VQParams(encoder="vit_xt_enc", decoder="vit_xt_dec", codes=4, patch_size=8))
    network = tokenizer.design(np.zeros((2, 16, 16, 3), np.uint8), -1)
    assert network.quantize.ema_codebooks[0].initted


def test_constant_images_are_no_obstacle():
    network = started(images=torch.full((3, 3, 32, 32), 0.25))
    restored = network.reconstruct_unquantised(torch.full((1, 3, 32, 32), 0.25))
    torch.testing.assert_close(restored, torch.full_like(restored, 0.25), atol=1e-3, rtol=0)


def test_components_of_more_patches_than_one_batch_are_the_same():
    whole, parts = components_of([waves()], 4, 5), components_of(waves().split(5), 4, 5)
    torch.testing.assert_close(whole.variances, parts.variances)
    torch.testing.assert_close((whole.directions.T @ parts.directions).abs(), torch.eye(5), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("change", "takes"),
    [
        ({}, True),
        ({"n_labels": 5, "n_channels": 8}, False),
        ({"enc_type": "BottleneckMLP/B_1-Wi_16", "dec_type": "BottleneckMLP/B_1-Wi_16"}, False),
    ],
)
def test_only_vits_on_numbers_start_linear(change, takes):
    assert takes_linear_start(build(VQConfig.model_validate({**CONFIG.model_dump(), **change}))) is takes
