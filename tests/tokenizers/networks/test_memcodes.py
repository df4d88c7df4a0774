"""Memcodes: the key of the highest score, a grid for each head, codes and values that learn."""

from __future__ import annotations

import numpy as np
import torch
from tokenloom.tokenizers.networks.memcodes import Memcodes


def test_memcodes_choose_the_key_of_highest_score() -> None:
    torch.manual_seed(0)
    quantizer, latents = Memcodes(20, 12, heads=3), torch.randn(4, 12, 2, 1)
    tokens = quantizer.tokenize(latents)
    keys = torch.einsum("hkd,hdc->hkc", quantizer.codes, quantizer.to_k.weight)
    values = torch.einsum("hkd,hdc->hkc", quantizer.codes, quantizer.to_v.weight)
    for sample, head, row in np.ndindex(4, 3, 2):
        part = latents[sample, 4 * head : 4 * head + 4, row, 0]
        assert tokens[sample, head, row, 0] == (keys[head] @ part).argmax()
        code = quantizer.embed(tokens)[sample, 4 * head : 4 * head + 4, row, 0]
        torch.testing.assert_close(code, values[head, tokens[sample, head, row, 0]])


def test_memcodes_of_one_head_give_a_grid() -> None:
    quantizer = Memcodes(5, 4, heads=1).eval()
    tokens = quantizer.tokenize(torch.randn(2, 4, 3, 2))
    assert tokens.shape == (2, 3, 2)
    assert quantizer.embed(tokens).shape == (2, 4, 3, 2)


def test_memcodes_train_by_samples_of_the_softmax() -> None:
    torch.manual_seed(0)
    quantizer = Memcodes(4, 3, heads=1).train()
    latent = torch.randn(1, 3, 1, 1)
    scores = (quantizer.codes @ quantizer.to_k.weight)[0] @ latent.flatten() / 3**0.5
    codes, tokens, loss = quantizer(latent.expand(1, 3, 100, 200))
    shares = tokens.flatten().bincount(minlength=4) / 20_000
    torch.testing.assert_close(shares, scores.softmax(0), rtol=0, atol=0.02)
    torch.testing.assert_close(codes, quantizer.embed(tokens), rtol=0, atol=1e-5)
    assert loss == 0


def test_memcodes_learn_codes_keys_and_values() -> None:
    torch.manual_seed(0)
    quantizer = Memcodes(16, 6, heads=2).train()
    latents = torch.randn(8, 6, 1, 1, requires_grad=True)
    goal = torch.randn(8, 6, 1, 1)
    optimiser = torch.optim.Adam([*quantizer.parameters(), latents], lr=0.1)
    losses = []
    for _ in range(120):
        loss = (quantizer(latents).codes - goal).square().mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        for parameter in (latents, quantizer.codes, quantizer.to_k.weight, quantizer.to_v.weight):
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0
        optimiser.step()
    assert np.mean(losses[-20:]) < 0.4 * np.mean(losses[:5])
