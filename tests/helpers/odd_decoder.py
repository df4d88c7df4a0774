"""A labeler whose module has the decoder of a child process, such as the probe's, kill it over the sample `coffee`."""

from __future__ import annotations

import multiprocessing
import os

from odd_labelers import MeanColour
from tokenloom.pipeline.engine import chunks
from tokenloom.pipeline.engine.chunks import Decoder

_decode = Decoder._decode


def _deadly(self, sample, wanted, undecodable):
    if sample.key == "coffee" and undecodable is None:
        os.abort()
    return _decode(self, sample, wanted, undecodable)


if multiprocessing.parent_process() is not None:
    chunks.Decoder._decode = _deadly  # type: ignore[method-assign]


class DiesDecoding(MeanColour):
    """What its module says."""
