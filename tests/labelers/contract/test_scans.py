"""Scans of a JPEG, each of which costs a pass over all pixels, and may have few bytes."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from tokenloom.labelers.contract.images import BadImage, decode_image, read_header
from tokenloom.labelers.contract.scans import MAX_SCANS

WRITTEN = 10
"""By libjpeg, of a progressive picture in colour."""


@pytest.mark.parametrize("preview", [b"", b"\xff\xe1\x00\xc8" + b"\xff\xda" * 99])
def test_they_are_bounded_whatever_else_the_file_holds(preview):
    """A preview's aren't counted, nor what follows the picture."""
    saved = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(saved, "JPEG", progressive=True)
    jpeg = saved.getvalue()
    last = jpeg.rfind(b"\xff\xda")

    def with_more(scans: int) -> bytes:
        return jpeg[:2] + preview + jpeg[2:-2] + jpeg[last:-2] * scans + b"\xff\xd9"

    most = MAX_SCANS - WRITTEN
    assert decode_image(with_more(most) + b"\xff\xda" * 99).shape == (256, 256, 3)
    with pytest.raises(BadImage, match="more than 64 scans"):
        read_header(with_more(most + 1))
