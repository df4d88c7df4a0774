"""Poses of people as tokens: ml-4m's spelling, clamps, what is lost, and both ways of making pose codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenloom.labelers.contract.instances import InstanceSet
from tokenloom.labelers.contract.kinds import Instances
from tokenloom.labelers.contract.poses import ATTRIBUTES, nearest_rotations
from tokenloom.labelers.networks.hub import CheckpointError
from tokenloom.labelers.people.crops import full_camera, squares
from tokenloom.tokenizers.contract.vocabulary import Vocabulary
from tokenloom.tokenizers.fitting.settings import FitSettings
from tokenloom.tokenizers.instances.human_poses import HumanPosesTokenizer, HumanPosesVQParams, HumanPosesVQTokenizer
from tokenloom.tokenizers.instances.pose_text import HumanPosesParams, PosesText, Scale
from tokenloom.tokenizers.measures.measures import rotation_angles

PUBLIC = Path(__file__).parents[4] / "shared/golden/text_tokenizer_4m_wordpiece_30k.json"
VOCABULARY = Vocabulary.train(["people"])
KIND = Instances(scores=True, attributes=ATTRIBUTES["smpl"], pose="smpl")
TINY: dict[str, Any] = {"encoder": "BottleneckMLP/B_1-Wi_32", "decoder": "BottleneckMLP/B_1-Wi_32", "codes": 600}


def people(seed: int, count: int, spread: float = 0.3) -> InstanceSet:
    generator = np.random.Generator(np.random.PCG64(seed))
    corners = np.sort(generator.random((count, 2, 2)), axis=1).reshape(count, 4)
    turned = np.eye(3) + spread * generator.standard_normal((count, 24, 3, 3))
    rotations = nearest_rotations(turned.astype(np.float32))
    pred_cam = generator.uniform(0.5, 1, (count, 3)).astype(np.float32)
    centres, sides = squares(corners)
    attributes = {
        "global_orient": rotations[:, 0],
        "body_pose": rotations[:, 1:],
        "betas": generator.uniform(-3, 3, (count, 10)).astype(np.float32),
        "pred_cam": pred_cam,
        "camera": full_camera(pred_cam, centres, sides, 224, 224).astype(np.float32),
    }
    scores = generator.random(count).astype(np.float32)
    return InstanceSet(corners.astype(np.float32), ["human"] * count, scores, attributes=attributes)


def changed(label: InstanceSet, **attributes: Any) -> InstanceSet:
    new = {name: np.asarray(values, np.float32) for name, values in attributes.items()}
    return InstanceSet(label.boxes, label.labels, label.scores, attributes={**label.attributes, **new})


@pytest.fixture(scope="module")
def by_means() -> HumanPosesTokenizer:
    tokenizer = HumanPosesTokenizer(KIND)
    tokenizer.use_vocabulary(VOCABULARY)
    tokenizer.fit((people(seed, 10) for seed in range(30)), 0)
    return tokenizer


@pytest.fixture(scope="module")
def by_network() -> HumanPosesVQTokenizer:
    tokenizer = HumanPosesVQTokenizer(KIND, HumanPosesVQParams(**TINY))
    tokenizer.use_vocabulary(VOCABULARY)
    tokenizer.settings = FitSettings(steps=3, batch_size=8)
    tokenizer.fit((people(seed, seed % 3) for seed in range(20)), 0)
    return tokenizer


@pytest.fixture(params=["by_means", "by_network"])
def tokenizer(request) -> PosesText:
    return request.getfixturevalue(request.param)


def test_people_are_read_back(tokenizer):
    labels = [people(1000 + seed, seed) for seed in range(4)]
    tokens = tokenizer.encode(labels)
    for label, ids in zip(labels, tokens, strict=True):
        assert len(ids) == max(1, 39 * len(label))
        assert ids.dtype == tokenizer.spec.dtype
        read, faults = tokenizer.parse(ids)
        assert faults == []
        assert read.attributes.keys() == KIND.attributes.keys()
        problem = read.problem(False, False, False, KIND.attributes)
        assert problem is None
        np.testing.assert_allclose(read.boxes, label.boxes, atol=0.5 / 999 + 1e-6)
        np.testing.assert_allclose(read.attributes["betas"], label.attributes["betas"], atol=3 / 999 + 1e-6)
        np.testing.assert_allclose(read.attributes["pred_cam"], label.attributes["pred_cam"], atol=10 / 999 + 1e-6)
        angles = rotation_angles(read.attributes["global_orient"], label.attributes["global_orient"])
        assert angles.max(initial=0) < 0.2
        body = read.attributes["body_pose"]
        np.testing.assert_allclose(body @ body.swapaxes(-1, -2), np.broadcast_to(np.eye(3), body.shape), atol=1e-5)
        np.testing.assert_array_equal(tokenizer.decode([ids])[0].boxes, read.boxes)
    again = type(tokenizer).from_files(KIND, tokenizer.to_files())
    assert again.to_files() == tokenizer.to_files()
    for ids, same in zip(tokens, again.encode(labels), strict=True):
        np.testing.assert_array_equal(ids, same)


def test_the_camera_is_worked_out_from_box_and_pred_cam(by_means):
    label = changed(people(0, 1), pred_cam=[[0.9, 0.1, -0.05]])
    label = InstanceSet(
        np.array([[0.2, 0.1, 0.6, 0.9]], np.float32), ["human"], label.scores, attributes=label.attributes
    )
    wanted = full_camera(label.attributes["pred_cam"], *squares(label.boxes * 224.0), 224, 224)
    (read,) = by_means.decode(by_means.encode([label]))
    np.testing.assert_allclose(read.attributes["camera"], wanted, rtol=0.02, atol=0.02)


def test_numbers_outside_their_range_take_its_ends(tokenizer):
    """Where ml-4m writes v0=1003, which is no token."""
    wild = changed(people(0, 1), betas=[[9, -9, 3, -3, 0, 0, 0, 0, 0, 0]], pred_cam=[[-5, 40, 19]])
    turned = changed(wild, global_orient=1.01 * wild.attributes["global_orient"])
    (ids,) = tokenizer.encode([turned])
    read, faults = tokenizer.parse(ids)
    assert faults == []
    np.testing.assert_allclose(read.attributes["betas"][0, :4], [3, -3, 3, -3], atol=1e-6)
    np.testing.assert_allclose(read.attributes["pred_cam"], [[-1, 19, 19]], atol=1e-5)


def test_the_scales_are_those_of_4m():
    for scale, factor, shift in (
        (Scale(-1, 1), 499.5, 499.5),
        (Scale(-3, 3), 166.5, 499.5),
        (Scale(-1, 19), 49.95, 49.95),
    ):
        numbers = np.linspace(scale.low, scale.high, 7777)
        off = np.abs(scale.steps(numbers) - (factor * numbers + shift))
        assert off.max() <= 0.5 + 1e-9


def test_the_public_spelling():
    if not PUBLIC.exists():
        pytest.skip("the public 4M vocabulary isn't beside this checkout (../shared/golden)")
    tokenizer = HumanPosesTokenizer(KIND)
    tokenizer.use_vocabulary(Vocabulary.from_bytes(PUBLIC.read_bytes()))
    tokenizer.fit([], 0)
    label = changed(
        people(0, 1),
        body_pose=np.tile(np.eye(3), (1, 23, 1, 1)),
        global_orient=[np.diag([1, -1, -1])],
        betas=[[0, 3, -3, 1, 0, 0, 0, 0, 0, 0]],
        pred_cam=[[1, 0, -1]],
    )
    label = InstanceSet(np.array([[0, 0.5, 0.25, 1]], np.float32), ["human"], label.scores, attributes=label.attributes)
    text = "human v0=0 v1=500 v2=250 v3=999 pose " + "v0=0 " * 8
    text += "global v0=999 v0=500 v0=500 v0=500 v0=0 v0=500 v0=500 v0=500 v0=0 camera v0=100 v0=50 v0=0 "
    text += "shape v0=500 v0=999 v0=0 v0=666 " + "v0=500 " * 6
    (ids,) = tokenizer.encode([label])
    assert [tokenizer.vocabulary.token(index) for index in ids] == text.split()
    assert ids.tolist() == tokenizer.vocabulary._tokenizer.encode(text).ids
    assert tokenizer.encode([people(0, 0)])[0].tolist() == [18109]


def test_codes_from_512_on_use_the_other_axis(by_network):
    (ids,) = by_network.encode([people(5, 1)])
    at = ids.tolist().index(VOCABULARY.word("pose")) + 1
    low, high = np.full(8, 204 + 5), np.full(8, 1204 + 5)
    poses = []
    for codes in (low, high):
        changed_ids = np.concatenate([ids[:at], codes.astype(ids.dtype), ids[at + 8 :]])
        read, faults = by_network.parse(changed_ids)
        assert faults == []
        poses.append(read.attributes["body_pose"])
    assert np.abs(poses[0] - poses[1]).max() > 1e-4
    beyond = np.concatenate([ids[:at], np.full(8, 1204 + 100).astype(ids.dtype), ids[at + 8 :]])
    read, faults = by_network.parse(beyond)  # 612, of 600 codes
    assert len(read) == 0
    assert "no whole pose" in faults[-1]


def test_parts_may_come_in_any_order(tokenizer):
    (ids,) = tokenizer.encode([people(3, 1)])
    box, pose, turn, camera, shape = np.split(ids, [5, 14, 24, 28])
    mixed = np.concatenate([box, shape, camera, pose, turn])
    assert tokenizer.parse(mixed) == tokenizer.parse(ids)


def test_people_past_the_length_are_left_out_whole(by_means):
    short = HumanPosesTokenizer.from_files(KIND, by_means.to_files())
    short.params = HumanPosesParams(max_length=100)
    label = people(0, 5)
    (ids,) = short.encode([label])
    assert len(ids) == 78
    np.testing.assert_allclose(short.decode([ids])[0].boxes, label.boxes[:2], atol=0.5 / 999 + 1e-6)


def test_whoever_is_not_whole_is_left_out_and_named(tokenizer):
    (ids,) = tokenizer.encode([people(0, 3)])
    read, faults = tokenizer.parse(ids[:-1])
    assert len(read) == 2
    assert any("person 3 is left out: there is no whole shape" in fault for fault in faults)
    without_box = np.concatenate([ids[:39], ids[39:40], ids[44:]])
    read, faults = tokenizer.parse(without_box)
    assert len(read) == 2
    assert "person 2 has no box" in faults


def test_nobody_is_none(tokenizer):
    (ids,) = tokenizer.encode([people(0, 0)])
    assert ids.tolist() == [VOCABULARY.word("none")]
    read, faults = tokenizer.parse(ids)
    assert (len(read), faults) == (0, [])


def test_labels_that_are_not_their_kind_s_are_named(tokenizer):
    good = people(0, 2)
    broken = good.attributes["betas"].copy()
    broken[1, 3] = np.nan
    with pytest.raises(ValueError, match="attribute betas: 1 of 20 numbers are NaN or infinite"):
        tokenizer.encode([changed(good, betas=broken)])
    with pytest.raises(ValueError, match=r"attribute body_pose: shape \(2, 22, 3, 3\), not \(2, 23, 3, 3\)"):
        tokenizer.encode([changed(good, body_pose=good.attributes["body_pose"][:, 1:])])
    with pytest.raises(ValueError, match="there are the attributes"):
        tokenizer.encode([InstanceSet(good.boxes, good.labels, good.scores)])
    with pytest.raises(ValueError, match="is for SMPL poses; the labels have pose = None"):
        type(tokenizer)(Instances())


def test_a_sample_of_nobody():
    means = HumanPosesTokenizer(KIND)
    means.use_vocabulary(VOCABULARY)
    with pytest.raises(RuntimeError, match="isn't fitted yet"):
        means.encode([people(0, 1)])
    means.fit([people(0, 0)], 0)
    assert means.facts == {"codes": 1, "sample": 0, "loss": {"joint_angle": 0.0}}
    (read,) = means.decode(means.encode([people(0, 1)]))
    np.testing.assert_allclose(read.attributes["body_pose"], np.tile(np.eye(3), (1, 23, 1, 1)), atol=1e-6)
    with pytest.raises(ValueError, match="sample holds nothing"):
        HumanPosesVQTokenizer(KIND).fit([people(0, 0)], 0)


def test_fitted_codes_hold_poses(by_means):
    """Poses close to a few prototypes come back close to them, and the stated loss is what the sample shows."""
    facts = json.loads(by_means.to_files()["config.json"])["fit"]
    assert facts["sample"] == 300
    labels = [people(seed, 10) for seed in range(30)]
    means = HumanPosesTokenizer(KIND, HumanPosesParams(max_length=390))
    means.use_vocabulary(VOCABULARY)
    means.fit(labels, 0)
    decoded = means.decode(means.encode(labels))
    pairs = zip(decoded, labels, strict=True)
    angles = [rotation_angles(one.attributes["body_pose"], other.attributes["body_pose"]) for one, other in pairs]
    assert np.mean(angles) == pytest.approx(facts["loss"]["joint_angle"], rel=1e-6)
    still = np.broadcast_to(np.eye(3), labels[0].attributes["body_pose"].shape)
    assert np.mean(angles) < 0.8 * np.mean([rotation_angles(one.attributes["body_pose"], still) for one in labels])


def test_files_of_the_other_tokenizer_are_refused(by_means, by_network):
    with pytest.raises(ValueError, match="made for the tokenizer HumanPosesTokenizer"):
        HumanPosesVQTokenizer.from_files(KIND, by_means.to_files())
    with pytest.raises(ValueError, match="made for the tokenizer HumanPosesVQTokenizer"):
        HumanPosesTokenizer.from_files(KIND, by_network.to_files())


def test_published_weights_are_taken(by_network, tmp_path):
    for name, content in by_network.to_files().items():
        if name == "config.json":
            config = {key: value for key, value in json.loads(content).items() if key not in ("tokenizer", "contract")}
            content = json.dumps(config).encode()
        (tmp_path / name).write_bytes(content)
    source = "EPFL-VILAB/4M_tokenizers_human-poses_1k_8"
    loaded = HumanPosesVQTokenizer.from_weights(KIND, None, tmp_path, source)
    assert isinstance(loaded, HumanPosesVQTokenizer)
    loaded.use_vocabulary(VOCABULARY)
    label = people(7, 2)
    np.testing.assert_array_equal(loaded.encode([label])[0], by_network.encode([label])[0])
    with pytest.raises(ValueError, match="for colour images"):
        HumanPosesVQTokenizer.from_weights(KIND, None, tmp_path, "EPFL-VILAB/4M_tokenizers_rgb_16k_224-448")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_codebooks": 4}))
    with pytest.raises(CheckpointError, match=r"quantize\.codes"):
        HumanPosesVQTokenizer.from_weights(KIND, None, tmp_path, source)
