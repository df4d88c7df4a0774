"""3D poses of people as SMPL parameters, by HMR2.0 (Goel et al. 2023, "Humans in 4D", arXiv 2305.20091)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.instances import InstanceSet
from .contract.kinds import Instances
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .contract.poses import ATTRIBUTES, rotations_from_6d
from .networks.extras import naming_extras
from .networks.hub import CheckpointError
from .networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from .networks.state_dicts import read_tensors, seeded
from .people.crops import crop_square, full_camera, in_pixels, people, squares
from .people.hmr2_converter import PREFIXES, read_lightning

CROPS_AT_ONCE = 32
"""How many people go through the network together, however many a batch's images show."""


class HumanPosesParams(BaseModel):
    """min_score: of a person's box in `det`, which must be above it. max_persons: of an image, the likeliest ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    min_score: float = Field(default=0.5, ge=0, le=1)
    max_persons: int = Field(default=20, ge=1)


class HumanPoses(Labeler):
    """3D poses of people: SMPL rotations, shape and camera by HMR2.0, on the person boxes of `det`.

    `human_poses`: instances of the class "human", the likeliest first, each with the box and the score of `det` and
    the attributes of `poses.ATTRIBUTES["smpl"]`. No SMPL body model is needed for them, nor used.

    A view crops the boxes and restates `camera` for the crop; a mirror swaps left and right. `pred_cam` goes on
    belonging to the square around the whole person, which a cropped box no longer shows. Crops, network and cameras are
    those of 4D-Humans (OpenCV's bilinear warp), save that `camera` takes each image's own focal length.

    weights: the published Lightning checkpoint (.ckpt), which also holds data of the SMPL body model under its
    non-commercial licence, or what `tokenloom convert-hmr2` makes of it (.safetensors), which holds none.
    """

    on = "image"
    requires = ("det",)
    licence = "Apache-2.0"
    weights = Weights(
        default=None,
        licence="MIT AND LicenseRef-SMPL-noncommercial",
        source="https://github.com/shubham-goel/4D-Humans",
        others={"*.safetensors": "MIT", "*.ckpt": "MIT AND LicenseRef-SMPL-noncommercial"},
    )
    # 670 million parameters in float32 are 2.7 GB; crops and activations of 32 people are estimated
    resources = Resources(cpus=1.0, gpus=0.5, memory=4 * 2**30)
    batch_size = 16
    autocast = "float16"
    Params: ClassVar[type[BaseModel]] = HumanPosesParams
    makes = (Modality("human_poses", Instances(scores=True, attributes=ATTRIBUTES["smpl"], pose="smpl")),)

    def load(self, device: str) -> None:
        with naming_extras():
            from .people.hmr2 import build
        if self.weights_path is None or not Path(self.weights_path).is_file():
            raise CheckpointError(
                f"human_poses: weights {self.weights_path}: not a file; give the path of HMR2.0's Lightning checkpoint "
                f"(.ckpt, in hmr2_data.tar.gz of 4D-Humans) or of its conversion to .safetensors"
            )
        path = Path(self.weights_path)
        tensors = read_tensors(path, PREFIXES) if path.suffix == ".safetensors" else read_lightning(path)
        self._network = build(tensors, path).to(device)
        self._device = device

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        """A Lightning checkpoint with the published keys, two blocks deep, and keys that aren't the network's."""
        import torch

        from .people.hmr2 import Backbone, Hmr2, SmplHead

        path = folder / "hmr2.ckpt"
        with seeded():
            network = Hmr2(Backbone(64, 2, 16, 128), SmplHead(64, 2, 8, 64, 64, 64))
            torch.nn.init.normal_(network.backbone.pos_embed, std=0.5)
            torch.nn.init.normal_(network.smpl_head.transformer.pos_embedding)
            means = {"body_pose": torch.eye(3)[:2].repeat(24, 1), "betas": torch.zeros(10), "cam": torch.eye(3)[0]}
            others = {"smpl.v_template": torch.rand(8, 3), "initialized": torch.tensor(True)}
            state = {
                **network.state_dict(),
                **{f"smpl_head.init_{name}": mean.reshape(1, -1) for name, mean in means.items()},
                **others,
            }
            torch.save({"epoch": 35, "global_step": 1_000_000, "state_dict": state, "hyper_parameters": {}}, path)
        return path

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        images: Any = batch.images
        persons = [people(det, self.params.min_score, self.params.max_persons) for det in batch.labels["det"]]
        boxes = [in_pixels(seen.boxes, *image.shape[:2]) for seen, image in zip(persons, images, strict=True)]
        around = [squares(pixels) for pixels in boxes]
        jobs = [
            (image, centre, float(side))
            for image, (centres, sides) in zip(images, around, strict=True)
            for centre, side in zip(centres, sides, strict=True)
        ]
        chunks = [jobs[start : start + CROPS_AT_ONCE] for start in range(0, len(jobs), CROPS_AT_ONCE)]
        regressed = [self._regress([crop_square(*job) for job in chunk]) for chunk in chunks]
        poses, betas, cameras = (np.concatenate(parts) for parts in zip(_NOBODY, *regressed, strict=True))
        rotations = rotations_from_6d(poses.reshape(-1, 24, 6))
        labels, first = [], 0
        for image, seen, (centres, sides) in zip(images, persons, around, strict=True):
            mine = slice(first, first := first + len(seen))
            camera = full_camera(cameras[mine], centres, sides, *image.shape[:2])
            attributes = {
                "global_orient": rotations[mine, 0],
                "body_pose": rotations[mine, 1:],
                "betas": betas[mine],
                "pred_cam": cameras[mine],
                "camera": camera.astype(np.float32),
            }
            labels.append(InstanceSet(seen.boxes, ["human"] * len(seen), seen.scores, attributes=attributes))
        return {"human_poses": labels}

    def _regress(self, crops: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pose (N, 144), betas (N, 10) and camera (N, 3) of the people in N crops of `crop_square`."""
        import torch

        pixels = torch.from_numpy(np.stack(crops)).to(self._device).permute(0, 3, 1, 2).contiguous()
        mean = 255 * torch.tensor(IMAGENET_MEAN, device=self._device).view(3, 1, 1)
        std = 255 * torch.tensor(IMAGENET_STD, device=self._device).view(3, 1, 1)
        with torch.inference_mode():
            pose, betas, camera = self._network(pixels.sub_(mean).div_(std))
        return pose.cpu().numpy(), betas.cpu().numpy(), camera.cpu().numpy()


_NOBODY = (np.zeros((0, 144), np.float32), np.zeros((0, 10), np.float32), np.zeros((0, 3), np.float32))
