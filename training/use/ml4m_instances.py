"""Instances as ml-4m's transforms read them: Segment Anything's masks as polygons, people's poses as SMPL's numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from ...labelers.contract.instances import InstanceSet, Mask
from ...labelers.people.crops import in_pixels
from ...tokenizers.instances.mask_codes import MASK_TOKENS
from ...tokenizers.instances.pose_text import SCALES

SIDE = 224
"""Pixels of a crop's side as ml-4m counts them here, whatever the views' size is (its SAMInstanceTokTransform)."""

_NOWHERE = -SIDE
"""Where the polygons lie, outside of the crop, that fill up views with fewer instances."""


def polygons_array(seen: Sequence[InstanceSet], codes: Sequence[np.ndarray]) -> np.ndarray:
    """A record for each view: points int32 (instances, 1, corners, 1, 2), x and y; token_ids int16 (instances, 16);
    bbox int32 (instances, 4), top, left, bottom, right.

    seen: what each view sees, masks with a pixel at least. codes: int (n, 16) of each view's. ml-4m takes what a record
    answers to: its own files hold dictionaries, which are pickles, and these are plain arrays. So all views have as
    many instances, and these as many corners: further corners repeat the last one, and further instances lie outside,
    where no query point is.
    """
    outlines = [[outline(mask) for mask in one.masks or ()] for one in seen]
    instances = max(1, *map(len, outlines))
    corners = max((len(line) for view in outlines for line in view), default=1)
    fields = [("points", (instances, 1, corners, 1, 2)), ("bbox", (instances, 4))]
    records = np.zeros(
        len(seen),
        [*((name, np.int32, shape) for name, shape in fields), ("token_ids", np.int16, (instances, MASK_TOKENS))],
    )
    records["points"] = _NOWHERE
    for at, (one, own, lines) in enumerate(zip(seen, codes, outlines, strict=True)):
        for place, line in enumerate(lines):
            filled = np.pad(line, ((0, corners - len(line)), (0, 0)), mode="edge")
            records["points"][at, place, 0, :, 0] = filled
        records["token_ids"][at, : len(own)] = own
        records["bbox"][at, : len(one)] = np.rint(one.boxes[:, [1, 0, 3, 2]] * SIDE)
    return records


def outline(mask: Mask) -> np.ndarray:
    """int32 (corners, 2), x and y: around the mask's largest part, in pixels of a crop of SIDE."""
    import cv2

    found, _ = cv2.findContours(mask.to_array().astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    corners = max(found, key=cv2.contourArea)[:, 0]
    return np.rint((corners + 0.5) * SIDE / [mask.width, mask.height] - 0.5).astype(np.int32)


def poses_json(people: InstanceSet, codes: np.ndarray, height: int, width: int) -> bytes:
    """The people in a whole image of height x width pixels, which ml-4m crops itself. codes: int (n, 8) of their poses.

    Shape coefficients end where its words do: it writes larger ones as words that its vocabulary lacks.
    """
    if not len(people):
        return b"{}"
    of = people.attributes
    name, scale, _ = SCALES["shape"]
    params = {
        "global_orient": of["global_orient"][:, None].tolist(),
        "body_pose": of["body_pose"].tolist(),
        "betas": of[name].clip(scale.low, scale.high).tolist(),
    }
    boxes = in_pixels(people.boxes, height, width).tolist()
    found = {"bbox_xyxy": boxes, "pred_cam": of["pred_cam"].tolist(), "pose_tokenized": codes.tolist()}
    return json.dumps({**found, "pred_smpl_params": params}).encode()
