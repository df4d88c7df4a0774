"""Labelers that misbehave in one way each, and one that counts what it is asked."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from pydantic import BaseModel
from tokenloom import Batch, Embeddings, FeatureMap, Image, Labeler, Modality, Resources, Vector
from tokenloom.labelers.contract.labeler import Weights


class MeanColour(Labeler):
    """The view's mean colour."""

    makes = (Modality("mean_colour", Vector(3)),)

    def label(self, batch: Batch):
        images = batch.images if batch.images is not None else ()
        return {"mean_colour": [image.mean((0, 1), dtype=np.float32) / 255 for image in images]}


class Doubled(Labeler):
    """Twice the mean colour: needs another modality and no pixels."""

    makes = (Modality("doubled", Vector(3)),)
    on = "nothing"
    requires = ("mean_colour",)

    def label(self, batch: Batch):
        return {"doubled": [2 * label for label in batch.labels["mean_colour"]]}


class Boxless(Doubled):
    """Says that it looks at nothing, and makes what lies somewhere in the image."""

    makes = (Modality("boxless", Image(1, content="intensity")),)
    requires = ()


class Corners(MeanColour):
    """Embeddings of one to three vectors, as many as the key's last digit says: the view's first pixels, and 1."""

    makes = (Modality("corners", Embeddings(4, 3)),)

    def label(self, batch: Batch):
        made = []
        for key, image in zip(batch.keys, np.asarray(batch.images), strict=True):
            pixels = image.reshape(-1, 3)[: 1 + int(key[-1]) % 3] / 255
            made.append(np.pad(pixels, ((0, 0), (0, 1)), constant_values=1).astype(np.float16))
        return {"corners": made}


class Nowhere(MeanColour):
    """Has a label for none of the samples."""

    makes = (Modality("nowhere", Vector(3)),)

    def label(self, batch: Batch):
        return {"nowhere": [None for _ in batch.keys]}


