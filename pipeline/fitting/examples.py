"""What a tokenizer is trained on: labels of a dataset, and the examples in them, on this machine's disk."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ...tokenizers.vq.base import TrainedTokenizer
from ..views.kept_labels import KeptLabels
from .sample import SampleLabels

LabelSource: TypeAlias = SampleLabels | KeptLabels


@dataclass(frozen=True)
class Examples:
    """array: (n, ...), read from disk as it is needed. digest: SHA-256 of what the examples are."""

    array: np.ndarray
    digest: str


def gather(tokenizer: TrainedTokenizer, labels: Iterable[Any]) -> Examples:
    """Writes the examples of all labels into a file that vanishes with this process, however that ends.

    Raises ValueError where there are none, and where they aren't of one size.
    """
    digest, count = hashlib.sha256(), 0
    like: np.ndarray | None = None
    with tempfile.TemporaryFile(prefix="tokenloom-examples-") as file:
        for label in labels:
            part = tokenizer.examples(label)
            if not len(part):
                continue
            if like is None:
                like = part[:0]
                digest.update(f"{part.dtype.str} {part.shape[1:]}".encode())
            if (part.dtype, part.shape[1:]) != (like.dtype, like.shape[1:]):
                raise ValueError(
                    f"labels of one size make a sample; there are {part.dtype} {part.shape[1:]} beside "
                    f"{like.dtype} {like.shape[1:]}"
                )
            data = np.ascontiguousarray(part).data
            digest.update(data)
            file.write(data)
            count += len(part)
        if like is None:
            raise ValueError("too few examples: none of the labels holds anything to train on")
        file.flush()
        # The mapping keeps the file's blocks when its descriptor is closed here.
        array = np.memmap(file, like.dtype, "r", shape=(count, *like.shape[1:]))
    return Examples(array, digest.hexdigest())
