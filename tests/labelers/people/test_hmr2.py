import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenloom.labelers.contract.poses import rotations_from_6d
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.people.hmr2 import Backbone, Hmr2, SmplHead, build
from tokenloom.labelers.people.hmr2_converter import PREFIXES


@pytest.fixture(scope="module")
def golden(shared):
    return shared / "golden" / "hmr2"


@pytest.fixture(scope="module")
def tensors(golden):
    """Of a tiny HMR2.0, less what isn't the network's."""
    return {
        name: tensor for name, tensor in load_file(golden / "model.safetensors").items() if name.startswith(PREFIXES)
    }


@pytest.fixture(scope="module")
def network(tensors):
    return build(tensors, "golden", backbone_heads=4, head_heads=4)


def test_equals_the_reference(golden, network):
    io = np.load(golden / "io.npz")
    crops = torch.from_numpy(io["image"])
    with torch.inference_mode():
        features = network.backbone(crops[:, :, :, 32:-32])
        pose, betas, camera = network(crops)
    rotations = rotations_from_6d(pose.numpy().reshape(-1, 24, 6))
    np.testing.assert_allclose(features.numpy(), io["backbone_features"], atol=3e-4)
    np.testing.assert_allclose(rotations[:, :1], io["global_orient"], atol=1e-4)
    np.testing.assert_allclose(rotations[:, 1:], io["body_pose"], atol=1e-4)
    np.testing.assert_allclose(betas.numpy(), io["betas"], atol=1e-4)
    np.testing.assert_allclose(camera.numpy(), io["pred_cam"], atol=1e-4)


def test_the_head_keeps_float32_under_autocast(network):
    seen = {}
    layers = {"backbone": network.backbone.blocks[0].mlp["fc1"], "head": network.smpl_head.decpose}
    hooks = [
        layer.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.dtype}))
        for name, layer in layers.items()
    ]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        network(torch.zeros(1, 3, 256, 256))
    for hook in hooks:
        hook.remove()
    assert seen == {"backbone": torch.bfloat16, "head": torch.float32}


def test_another_networks_tensors_are_refused(tensors):
    with pytest.raises(CheckpointError, match=r"elsewhere: has no backbone\.last_norm\.weight"):
        build({"backbone.pos_embed": torch.zeros(1)}, "elsewhere")
    with pytest.raises(CheckpointError, match=r"can't be split into HMR2\.0's 7 and 4 heads"):
        build(tensors, "golden", backbone_heads=7, head_heads=4)
    short = {name: tensor for name, tensor in tensors.items() if name != "smpl_head.init_betas"}
    with pytest.raises(CheckpointError, match=r"lacks smpl_head\.init_betas"):
        build(short, "golden", 4, 4)
    with pytest.raises(CheckpointError, match=r"unknown backbone\.cls_token"):
        build({**tensors, "backbone.cls_token": torch.zeros(1, 1, 64)}, "golden", 4, 4)
    wide = {**tensors, "smpl_head.decpose.weight": torch.zeros(147, 96)}
    with pytest.raises(CheckpointError, match=r"decpose\.weight of shape \(147, 96\), not \(144, 96\)"):
        build(wide, "golden", 4, 4)


def test_the_published_networks_sizes():
    """4D-Humans' ViT-H and head; without numbers, which would fill 2.7 GB."""
    with torch.device("meta"):
        network = Hmr2(Backbone(1280, 32, 16, 5120), SmplHead(1024, 6, 8, 512, 1024, 1280))
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes["backbone.pos_embed"] == (1, 193, 1280)
    assert shapes["backbone.blocks.31.attn.qkv.weight"] == (3840, 1280)
    assert shapes["smpl_head.transformer.transformer.layers.5.1.fn.to_kv.weight"] == (1024, 1280)
    assert shapes["smpl_head.decpose.weight"] == (144, 1024)
    counts = [sum(p.numel() for p in part.parameters()) for part in (network.backbone, network.smpl_head)]
    assert [round(count / 1e6, 1) for count in counts] == [630.9, 39.5]
