"""What each training process of a fit does."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...labelers.contract.kinds import kind_from
from ...labelers.networks.hub import CheckpointError
from ..cluster.device import chosen_device
from ..cluster.trainers import StoppedError, attempt, threads_for
from .checkpoints import Checkpoints
from .examples import Examples, gather
from .job import FitError, FitJob

if TYPE_CHECKING:
    from ...tokenizers.fitting.training import Training
    from ...tokenizers.vq.base import TrainedTokenizer

_METRICS_SECONDS = 10.0
"""After which metrics are written, be there a checkpoint or not."""


def train_worker(config: Mapping[str, Any]) -> None:
    """Runs in each process of Ray Train. config: job, board, threads (of torch; None: the machine's CPUs)."""
    import ray.train
    import torch

    from ...tokenizers.fitting.training import DivergedError

    job, board = config["job"], config["board"]
    context = ray.train.get_context()
    torch.set_num_threads(threads_for(config, context.get_local_world_size()))
    attempt(
        lambda: _fit(job, board),
        board,
        alone=context.get_world_size() == 1,
        reason=lambda error: _reason(error, job),
        ours=(ValueError, OSError, torch.OutOfMemoryError),
        of_all=(DivergedError,),
    )


def _fit(job: FitJob, board: Any) -> None:
    import ray
    import ray.train

    rank = ray.train.get_context().get_world_rank()
    tokenizer = job.new_tokenizer()
    if rank == 0:
        ray.get(board.tell.remote("reading the labels"))
    examples = gather(tokenizer, job.labels.read(kind_from(job.kind)))
    checkpoints = Checkpoints(job.store, job.prefix, job.digest(tokenizer.version, examples.digest))
    training = _new_training(job, tokenizer, examples)
    if rank == 0 and checkpoints.remove_others():
        ray.get(board.tell.remote("checkpoints of another fit were in its place, and are removed"))
    state = checkpoints.latest()
    if state is not None:
        training.restore(state)
    if rank == 0:
        begin = f"going on from step {training.step} of" if state else "training for"
        ray.get(board.tell.remote(f"{begin} {job.settings.steps} steps on {len(examples.array)} examples"))
    _advance_all(job, training, checkpoints if rank == 0 else None, board)
    if rank == 0:
        tokenizer.use_device("cpu")
        tokenizer.finish(training.finished(), training.facts())
        ray.get(board.finish.remote(tokenizer.to_files()))


def _new_training(job: FitJob, tokenizer: TrainedTokenizer, examples: Examples) -> Training:
    import ray.train
    import torch
    from ray.train.torch import get_device, prepare_model

    from ...tokenizers.fitting.training import Training

    context = ray.train.get_context()
    device = torch.device(chosen_device() or get_device())
    if device.type == "cuda":  # so that a resumed training is the same on a GPU, too
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    network = tokenizer.design(examples.array, job.seed)
    tokenizer.use_device(str(device))
    try:
        perceptual = tokenizer.perceptual_loss(job.perceptual_weights())
    except (CheckpointError, ModuleNotFoundError) as error:
        raise FitError(str(error)) from None
    return Training(
        network,
        tokenizer.objective,
        examples.array,
        tokenizer.to_batch,
        job.settings,
        job.seed,
        device,
        context.get_world_rank(),
        context.get_world_size(),
        lambda module: prepare_model(module, move_to_device=False),
        perceptual,
    )


def _advance_all(job: FitJob, training: Training, checkpoints: Checkpoints | None, board: Any) -> None:
    """All steps that are left. checkpoints: of the first worker, which reports, too; None in others."""
    import ray

    steps, written = job.settings.steps, time.monotonic()
    while training.step < steps:
        figures = training.advance()
        if checkpoints is None:
            continue
        last = figures.step == steps
        if last or figures.step % job.settings.report_every == 0:
            checkpoints.add_metrics(figures.to_json())
            if ray.get(board.tell.remote(figures)) is not None:
                raise StoppedError
        if last or figures.step % job.settings.checkpoint_every == 0:
            checkpoints.save(figures.step, training.state())
        elif time.monotonic() - written > _METRICS_SECONDS:
            checkpoints.write_metrics()
            written = time.monotonic()


def _reason(error: Exception, job: FitJob) -> str:
    """What the user is told of it."""
    if type(error).__name__ == "OutOfMemoryError":
        return (
            f"the GPU's memory is too small for batch_size = {job.settings.batch_size} on {job.settings.workers} "
            f"workers: take a smaller batch, more workers or a smaller network"
        )
    own = isinstance(error, ValueError | OSError)
    return str(error) if own and str(error) else f"{type(error).__name__}: {error}"
