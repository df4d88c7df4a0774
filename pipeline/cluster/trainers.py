"""Processes that train one network together, by Ray Train: started, followed, stopped, started again if they die."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from .nodes import own_node
from .raylet import raylet_watched
from .session import start_ray

DEATHS = 10
"""Of training processes, after which a training is given up."""

_LOOK = 0.2
"""Seconds between two looks at the board."""

_RAY_TRAIN = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",  # a busy machine takes its time to start processes
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon its end is noticed; the default of 2 suits longer trainings
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


class TrainersError(ValueError):
    """Trainers that couldn't start, or ended without an outcome; the message is the reason."""


class StoppedError(Exception):
    """In a training process: the driver wants no more of it."""


class Board:
    """Where the training leaves news for the driver, and the driver its wish to stop. An actor."""

    def __init__(self) -> None:
        self._news: list[Any] = []
        self._reason: str | None = None
        self._outcome: Any = None

    def tell(self, news: Any) -> str | None:
        """What to show; why the training is to stop, if it is."""
        self._news.append(news)
        return self._reason

    def take(self) -> list[Any]:
        """The news since the last time."""
        news, self._news = self._news, []
        return news

    def stop(self, reason: str) -> None:
        """The first reason stays."""
        self._reason = self._reason or reason

    def reason(self) -> str | None:
        return self._reason

    def finish(self, outcome: Any) -> None:
        self._outcome = outcome

    def outcome(self) -> Any:
        return self._outcome


def attempt(
    work: Callable[[], None],
    board: Any,
    alone: bool,
    reason: Callable[[Exception], str],
    ours: tuple[type[Exception], ...],
    of_all: tuple[type[Exception], ...],
) -> None:
    """Does the work in a training process, unless the training is to stop already.

    What is the user's to mend is written on the board as a reason, and not tried again; with several processes, which
    wait for each other, the error ends them all. Other errors are for Ray Train, which starts the processes again.
    ours: what is the user's, where a process isn't alone; else everything is. of_all: of these, what all processes
    raise at one step, so that nobody is left to wait.
    """
    import ray

    try:
        if ray.get(board.reason.remote()) is None:
            work()
    except StoppedError:
        if not alone:
            raise
    except Exception as error:
        if not alone and not isinstance(error, ours):
            raise
        ray.get(board.stop.remote(reason(error)))
        if not alone and not isinstance(error, of_all):
            raise


def threads_for(config: Mapping[str, Any], processes_here: int) -> int:
    """Of torch, in each of so many training processes of a machine. config: what `Trainers.work` is given."""
    return config["threads"] or max(1, (os.cpu_count() or 1) // processes_here)


@dataclass(frozen=True)
class Trainers:
    """What is to be done by Ray Train, in how many processes.

    work: runs in each of them, with the config and beside it `board`, an actor of Board's, and `threads`, for torch
    (None: the machine's CPUs). A Board's reason is the user's to mend, and ends it; other errors start all processes
    again. device: as `chosen_device` names it, in place of what is found. patience: seconds that a Ctrl-C waits for
    the processes to end by themselves.
    """

    work: Callable[[Mapping[str, Any]], None]
    config: Mapping[str, Any]
    count: int
    name: str
    device: str | None = None
    patience: float = 0.0
    _ended: list[Exception] = field(default_factory=list)

    def run(self, hear: Callable[[Any], object]) -> Any:
        """What the work gave to `Board.finish`. hear: is told each of the news, in this process.

        Raises TrainersError with the board's reason, or for processes that died too often; RayError.
        """
        for name, value in _RAY_TRAIN.items():
            os.environ.setdefault(name, value)
        start_ray()
        with raylet_watched():
            return self._run(hear)

    def _run(self, hear: Callable[[Any], object]) -> Any:
        gpus = self._look_for_gpus()
        import ray

        if len(ray.nodes()) == 1:  # one process less to start: nobody would be left to go on elsewhere
            os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(own_node(), soft=False)
        board: Any = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
        # In a thread Ray Train leaves SIGINT's handler alone, and this one can watch meanwhile.
        trainer = Thread(target=self._train, args=(board, gpus), daemon=True, name="ray-train")
        try:
            trainer.start()
            self._follow(trainer, board, hear)
        except BaseException:  # Ctrl-C too: the training's processes have to hear of it
            board.stop.remote("interrupted")
            self._wait(trainer, board, hear)
            raise
        outcome, reason = ray.get([board.outcome.remote(), board.reason.remote()])
        ray.kill(board)
        if outcome is None:
            raise TrainersError(reason or self._died())
        return outcome

    def _follow(self, trainer: Thread, board: Any, hear: Callable[[Any], object], until: float = float("inf")) -> None:
        import ray

        while trainer.is_alive() and time.monotonic() < until:
            trainer.join(_LOOK)
            for news in ray.get(board.take.remote()):
                hear(news)

    def _wait(self, trainer: Thread, board: Any, hear: Callable[[Any], object]) -> None:
        from ray.exceptions import RayError

        try:
            self._follow(trainer, board, hear, time.monotonic() + self.patience)
        except RayError:
            return  # it went down, too

    def _train(self, board: Any, gpus: bool) -> None:
        """Runs Ray Train until its end."""
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        logging.getLogger("ray.train").setLevel(logging.CRITICAL)
        threads = int(os.environ["OMP_NUM_THREADS"]) if os.environ.get("OMP_NUM_THREADS", "").isdigit() else None
        # gloo beside nccl, for what is sent between CPUs, such as the plans of checkpoints.
        backend = "cpu:gloo,cuda:nccl" if gpus and not self.device else "gloo"
        try:
            with tempfile.TemporaryDirectory(prefix=f"tokenloom-{self.name}-") as folder:  # for Ray Train's own marks
                trainer = TorchTrainer(
                    self.work,
                    train_loop_config={**self.config, "board": board, "threads": threads},
                    torch_config=TorchConfig(backend),
                    scaling_config=ScalingConfig(num_workers=self.count, use_gpu=gpus),
                    run_config=RunConfig(
                        name=f"{self.name}-{time.time_ns()}",
                        storage_path=folder,
                        failure_config=FailureConfig(max_failures=DEATHS),
                    ),
                )
                trainer.fit()
        except Exception as error:
            self._ended.append(error)

    def _look_for_gpus(self) -> bool:
        """Whether each process gets a GPU. Raises TrainersError where there are too few CPUs: Ray would wait for
        ever."""
        import ray

        resources = ray.cluster_resources()
        if resources.get("CPU", 0) < self.count:
            raise TrainersError(
                f"workers = {self.count}, and the cluster has {resources.get('CPU', 0):g} CPUs: take fewer"
            )
        return resources.get("GPU", 0) >= self.count

    def _died(self) -> str:
        """Why Ray Train gave up, in a few words."""
        if not self._ended:
            return "the training ended without a word"
        failures = getattr(self._ended[0], "worker_failures", None)
        cause = next(iter(failures.values())) if failures else self._ended[0]
        first = next((line.strip() for line in str(cause).splitlines() if line.strip()), "no message")
        what = f"its processes died {DEATHS + 1} times, at last of" if failures else "Ray Train gave it up:"
        return (
            f"the training didn't end: {what} {type(cause).__name__}: {first}; is there too little memory? The same "
            f"command goes on from the latest checkpoint"
        )
