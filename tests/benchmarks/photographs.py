"""A corpus for benchmarks: WebDataset tars of 500 x 375 JPEGs, cut from photographs of scikit-image and scikit-learn.

Every tar holds the same photographs, each a random crop of its own, under keys of its own.
"""

from __future__ import annotations

import importlib.util
import io
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

SIZE = (500, 375)
PER_TAR = 1000
_QUALITY = 90

_PHOTOGRAPHS = {
    "skimage/data/astronaut.png": "An astronaut in an orange suit",
    "skimage/data/chelsea.png": "A tabby cat with green eyes",
    "skimage/data/coffee.png": "A cup of espresso on a wooden table",
    "skimage/data/hubble_deep_field.jpg": "Thousands of galaxies",
    "skimage/data/ihc.png": "Stained tissue under a microscope",
    "skimage/data/motorcycle_left.png": "A red motorcycle in a garage",
    "skimage/data/retina.jpg": "The vessels at the back of an eye",
    "skimage/data/rocket.jpg": "A rocket on its launch pad at dusk",
    "sklearn/datasets/images/china.jpg": "A Chinese temple behind trees",
    "sklearn/datasets/images/flower.jpg": "A pink dahlia in full bloom",
}


def write_tars(folder: Path, count: int, per_tar: int = PER_TAR) -> list[Path]:
    """`count` tars in `folder`, those that are there left as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"photos-{index:04d}.tar" for index in range(count)]
    missing = [path for path in paths if not path.exists()]
    if missing:
        pictures = _crops(per_tar)
        for path in missing:
            _write_tar(path, pictures)
    return paths


def write_photographs(folder: Path, count: int) -> None:
    """`count` JPEGs in a folder, each with its caption beside it."""
    folder.mkdir()
    for index, (jpeg, caption) in enumerate(_crops(count)):
        (folder / f"{index:05d}.jpg").write_bytes(jpeg)
        (folder / f"{index:05d}.txt").write_text(caption)


def _write_tar(path: Path, pictures: Sequence[tuple[bytes, str]]) -> None:
    unfinished = path.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as tar:
        for index, (jpeg, caption) in enumerate(pictures):
            for extension, data in (("jpg", jpeg), ("txt", caption.encode())):
                member = tarfile.TarInfo(f"{path.stem}-{index:05d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    unfinished.replace(path)


def _crops(count: int) -> list[tuple[bytes, str]]:
    """`count` JPEGs with captions: 4:3 crops of at least half a photograph's width, mirrored half of the time."""
    chance = random.Random(0)
    photographs = [(_photograph(path), caption) for path, caption in _PHOTOGRAPHS.items()]
    crops = []
    for index in range(count):
        photograph, caption = photographs[index % len(photographs)]
        width = chance.uniform(0.5, 1) * min(photograph.width, photograph.height * 4 / 3)
        left = chance.uniform(0, photograph.width - width)
        top = chance.uniform(0, photograph.height - width * 3 / 4)
        crop = photograph.resize(SIZE, Image.Resampling.BICUBIC, (left, top, left + width, top + width * 3 / 4))
        if chance.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        buffer = io.BytesIO()
        crop.save(buffer, "JPEG", quality=_QUALITY)
        crops.append((buffer.getvalue(), f"{caption}, seen for the {index}th time."))
    return crops


def _photograph(path: str) -> Image.Image:
    package, _, rest = path.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"the photographs come with {package}: pip install 'tokenloom[demo]'")
    return Image.open(Path(spec.origin).parent / rest).convert("RGB")
