"""Reconstruction without quantisation: with nothing between encoder and decoder, label by label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenloom.labelers.contract.instances import InstanceSet, Mask
from tokenloom.labelers.contract.kinds import FeatureMap, Image, Instances, Vector
from tokenloom.labelers.contract.poses import ATTRIBUTES, nearest_rotations
from tokenloom.tokenizers.instances.human_poses import HumanPosesVQParams, HumanPosesVQTokenizer
from tokenloom.tokenizers.instances.instances import InstancesVQParams, InstancesVQTokenizer
from tokenloom.tokenizers.instances.unquantised import reconstruct_unquantised
from tokenloom.tokenizers.vq.base import TrainedTokenizer
from tokenloom.tokenizers.vq.vq import VQParams, VQTokenizer

VIT = {"encoder": "vit_xt_enc", "decoder": "vit_xt_dec", "codes": 16}
MLP = {"encoder": "BottleneckMLP/B_2-Wi_32", "decoder": "BottleneckMLP/B_2-Wi_32", "codes": 16}


def designed(tokenizer: TrainedTokenizer, labels: list) -> TrainedTokenizer:
    """The tokenizer with a network whose weights nobody has trained."""
    network = tokenizer.design(np.concatenate([tokenizer.examples(label) for label in labels]), 0)
    tokenizer.finish(network, {})
    return tokenizer


def by_hand(tokenizer: TrainedTokenizer, examples: np.ndarray) -> list[np.ndarray]:
    batch = tokenizer.to_batch(examples)
    return tokenizer.contract.from_network(
        tokenizer.network.reconstruct_unquantised(batch, torch.Generator().manual_seed(0))
    )


def pictures(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3)).astype(np.uint8))


@pytest.mark.parametrize("quantizer", ["cosine", "fsq", "residual"])
def test_images_are_what_the_decoder_makes_of_latents(quantizer):
    labels = pictures(3)
    params = {**VIT, "patch_size": 4, "quantizer": quantizer, "codes": 256 if quantizer == "fsq" else 16}
    tokenizer = designed(VQTokenizer(Image(3), VQParams.model_validate(params)), labels)
    found = reconstruct_unquantised(tokenizer, labels)
    decoded = tokenizer.decode(tokenizer.encode(labels))
    assert [(one.shape, one.dtype) for one in found] == [(one.shape, one.dtype) for one in decoded]
    np.testing.assert_array_equal(np.stack(found), np.stack(by_hand(tokenizer, np.stack(labels))))
    assert not np.array_equal(np.stack(found), np.stack(decoded))


def test_features_and_vectors_keep_their_shapes():
    rng = np.random.default_rng(1)
    maps = list(rng.normal(size=(3, 8, 4, 4)).astype(np.float16))
    vectors = list(rng.normal(size=(3, 24)).astype(np.float32))
    of_maps = designed(VQTokenizer(FeatureMap(8, 4, 4), VQParams.model_validate(VIT)), maps)
    of_vectors = designed(VQTokenizer(Vector(24), VQParams.model_validate({**MLP, "latent": 32, "tokens": 4})), vectors)
    assert [one.shape for one in reconstruct_unquantised(of_maps, maps)] == [(8, 4, 4)] * 3
    assert [one.shape for one in reconstruct_unquantised(of_vectors, vectors)] == [(24,)] * 3
    assert reconstruct_unquantised(of_maps, []) == []


def masks_of(count: int) -> InstanceSet:
    boxes = np.array([[0.1 * place, 0, 0.1 * place + 0.5, 0.8] for place in range(count)], np.float32).reshape(-1, 4)
    frames = np.random.default_rng(count).random((count, 40, 40)) > 0.5
    return InstanceSet(boxes, ["thing"] * count, masks=[Mask.from_array(frame) for frame in frames])


def test_masks_come_back_to_their_instances():
    """Those of a label depend on it alone, and its boxes stay; without instances there is nothing to do."""
    labels = [masks_of(2), masks_of(0), masks_of(3)]
    params = InstancesVQParams.model_validate({**VIT, "frame": 40})
    tokenizer = designed(InstancesVQTokenizer(Instances(masks=True), params), labels)
    found = reconstruct_unquantised(tokenizer, labels)
    assert [len(one) for one in found] == [2, 0, 3]
    for label, one in zip(labels, found, strict=True):
        np.testing.assert_array_equal(one.boxes, label.boxes)
        assert one == reconstruct_unquantised(tokenizer, [label])[0]
        for box, mask in zip(one.boxes, one.masks or (), strict=True):
            rows, columns = np.nonzero(mask.to_array())
            assert (mask.height, mask.width) == (40, 40)
            assert ((columns >= 40 * box[0] - 1) & (columns <= 40 * box[2] + 1) & (rows <= 40 * box[3] + 1)).all()


def test_poses_come_back_to_their_people():
    def people(count: int) -> InstanceSet:
        rng = np.random.default_rng(count)
        shapes = ATTRIBUTES["smpl"]
        attributes = {name: rng.normal(size=(count, *shape)).astype(np.float32) for name, shape in shapes.items()}
        attributes["body_pose"] = nearest_rotations(attributes["body_pose"])
        boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (count, 1))
        return InstanceSet(boxes, ["person"] * count, attributes=attributes)

    labels = [people(1), people(0), people(2)]
    kind = Instances(attributes=ATTRIBUTES["smpl"], pose="smpl")
    tokenizer = designed(HumanPosesVQTokenizer(kind, HumanPosesVQParams.model_validate(MLP)), labels)
    found = reconstruct_unquantised(tokenizer, labels)
    assert [one.attributes["body_pose"].shape for one in found] == [(n, 23, 3, 3) for n in (1, 0, 2)]
    expected = by_hand(tokenizer, labels[2].attributes["body_pose"])
    np.testing.assert_allclose(found[2].attributes["body_pose"], np.array(expected).reshape(2, 23, 3, 3), atol=1e-5)
    np.testing.assert_array_equal(found[2].attributes["betas"], labels[2].attributes["betas"])
