"""Fitting a tokenizer's network with Ray Train: from labels to the tokenizer's files, going on after whatever died."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..cluster.device import chosen_device
from ..cluster.trainers import Trainers, TrainersError
from .job import FitError, FitJob
from .listener import FitListener
from .worker import train_worker

if TYPE_CHECKING:
    from ...tokenizers.fitting.figures import Figures

__all__ = ["FitError", "FitJob", "run_fit"]


def run_fit(job: FitJob, listener: FitListener | None = None) -> dict[str, bytes]:
    """The fitted tokenizer's files, as `from_files` takes them; byte for byte the same however often it was broken off.

    listener: told in this process, every `report_every` steps. Where the store holds a checkpoint of the same job, it
    goes on from there; checkpoints stay, for `remove_fit` to remove. Bit-exactness holds on one sort of machine: other
    processors and other numbers of threads round differently.

    Raises FitError with the reason alone.
    """
    job.new_tokenizer()
    from ray.exceptions import RayError

    trainers = Trainers(train_worker, {"job": job}, job.settings.workers, "fit", chosen_device())
    try:
        return trainers.run(partial(_pass_on, job, listener or FitListener()))
    except TrainersError as error:
        raise FitError(str(error)) from None
    except RayError as error:
        raise FitError(f"Ray went down under the training ({error}); the same command goes on from there") from None


def _pass_on(job: FitJob, listener: FitListener, news: str | Figures) -> None:
    if isinstance(news, str):
        listener.say(news)
    else:
        listener.trained(news, job.settings)
