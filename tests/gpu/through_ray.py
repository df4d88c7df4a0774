"""A whole run through Ray, with a GPU for its stage."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from meters import on_gpu, spent
from photographs import write_tars

IMAGES = 8
HERE = Path(__file__).resolve().parent


def run_through_ray(folder: Path, device: str) -> dict[str, Any]:
    """DINOv2 on tiny weights, its codebook fitted and its tokens written, beside a labeler that says where it is.

    Raises RuntimeError where anything computed elsewhere than on `device`, or what was written isn't sound.
    """
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0", RAY_BACKEND_LOG_LEVEL="fatal", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0"
    )
    import ray
    from tokenloom.pipeline.checks.verify import verify
    from tokenloom.pipeline.cluster.session import DEVICE
    from tokenloom.pipeline.dataset.dataset import open_dataset
    from tokenloom.pipeline.run import run

    (tar,) = write_tars(folder / "corpus", 1, per_tar=IMAGES)
    recipe = {
        "corpus": str(tar),
        "output": str(folder / "dataset"),
        "units": {"samples": IMAGES // 2},
        "fit": {"units": 1},
        "modalities": {
            "dinov2": {"weights": "tiny", "keep": "both"},
            "where": {"labeler": "where:Where", "keep": "labels"},
        },
        "resources": {"stages": [{"modalities": ["dinov2", "where"], "num_gpus": 1.0}]},
    }
    variables = {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    if not on_gpu(device):
        variables[DEVICE] = device
    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": variables},
    )
    try:
        taken = spent("cpu", lambda: run(recipe))
    finally:
        ray.shutdown()
    faults = verify(recipe["output"], deep=True).faults
    dataset = open_dataset(recipe["output"])
    places = {row.values["where"] for row in dataset.iterate(["where"], labels=True)}
    if faults or places != {device}:
        raise RuntimeError(f"faults: {[str(fault) for fault in faults][:3]}; it computed on {sorted(places)}")
    return {"images": len(dataset), "seconds": round(taken.seconds, 1), "computed_on": sorted(places)}
