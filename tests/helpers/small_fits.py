"""Small fits of VQ tokenizers: a few steps of a tiny network on labels of 16 x 16 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tokenloom.labelers.contract.kinds import Image
from tokenloom.pipeline.dataset.shards import RowKeys, ShardMeta, write_labels
from tokenloom.pipeline.fitting.listener import FitListener
from tokenloom.pipeline.fitting.ray_train import FitJob
from tokenloom.pipeline.fitting.sample import SampleLabels
from tokenloom.pipeline.fitting.worker import train_worker
from tokenloom.pipeline.storage.store import Store
from tokenloom.tokenizers.fitting.figures import Figures
from tokenloom.tokenizers.fitting.settings import FitSettings

KIND = Image()
PREFIX = "fit/_rgb"
PARAMS = {"encoder": "vit_xt_enc", "decoder": "vit_xt_dec", "codes": 16, "patch_size": 4}
SETTINGS = {"steps": 12, "batch_size": 8, "checkpoint_every": 4, "report_every": 2}


class Heard(FitListener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.figures: list[Figures] = []

    def say(self, what: str) -> None:
        self.said.append(what)

    def trained(self, figures: Figures, settings: FitSettings) -> None:
        self.figures.append(figures)


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    """Gradients of colour, uint8 (16, 16, 3)."""
    corners = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3)).astype(np.float32)
    across = np.linspace(0, 1, 16, dtype=np.float32)
    weights = np.stack([1 - across, across])
    return list(np.einsum("nhwc,hy,wx->nyxc", corners, weights, weights).astype(np.uint8))


def put_aside(store: Store, count: int = 24, seed: int = 0) -> SampleLabels:
    """The labels as a run puts them aside, in two units; one of them is missing."""
    labels: list[bytes | None] = [KIND.encode(picture) for picture in pictures(count, seed)]
    labels[1] = None
    for unit, part in enumerate((labels[: count // 2], labels[count // 2 :])):
        rows = RowKeys([f"{unit}/{index}" for index in range(len(part))], [0] * len(part))
        data = write_labels(rows, part, KIND.extension, ShardMeta(f"unit-{unit}", "rgb", "0" * 32))
        store.replace(f"fit/rgb/unit-{unit}.tar", data)
    return SampleLabels(store, "fit/rgb")


def fit_job(store: Store, params: dict[str, Any] | None = None, **settings) -> FitJob:
    """A job of a few steps on the labels that `put_aside` put aside."""
    return FitJob(
        tokenizer="vq",
        kind=KIND.describe(),
        params=PARAMS | (params or {}),
        settings=FitSettings.model_validate(SETTINGS | settings),
        seed=0,
        labels=SampleLabels(store, "fit/rgb"),
        store=store,
        prefix=PREFIX,
    )


def train_both(job: FitJob, board: Any, config: Mapping[str, Any]) -> None:
    """What a process of Ray Train does: the job, and then the one that it is there for."""
    train_worker({**config, "job": job, "board": board})
    train_worker(config)
