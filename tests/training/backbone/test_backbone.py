"""The backbone's features are those of the model's encoder."""

from __future__ import annotations

import pytest
import torch
from tokenloom.training.backbone.backbone import Backbone
from tokenloom.training.model.config import ModalityConfig, ModelConfig
from tokenloom.training.model.fourm import FourM
from tokenloom.training.model.start import initialise
from tokenloom.training.model.tokens import Tokens


@torch.inference_mode()
def test_features_of_a_picture_are_what_the_encoder_gives():
    torch.manual_seed(0)
    pixels = ModalityConfig("pixels", "pixels", 6, grid=(2, 3), is_target=False)
    words = ModalityConfig("caption", "text", 8, 20)
    config = ModelConfig((words, pixels), 32, 3, 1, 2, num_register_tokens=2)
    model = initialise(FourM(config)).eval()
    backbone, x = Backbone(model), torch.randn(2, 3, 32, 48)
    places = torch.arange(6).expand(2, -1)
    tokens = Tokens.of(config, torch.full_like(places, -1), places, torch.ones_like(places))
    expected = model.encode(tokens, {"pixels": x.permute(0, 2, 3, 1)}).output
    features = backbone.forward_features(x)
    torch.testing.assert_close(features, expected, rtol=0, atol=0)
    torch.testing.assert_close(backbone(x), expected[:, 2:].mean(dim=1))
    assert backbone.num_features == 32
    last, blocks = backbone.forward_intermediates(x, [0, -1], norm=True)
    assert [tuple(one.shape) for one in blocks] == [(2, 32, 2, 3)] * 2
    torch.testing.assert_close(blocks[1].flatten(2).transpose(1, 2), last[:, 2:])
    assert not torch.equal(blocks[0], blocks[1])
    assert len(backbone.forward_intermediates(x, 1)[1]) == 1
    with pytest.raises(ValueError, match=r"pictures are of \(32, 32\) pixels"):
        backbone(x[..., :32])
    with pytest.raises(ValueError, match="takes no pixels"):
        Backbone(FourM(ModelConfig((words,), 32, 1, 1, 2)))
