"""Labelers that see the same things in every image: boxes, masks and people, without any network."""

from __future__ import annotations

import numpy as np
from tokenloom import Batch, Instances, Labeler, Modality, Record
from tokenloom.labelers.contract.instances import InstanceSet, Mask
from tokenloom.labelers.contract.poses import ATTRIBUTES


class Boxes(Labeler):
    """A person in the left half and a dog in the right; nothing in images whose key ends in 0."""

    makes = (Modality("det", Instances(scores=True)),)
    on = "image"

    def label(self, batch: Batch):
        boxes = np.array([[0.05, 0.1, 0.45, 0.9], [0.6, 0.5, 0.9, 0.8]], np.float32)
        seen = InstanceSet(boxes, ("person", "dog"), np.array([0.9, 0.7], np.float32))
        return {"det": [seen.take([]) if key.endswith("0") else seen for key in batch.keys]}


class BoxesOfViews(Boxes):
    """The same of each view."""

    on = "view"


class Discs(Labeler):
    """Two discs, and a disc with a speck beside it; nothing in images whose key ends in 0."""

    makes = (Modality("sam_instance", Instances(masks=True)),)
    on = "image"

    def label(self, batch: Batch):
        assert batch.images is not None
        counts = [0 if key.endswith("0") else 3 for key in batch.keys]
        sizes = [(image.shape[0], image.shape[1]) for image in batch.images]
        return {"sam_instance": [_discs(*size, count) for size, count in zip(sizes, counts, strict=True)]}


def _discs(height: int, width: int, count: int) -> InstanceSet:
    rows, columns = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    drawn = [
        (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        for x, y, radius in ((0.5, 0.5, 0.4), (0.3, 0.4, 0.15), (0.6, 0.6, 0.2))[:count]
    ]
    for mask in drawn[2:]:
        mask |= (rows - 0.25) ** 2 + (columns - 0.75) ** 2 < 0.05**2
    boxes = [[columns[mask].min(), rows[mask].min(), columns[mask].max(), rows[mask].max()] for mask in drawn]
    masks = [Mask.from_array(mask) for mask in drawn]
    return InstanceSet(np.array(boxes, np.float32).reshape(-1, 4), ["object"] * count, masks=masks)


class People(Labeler):
    """Two people, the second with a shape past what words can say; nobody in images whose key ends in 0."""

    makes = (Modality("human_poses", Instances(attributes=ATTRIBUTES["smpl"], pose="smpl")),)
    on = "image"

    def label(self, batch: Batch):
        rng = np.random.default_rng(5)
        turns = np.linalg.qr(rng.standard_normal((2, 24, 3, 3)))[0].astype(np.float32)
        attributes = {
            "global_orient": turns[:, 0],
            "body_pose": turns[:, 1:],
            "betas": np.array([[0.5] * 10, [4.0] * 10], np.float32),
            "pred_cam": np.array([[1, 0, 0], [0.5, 0.25, 0]], np.float32),
            "camera": np.array([[0, 0, 9], [1, 0, 9]], np.float32),
        }
        boxes = np.array([[0.25, 0.25, 0.5, 0.75], [0.5, 0.1, 1, 1]], np.float32)
        people = InstanceSet(boxes, ["human"] * 2, attributes=attributes)
        return {"human_poses": [people.take([]) if key.endswith("0") else people for key in batch.keys]}


class Facts(Labeler):
    """A record of everything that JSON has."""

    makes = (Modality("facts", Record(("name", "size", "tags"))),)
    on = "image"

    def label(self, batch: Batch):
        facts = {"name": "a photo", "size": -12.5, "tags": ["sea", [1, None, True], {"a": {}}]}
        return {"facts": [facts for _ in batch.keys]}
