"""Human poses as numbers: which attributes they have, and how a crop and a mirror change them.

SMPL (Loper et al. 2015) has 24 joints: the pelvis, whose rotation is `global_orient`, and 23 more, whose rotations
relative to their parents are `body_pose`. COCO has 17 keypoints. All functions work on arrays of N people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np

from .crops import crop_points
from .views import View

Pose: TypeAlias = Literal["smpl", "coco17"]

ATTRIBUTES: dict[Pose, dict[str, tuple[int, ...]]] = {
    "smpl": {"global_orient": (3, 3), "body_pose": (23, 3, 3), "betas": (10,), "pred_cam": (3,), "camera": (3,)},
    "coco17": {"keypoints": (17, 3)},
}
"""The shape of each attribute per person.

smpl: rotation matrices; shape coefficients; `pred_cam`, the weak-perspective camera (scale, x, y) of the square around
the person; `camera`, where the person stands before the frame's perspective camera (see `focal_length`), in metres: x
to the right, y down, z away from it. coco17: x and y as shares of the frame, outside of which they may lie, and the
score.
"""

SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
"""The parent of each of SMPL's 24 joints."""

SMPL_PAIRS = ((1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21), (22, 23))
"""SMPL's joints on the left and on the right: hips, knees, ankles, feet, collars, shoulders, elbows, wrists, hands."""

COCO17_PAIRS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))
"""COCO's keypoints on the left and on the right: eyes, ears, shoulders, elbows, wrists, hips, knees, ankles."""


def swapped(count: int, pairs: tuple[tuple[int, int], ...]) -> np.ndarray:
    """int (count,): for each place, whose value it gets when left and right are swapped."""
    order = np.arange(count)
    for left, right in pairs:
        order[left], order[right] = right, left
    return order


_SMPL_SWAPPED = swapped(24, SMPL_PAIRS)[1:] - 1  # of body_pose, which begins with joint 1
_COCO17_SWAPPED = swapped(17, COCO17_PAIRS)


def rotations_from_6d(numbers: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) from six numbers each (..., 6); Zhou et al. 2019, arXiv 1812.07035.

    The numbers are two vectors, one after the other; made orthonormal by Gram and Schmidt, they are the matrix's first
    two columns, and their cross product is the third.
    """
    first, second = numbers[..., :3], numbers[..., 3:]
    one = _unit(first)
    two = _unit(second - (one * second).sum(axis=-1, keepdims=True) * one)
    return np.stack([one, two, np.cross(one, two)], axis=-1)


def mirror_rotations(rotations: np.ndarray) -> np.ndarray:
    """The rotations (..., 3, 3) as a mirror that turns x round shows them: M R M with M = diag(-1, 1, 1)."""
    return rotations * np.array([[1, -1, -1], [-1, 1, 1], [-1, 1, 1]], rotations.dtype)


def focal_length(height: float, width: float) -> float:
    """The focal length in pixels that 4D-Humans assumes of an image: 5000 for one of 256 pixels."""
    return 5000 / 256 * max(height, width)


def crop_pose(pose: Pose, attributes: Mapping[str, np.ndarray], view: View) -> dict[str, np.ndarray]:
    """The attributes of N people as `view` shows them; those that aren't the pose's stay as they are."""
    changed = _crop_smpl(attributes, view) if pose == "smpl" else _crop_coco17(attributes, view)
    return {**attributes, **{name: values.astype(np.float32) for name, values in changed.items()}}


def _crop_smpl(attributes: Mapping[str, np.ndarray], view: View) -> dict[str, np.ndarray]:
    """Rotations, shape and `pred_cam` belong to the person and their box, not to the frame: only a mirror turns them.

    Betas stay as they are: what they shape is all but symmetric.
    """
    camera = _crop_camera(attributes["camera"].astype(np.float64), view)
    if not view.hflip:
        return {"camera": camera}
    return {
        "global_orient": mirror_rotations(attributes["global_orient"]),
        "body_pose": mirror_rotations(attributes["body_pose"][:, _SMPL_SWAPPED]),
        "pred_cam": attributes["pred_cam"] * [1, -1, 1],
        "camera": camera * [-1, 1, 1],
    }


def _crop_camera(camera: np.ndarray, view: View) -> np.ndarray:
    """Translations (N, 3) as 4D-Humans would state them, had the crop been the whole image.

    With f the image's focal length, z is 2 f / b, where b, the person's size in pixels, is the same in the crop; x and
    y are counted from the image's centre in units of b / 2.
    """
    shift_x = view.image_width / 2 - (view.left + view.width / 2)
    shift_y = view.image_height / 2 - (view.top + view.height / 2)
    focal = focal_length(view.image_height, view.image_width)
    x, y, z = camera.T
    closer = focal_length(view.height, view.width) / focal
    return np.stack([x + z * shift_x / focal, y + z * shift_y / focal, z * closer], axis=1)


def _crop_coco17(attributes: Mapping[str, np.ndarray], view: View) -> dict[str, np.ndarray]:
    keypoints = attributes["keypoints"]
    seen = np.concatenate([crop_points(keypoints[..., :2], view), keypoints[..., 2:]], axis=2)
    return {"keypoints": seen[:, _COCO17_SWAPPED] if view.hflip else seen}


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def nearest_rotations(matrices: np.ndarray) -> np.ndarray:
    """The rotation nearest to each matrix (..., 3, 3) in the Frobenius norm, in its dtype.

    U diag(1, 1, det(U V')) V' of the singular value decomposition U S V' (Kabsch 1976; Umeyama 1991).
    """
    left, _, right = np.linalg.svd(matrices.astype(np.float64))
    flip = np.linalg.det(left) * np.linalg.det(right)
    left = np.concatenate([left[..., :2], left[..., 2:] * flip[..., None, None]], axis=-1)
    return (left @ right).astype(matrices.dtype)
