"""Small labelers that look at the view, as a user would write them: company for those that tokenloom has."""

from __future__ import annotations

import cv2
import numpy as np
from tokenloom import Batch, Labeler, Modality, Vector


class MeanColour(Labeler):
    """The view's mean colour."""

    makes = (Modality("mean_colour", Vector(3)),)

    def label(self, batch: Batch):
        return {"mean_colour": [image.mean((0, 1), dtype=np.float32) / 255 for image in np.asarray(batch.images)]}


class Sharpness(Labeler):
    """The variance of the view's Laplacian."""

    makes = (Modality("sharpness", Vector(1)),)

    def label(self, batch: Batch):
        images = np.asarray(batch.images)
        return {"sharpness": [np.array([cv2.Laplacian(i, cv2.CV_32F).var()], np.float32) for i in images]}


class Thumbnail(Labeler):
    """The view in grey at 8 x 8 pixels."""

    makes = (Modality("thumbnail", Vector(64)),)

    def label(self, batch: Batch):
        images = np.asarray(batch.images)
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        return {
            "thumbnail": [cv2.resize(g, (8, 8), interpolation=cv2.INTER_AREA).ravel() / np.float32(255) for g in grey]
        }


class HueHistogram(Labeler):
    """The shares of 12 ranges of hue."""

    makes = (Modality("hue_histogram", Vector(12)),)

    def label(self, batch: Batch):
        hues = [cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 0] for image in np.asarray(batch.images)]
        return {"hue_histogram": [np.bincount(h.ravel() // 15, minlength=12)[:12] / np.float32(h.size) for h in hues]}


class EdgeDensity(Labeler):
    """The share of pixels on edges: needs the edges, and no pixels."""

    makes = (Modality("edge_density", Vector(1)),)
    requires = ("canny_edge",)

    def label(self, batch: Batch):
        return {"edge_density": [np.array([(edges > 0).mean()], np.float32) for edges in batch.labels["canny_edge"]]}


class _Number(Labeler):
    """The view's darkest value: a modality of which there may be any number."""

    makes = ()

    def label(self, batch: Batch):
        return {
            one.name: [np.array([image.min()], np.float32) for image in np.asarray(batch.images)] for one in self.makes
        }


for _number in range(10):
    _name = f"Number{_number}"
    globals()[_name] = type(_name, (_Number,), {"makes": (Modality(f"number_{_number}", Vector(1)),)})
