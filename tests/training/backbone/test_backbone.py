"""The backbone's features are those of the model's encoder."""

from __future__ import annotations

from typing import Any

import pytest
import timm.models
import torch
from pages import ROOT, blocks
from tokenloom.labelers.contract.views import ViewSettings
from tokenloom.training.backbone.backbone import Backbone
from tokenloom.training.forms.given import photo
from tokenloom.training.model.checkpoint import write_model
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
    for wrong in (0, 4, [3], [-4], []):
        with pytest.raises(ValueError, match="indices: "):
            backbone.forward_intermediates(x, wrong)
    with pytest.raises(ValueError, match=r"pictures are of \(32, 32\) pixels"):
        backbone(x[..., :32])
    with pytest.raises(ValueError, match="takes no pixels; it takes caption"):
        Backbone(FourM(ModelConfig((words,), 32, 1, 1, 2)))


@torch.inference_mode()
def test_features_come_as_from_a_transformer_of_timm():
    """Shapes, order and names are those of timm's with as many blocks and registers."""
    theirs = timm.models.VisionTransformer(
        img_size=32,
        embed_dim=32,
        depth=3,
        num_heads=2,
        reg_tokens=2,
        class_token=False,
        num_classes=0,
        global_pool="avg",
    ).eval()
    ours, x = Backbone(initialise(FourM(_pictured(2)))).eval(), torch.randn(2, 3, 32, 32)
    assert ours.feature_info == [{**one, "module": f"model.encoder.{at}"} for at, one in enumerate(theirs.feature_info)]
    for name in ("num_features", "num_prefix_tokens", "head_hidden_size", "embed_dim", "num_classes"):
        assert getattr(ours, name) == getattr(theirs, name)
    manners: list[dict[str, Any]] = [{}, {"output_fmt": "NLC", "norm": True}, {"return_prefix_tokens": True}]
    for indices in (None, 2, [-1, 0]):
        for more in manners:
            both: list[Any] = [
                one.forward_intermediates(x, indices, intermediates_only=True, **more) for one in (ours, theirs)
            ]
            flat = [
                [part.shape for one in made for part in (one if isinstance(one, tuple) else [one])] for made in both
            ]
            assert flat[0] == flat[1]
    first, _ = ours.forward_intermediates(x, [-1, 0], intermediates_only=True)
    assert torch.equal(first, ours.forward_intermediates(x, [0], intermediates_only=True)[0])
    assert ours(x).shape == theirs(x).shape


def test_the_example_of_the_documentation_runs(photos, tmp_path, monkeypatch):
    (code,) = [block.text for block in blocks(ROOT / "docs/training.md") if block.file == "backbone.py"]
    model = initialise(FourM(_pictured()))
    write_model(model.config, model.state_dict(), tmp_path / "my-model/model")
    (tmp_path / "photo.jpg").write_bytes(photos["chelsea"])
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/training.md", "exec"), found := {})
    assert found["features"].shape == (1, 4, 32)
    assert found["pooled"].shape == (1, 32)
    assert [one.shape for one in found["maps"]] == [(1, 32, 2, 2)] * 2
    view = torch.tensor(photo("photo.jpg", ViewSettings(size=32))).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(found["backbone"].pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))
    assert (found["picture"][0] * std + mean - view).abs().mean() < 0.03  # PIL and OpenCV scale differently


def _pictured(registers: int = 0) -> ModelConfig:
    pixels = ModalityConfig("pixels", "pixels", 4, grid=(2, 2), is_target=False)
    return ModelConfig((ModalityConfig("caption", "text", 8, 20), pixels), 32, 3, 1, 2, num_register_tokens=registers)