class Thirds(MeanColour):
    """A map of classes, as semseg_coco makes one: the view's thirds from left to right."""

    makes = (Modality("thirds", Image(1, content="classes", classes=3)),)

    def label(self, batch: Batch):
        side = np.asarray(batch.images).shape[1]
        return {"thirds": [np.tile(np.arange(side, dtype=np.uint8) // -(-side // 3), (side, 1)) for _ in batch.keys]}


class Picky(MeanColour):
    """Refuses its parameters only when it sees its weights, as dinov2 does a size that its patches don't divide."""

    makes = (Modality("picky", Vector(3)),)

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        raise ValueError("not with 3\npatches")


class Raises(MeanColour):
    """Raises when the batch holds the sample `coffee`."""

    def label(self, batch: Batch):
        if "coffee" in batch.keys:
            raise ZeroDivisionError("coffee is not good for me")
        return super().label(batch)


class WaitsFor(MeanColour):
    """Raises for `coffee` while a file is missing, or with what it says."""

    class Params(BaseModel):
        file: str

    def label(self, batch: Batch):
        file = Path(self.params.file)
        reason = file.read_text() if file.exists() else "not yet"
        if "coffee" in batch.keys and reason:
            raise RuntimeError(reason)
        return super().label(batch)


class ViewWaitsFor(WaitsFor):
    """A label of another shape for the third view of each sample while a file is missing."""

    makes = (Modality("last", Vector(3)),)

    def label(self, batch: Batch):
        labels = MeanColour.label(self, batch)["mean_colour"]
        if not Path(self.params.file).exists():
            labels = [np.zeros(0) if view.index == 2 else one for view, one in zip(batch.views, labels, strict=True)]
        return {"last": labels}


class ImageWaitsFor(WaitsFor):
    """Like WaitsFor, for the whole image."""

    makes = (Modality("whole", Vector(3)),)
    on = "image"

    def label(self, batch: Batch):
        return {"whole": super().label(batch)["mean_colour"]}


class GivesNaN(MeanColour):
    """NaN for `coffee`, a wrong shape for `rocket`, a wrong dtype for `china`, and nothing for `flower`."""

    def label(self, batch: Batch):
        wrong = {
            "coffee": np.full(3, np.nan, np.float32),
            "rocket": np.zeros(4, np.float32),
            "china": np.zeros(3, np.int64),
            "flower": None,
        }
        good = super().label(batch)["mean_colour"]
        return {"mean_colour": [wrong.get(key, label) for key, label in zip(batch.keys, good, strict=True)]}


class ForgetsOne(MeanColour):
    """One label too few, whatever the batch."""

    def label(self, batch: Batch):
        return {"mean_colour": super().label(batch)["mean_colour"][1:]}


class Aborts(MeanColour):
    """Kills its process when the batch holds the sample `coffee`."""

    def label(self, batch: Batch):
        if "coffee" in batch.keys:
            os.abort()
        return super().label(batch)


class OnGpu(MeanColour):
    """Asks for a share of a GPU."""

    resources = Resources(gpus=0.4)


class AbortsOnGpu(Aborts):
    """Asks for a share of a GPU that doesn't divide it."""

    resources = Resources(gpus=0.6)


class DiesLoading(MeanColour):
    """Kills its process before it has seen a sample; each process leaves a file in a folder."""

    class Params(BaseModel):
        folder: str

    def load(self, device: str) -> None:
        Path(self.params.folder, str(os.getpid())).touch()
        os.abort()


class RaisesLoading(MeanColour):
    """Finds that a library is missing, when it is made or when it is loaded."""

    class Params(BaseModel):
        made: bool

    def __init__(self, params: BaseModel | None = None, weights: str | None = None) -> None:
        super().__init__(params, weights)
        if self.params.made:
            raise OSError("no libfoo")

    def load(self, device: str) -> None:
        raise RuntimeError("no libfoo")


class Hungry(MeanColour):
    """Has memory for two samples at once; notes what it was given, and where."""

    makes = (Modality("hungry", Vector(3)),)
    resources = Resources(cpus=0.5, gpus=0.4)

    class Params(BaseModel):
        folder: str

    def load(self, device: str) -> None:
        self.device = device

    def label(self, batch: Batch):
        with open(Path(self.params.folder, str(os.getpid())), "a") as notes:
            print(self.device, len(batch), file=notes)
        if len(batch) > 2:
            import torch

            raise torch.OutOfMemoryError("CUDA out of memory, were there any")
        return {"hungry": super().label(batch)["mean_colour"]}


class GreyImage(Labeler):
    """The whole image in grey, of whatever size it has."""

    makes = (Modality("grey_image", Image(channels=1, content="intensity")),)
    on = "image"

    def label(self, batch: Batch):
        return {"grey_image": [image.mean(axis=2).astype(np.uint8) for image in batch.images or ()]}


class Weighty(MeanColour):
    """Has weights, but no tiny ones."""

    weights = Weights("example/weighty", "MIT", "https://example.org")


class Grid(Labeler):
    """A feature map of block means, so that a codebook has to be fitted."""

    makes = (Modality("grid", FeatureMap(3, 4, 4)),)

    def label(self, batch: Batch):
        images = np.asarray(batch.images, np.float32)
        side = images.shape[1] // 4
        blocks = images[:, : side * 4, : side * 4].reshape(len(batch), 4, side, 4, side, 3).mean((2, 4))
        return {"grid": list((blocks.transpose(0, 3, 1, 2) / 255).astype(np.float16))}


class CountedGrid(Grid):
    """Notes in a file each sample that it is asked for."""

    class Params(BaseModel):
        file: str

    def label(self, batch: Batch):
        with open(self.params.file, "a") as notes:
            print(*batch.keys, file=notes)
        return super().label(batch)


class GridWaitsForFlower(Grid):
    """Raises for `flower` while a file is missing."""

    class Params(BaseModel):
        file: str

    def label(self, batch: Batch):
        if "flower" in batch.keys and not Path(self.params.file).exists():
            raise RuntimeError("not yet")
        return super().label(batch)


class FailsFor(Grid):
    """Fails for the samples whose keys stand in a file, and for all where that says `all`."""

    class Params(BaseModel):
        file: str
        of: int = 1

    def label(self, batch: Batch):
        bad = Path(self.params.file).read_text().split()
        for key in batch.keys:
            if key in bad or "all" in bad:
                raise AttributeError(f"module 'cv2' has no attribute 'cvtColour' ({key})")
        return super().label(batch)


class WholeFailsFor(FailsFor):
    """Likewise, of whole images."""

    makes = (Modality("whole", Vector(3)),)
    on = "image"

    def label(self, batch: Batch):
        super().label(Batch(batch.keys, np.zeros((len(batch), 32, 32, 3), np.uint8), batch.views, batch.fields))
        return {"whole": [image.mean((0, 1), dtype=np.float32) / 255 for image in batch.images or ()]}


class GridMean(Labeler):
    """The mean of a grid: needs it."""

    makes = (Modality("grid_mean", Vector(3)),)
    on = "nothing"
    requires = ("grid",)

    def label(self, batch: Batch):
        return {"grid_mean": [label.mean((1, 2)).astype(np.float32) for label in batch.labels["grid"]]}


class FailsAfter(Grid):
    """Raises once a file is there."""

    class Params(BaseModel):
        file: str

    def label(self, batch: Batch):
        if Path(self.params.file).exists():
            raise RuntimeError("no more")
        return super().label(batch)


class ImageFailsAfter(FailsAfter):
    """Likewise, for the whole image."""

    makes = (Modality("grey", Vector(1)),)
    on = "image"

    def label(self, batch: Batch):
        if Path(self.params.file).exists():
            raise RuntimeError("no more")
        return {"grey": [image.mean(keepdims=True).reshape(1).astype(np.float32) for image in batch.images or ()]}


class TellsWhatItKnows(Labeler):
    """The mean colour where the sample has one, which it may lack."""

    makes = (Modality("known", Vector(3)),)
    on = "nothing"
    wants = ("mean_colour",)

    def label(self, batch: Batch):
        known = batch.labels.get("mean_colour", [None] * len(batch))
        return {"known": [np.zeros(3, np.float32) if label is None else label for label in known]}


class Brighter(MeanColour):
    """A hundred times the mean colour."""

    def label(self, batch: Batch):
        return {"mean_colour": [100 * label for label in super().label(batch)["mean_colour"]]}


class KnowsLater(TellsWhatItKnows):
    """Raises for `coffee` while a file is missing."""

    class Params(BaseModel):
        file: str

    def label(self, batch: Batch):
        if "coffee" in batch.keys and not Path(self.params.file).exists():
            raise RuntimeError("not yet")
        return super().label(batch)


class SaysItAgain(Labeler):
    """What another has told, of what it knows."""

    makes = (Modality("again", Vector(3)),)
    on = "nothing"
    requires = ("known",)

    def label(self, batch: Batch):
        return {"again": list(batch.labels["known"])}
