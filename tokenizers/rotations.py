"""Rotation matrices: the one nearest to any matrix."""

from __future__ import annotations

import numpy as np


def nearest_rotations(matrices: np.ndarray) -> np.ndarray:
    """The rotation nearest to each matrix (..., 3, 3) in the Frobenius norm, in its dtype.

    U diag(1, 1, det(U V')) V' of the singular value decomposition U S V' (Kabsch 1976; Umeyama 1991).
    """
    left, _, right = np.linalg.svd(matrices.astype(np.float64))
    flip = np.linalg.det(left) * np.linalg.det(right)
    left = np.concatenate([left[..., :2], left[..., 2:] * flip[..., None, None]], axis=-1)
    return (left @ right).astype(matrices.dtype)
