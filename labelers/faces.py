"""Faces, by MTCNN (Zhang et al. 2016, arXiv 1604.02878) as facenet-pytorch has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .contract.instances import InstanceSet
from .contract.kinds import Instances
from .contract.labeler import Batch, Labeler, Modality, Resources, Weights
from .networks.hub import package_path
from .networks.state_dicts import fill, read_tensors, seeded

SHIPPED_WEIGHTS = "package:facenet_pytorch/data"
STAGES = ("pnet", "rnet", "onet")
INPUT = 12
"""Side in pixels of what the first stage looks at: a face of `min_face_size` is scaled to it."""


class FacesParams(BaseModel):
    """min_face_size: smaller faces aren't looked for, in pixels. thresholds: least score at each of the three stages.
    factor: from one scale of the image pyramid to the next."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    min_face_size: int = Field(default=20, ge=INPUT)
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)
    factor: float = Field(default=0.709, gt=0.1, lt=0.95)


class Faces(Labeler):
    """Faces with their boxes and scores, by MTCNN.

    `faces`: Instances labelled "face", the largest first. Box and score are those of facenet-pytorch's
    `MTCNN.detect`, which scales by averaging over areas (torch's "area"), and is given one image at a time, because
    images of a batch would have to be of one size. The weights ship in its wheel; another folder must hold pnet.pt,
    rnet.pt and onet.pt. The package pins an old torch but works with later ones, and so is installed by
    pip install --no-deps facenet-pytorch.
    """

    makes = (Modality("faces", Instances(scores=True)),)
    on = "image"
    licence = "MIT"
    weights = Weights(SHIPPED_WEIGHTS, "MIT", "https://github.com/timesler/facenet-pytorch")
    resources = Resources(cpus=1.0, memory=1 * 2**30)
    batch_size = 8
    Params: ClassVar[type[BaseModel]] = FacesParams

    def load(self, device: str) -> None:
        facenet = _facenet()
        source = self.weights_path or SHIPPED_WEIGHTS
        folder = package_path(source) if source.startswith("package:") else Path(source)
        self._detector = facenet.MTCNN(
            min_face_size=self.params.min_face_size,
            thresholds=list(self.params.thresholds),
            factor=self.params.factor,
            device=device,
        )
        for stage in STAGES:  # the detector has filled them with the package's own
            path = folder / f"{stage}.pt"
            fill(getattr(self._detector, stage), read_tensors(path), path)

    def label(self, batch: Batch) -> Mapping[str, Sequence[Any]]:
        return {"faces": [self._find(image) for image in batch.images or ()]}

    def _find(self, image: np.ndarray) -> InstanceSet:
        height, width = image.shape[:2]
        if min(height, width) * (INPUT / self.params.min_face_size) < INPUT:
            return InstanceSet.empty(scores=True)  # no scale to look at, on which the detector would fail
        found, scores = self._detector.detect(image)
        if found is None:
            return InstanceSet.empty(scores=True)
        boxes = (np.asarray(found, np.float32) / np.array([width, height] * 2, np.float32)).clip(0, 1)
        inside = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        boxes, scores = boxes[inside], np.asarray(scores, np.float32)[inside]
        return InstanceSet(boxes, ["face"] * len(boxes), scores=scores)

    @classmethod
    def write_tiny(cls, folder: Path) -> Path:
        """The networks have one size only; these are of random numbers, and find a few faces where edges meet."""
        import torch

        facenet = _facenet()
        heads = {"pnet": ("conv4_1", 1.0), "rnet": ("dense5_1", -1.0), "onet": ("dense6_1", -1.0)}
        with seeded():
            torch.manual_seed(1)  # 0 finds no face in anything
            for stage, network in zip(STAGES, (facenet.PNet, facenet.RNet, facenet.ONet), strict=True):
                model = network(pretrained=False)
                head, against = heads[stage]
                for name, parameter in model.named_parameters():
                    if parameter.dim() > 1:
                        torch.nn.init.kaiming_normal_(parameter)
                        if name.split(".")[0].endswith(("_2", "_3")):  # offsets of boxes and landmarks
                            parameter.data *= 0.05
                    elif "prelu" not in name:
                        torch.nn.init.zeros_(parameter)
                model.conv1.weight.data -= model.conv1.weight.data.mean(dim=(1, 2, 3), keepdim=True)
                getattr(model, head).bias.data[0] = against
                torch.save(model.state_dict(), folder / f"{stage}.pt")
        return folder


def _facenet() -> Any:
    try:
        import facenet_pytorch
    except ModuleNotFoundError as error:
        if error.name != "facenet_pytorch":
            raise
        raise ModuleNotFoundError(
            f"{error}; install it with: pip install --no-deps facenet-pytorch", name=error.name
        ) from error
    return facenet_pytorch
