"""Fitting a tokenizer's network with Ray Train: from labels to the tokenizer's files, going on after whatever died."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from threading import Thread
from typing import Any

from ..cluster.device import chosen_device
from ..cluster.nodes import own_node
from ..cluster.raylet import raylet_watched
from ..cluster.session import start_ray
from .job import FitError, FitJob
from .listener import FitListener
from .worker import Board, train_worker

__all__ = ["FitError", "FitJob", "run_fit"]

_DEATHS = 10
"""Of training processes, after which a fit is given up."""

_LOOK = 0.2
"""Seconds between two looks at the board."""

_RAY_TRAIN = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",  # a busy machine takes its time to start processes
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon its end is noticed; the default of 2 suits longer trainings
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def run_fit(job: FitJob, listener: FitListener | None = None) -> dict[str, bytes]:
    """The fitted tokenizer's files, as `from_files` takes them; byte for byte the same however often it was broken off.

    listener: told in this process, every `report_every` steps. Where the store holds a checkpoint of the same job, it
    goes on from there; checkpoints stay, for `remove_fit` to remove. Bit-exactness holds on one sort of machine: other
    processors and other numbers of threads round differently.

    Raises FitError with the reason alone.
    """
    job.new_tokenizer()
    for name, value in _RAY_TRAIN.items():
        os.environ.setdefault(name, value)
    start_ray()
    with raylet_watched():
        return _fitted(job, listener or FitListener())


def _fitted(job: FitJob, listener: FitListener) -> dict[str, bytes]:
    gpus = _check_cluster(job)
    import ray

    if len(ray.nodes()) == 1:  # one process less to start: nobody would be left to go on elsewhere
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(own_node(), soft=False)
    board: Any = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
    ended: list[Exception] = []
    try:
        # In a thread Ray Train leaves SIGINT's handler alone, and this one can watch meanwhile.
        trainer = Thread(target=_train, args=(job, board, gpus, ended), daemon=True, name="ray-train")
        trainer.start()
        while trainer.is_alive():
            trainer.join(_LOOK)
            _pass_on(board, job, listener)
        files, reason = ray.get([board.files.remote(), board.reason.remote()])
    except RayError as error:
        raise FitError(f"Ray went down under the training ({error}); the same command goes on from there") from None
    except BaseException:  # Ctrl-C too: the training's processes have to hear of it
        board.stop.remote("interrupted")
        raise
    ray.kill(board)
    if files is None:
        raise FitError(reason or _died(ended))
    return files


def _train(job: FitJob, board: Any, gpus: bool, ended: list[Exception]) -> None:
    """Runs Ray Train until its end; an error goes into `ended`."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.CRITICAL)
    threads = int(os.environ["OMP_NUM_THREADS"]) if os.environ.get("OMP_NUM_THREADS", "").isdigit() else None
    try:
        with tempfile.TemporaryDirectory(prefix="tokenloom-fit-") as folder:  # where Ray Train leaves its own marks
            trainer = TorchTrainer(
                train_worker,
                train_loop_config={"job": job, "board": board, "threads": threads},
                torch_config=TorchConfig("nccl" if gpus and not chosen_device() else "gloo"),
                scaling_config=ScalingConfig(num_workers=job.settings.workers, use_gpu=gpus),
                run_config=RunConfig(
                    name=f"fit-{time.time_ns()}",
                    storage_path=folder,
                    failure_config=FailureConfig(max_failures=_DEATHS),
                ),
            )
            trainer.fit()
    except Exception as error:
        ended.append(error)


def _pass_on(board: Any, job: FitJob, listener: FitListener) -> None:
    import ray

    for news in ray.get(board.take.remote()):
        if isinstance(news, str):
            listener.say(news)
        else:
            listener.trained(news, job.settings)


def _check_cluster(job: FitJob) -> bool:
    """Whether each worker gets a GPU. Raises FitError where there are too few CPUs: Ray would wait for ever."""
    import ray

    resources, workers = ray.cluster_resources(), job.settings.workers
    if resources.get("CPU", 0) < workers:
        raise FitError(f"workers = {workers}, and the cluster has {resources.get('CPU', 0):g} CPUs: take fewer")
    return resources.get("GPU", 0) >= workers


def _died(ended: list[Exception]) -> str:
    """Why Ray Train gave up, in a few words."""
    if not ended:
        return "the training ended without a word"
    failures = getattr(ended[0], "worker_failures", None)
    cause = next(iter(failures.values())) if failures else ended[0]
    first = next((line.strip() for line in str(cause).splitlines() if line.strip()), "no message")
    what = f"its processes died {_DEATHS + 1} times, at last of" if failures else "Ray Train gave it up:"
    return (
        f"the training didn't end: {what} {type(cause).__name__}: {first}; is there too little memory? The same "
        f"command goes on from the latest checkpoint"
    )
