"""The Ray session: connecting to a cluster or starting one here, quietly, and how large it is."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEVICE = "TOKENLOOM_DEVICE"
"""Names the device on which workers compute, as torch does, in place of what is found: `cpu` where Ray counts GPUs that
shouldn't be used."""


class EngineError(RuntimeError):
    """The run can't go on; the message is the cause as the worker saw it."""


def start_ray() -> None:
    """Connects to the cluster that RAY_ADDRESS names, or starts Ray here, quietly. Raises EngineError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's core warns of Ray Data's own actors on every run
    import ray

    if not ray.is_initialized():
        # Plugins written as module:Class may lie in the working directory.
        paths = os.pathsep.join(path for path in (str(Path.cwd()), os.environ.get("PYTHONPATH", "")) if path)
        try:
            with _silent_stderr(), _own_sigterm():  # Ray reports its log level on stderr
                ray.init(
                    include_dashboard=None if os.environ.get("RAY_ADDRESS") else False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    runtime_env={"env_vars": {"PYTHONPATH": paths, DEVICE: os.environ.get(DEVICE, "")}},
                )
        except Exception as error:  # some of Ray's are of this very class
            raise EngineError(f"Ray could not be started or reached: {error}") from error
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.target_max_block_size = 1  # every row its own block: a unit is what moves, and what is tried again
    context.execution_options.verbose_progress = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its tracebacks; the cause becomes an EngineError
    warnings.filterwarnings("ignore", module=r"ray\.data\.")


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keeps SIGTERM's handler, in whose place Ray puts one that exits without a word."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Sends what native code writes to stderr nowhere; Python's exceptions are not affected."""
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def stop_ray() -> None:
    """Disconnects from the cluster, or stops the Ray that `start_ray` started here."""
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
