import numpy as np
import pytest
from PIL import Image
from tokenloom.labelers.contract.labeler import Batch
from tokenloom.labelers.contract.views import ViewSettings, cut_view
from tokenloom.pipeline.commands.demo_weights import dinov2_small


@pytest.fixture(scope="session")
def dinov2_weights(tmp_path_factory):
    """A folder with real DINOv2 ViT-S/14 weights."""
    return str(dinov2_small(tmp_path_factory.mktemp("weights") / "dinov2-small"))


@pytest.fixture(scope="session")
def photographs():
    """Real photographs as centre views of 224 pixels, by name."""
    data = pytest.importorskip("skimage.data")

    def view(image):
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = Image.fromarray(image[top : top + side, left : left + side])
        return np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC))

    return {name: view(getattr(data, name)()) for name in ("astronaut", "chelsea", "coffee", "rocket")}


@pytest.fixture(scope="session")
def images(photographs):
    """Whole images of different sizes, two of one."""
    astronaut, chelsea, coffee, rocket = photographs.values()
    return [np.ascontiguousarray(image) for image in (astronaut, chelsea[:, :150], coffee[:100], rocket)]


@pytest.fixture(scope="session")
def batch_of():
    """A function from images (and labels of other modalities) to a Batch."""

    def make(images, **labels):
        keys = [str(index) for index in range(len(images))]
        sizes = [image.shape for image in images]
        views = [cut_view(0, key, 0, size[0], size[1], ViewSettings()) for key, size in zip(keys, sizes, strict=True)]
        return Batch(keys, images, views, [{}] * len(images), labels)

    return make
