"""Ray Client, `ray://`: a command done in the cluster while this process waits for it, and hands on what it says.

Ray Data, by which a run works, wants a core worker in the driver's own process, which a client doesn't have (Ray 2.60).
So the driver is a process on the head.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import get_terminal_size
from tempfile import TemporaryDirectory
from typing import Any

from . import in_job
from .driver import ALONE, Driver
from .nodes import alive_nodes, by_value, place_on
from .package import LostError, Package
from .session import EngineError, check_address

_STOPPED, _KILLED = 143, 137
"""The exit codes of what SIGTERM stopped, and SIGKILL."""

_ATTEMPTS = 3
_NOT_STARTED = "Starting Ray client server failed"
"""What Ray says where a process that it forked on the head, for this client, ended at once. Python's gRPC has handlers
of forks, which on a head whose other threads are in gRPC at that moment may abort the child before it becomes what it
should (Ray 2.60, its issue 63202); so another one may succeed."""


def have_driven(address: str, package: Package, write: Callable[[int, str], None]) -> int:
    """Has the package's command done on the cluster at `ray://HOST:PORT`; its exit code. What stops this process (a
    SystemExit, raised by a signal) stops the command, and what that says until its end is still heard; a second one is
    raised. write: takes the command's lines, each with the number of its stream.

    Raises EngineError where the cluster can't be reached, refuses, or kills it, and LostError where it can't be reached
    any more.
    """
    with TemporaryDirectory(prefix="tokenloom-client-") as folder:
        package.write(Path(folder))
        with _connected(address, folder):
            return _follow(address, _driver(), write)


@contextmanager
def _connected(address: str, folder: str) -> Iterator[None]:
    """Connected, with the folder's content as working directory of all that is started."""
    check_address(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # this process' environment is none of the cluster's
    import ray

    # The driver is to see the head's GPUs, as one that is started there does.
    runtime_env = {"working_dir": folder, "env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}
    for attempt in range(_ATTEMPTS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(address, runtime_env=runtime_env, log_to_driver=False, logging_level=logging.ERROR)
            break
        except Exception as error:  # Ray's are of many classes
            ray.shutdown()
            if _NOT_STARTED not in str(error) or attempt == _ATTEMPTS - 1:
                raise EngineError(_refused(address, error)) from error
    for chatty in ("ray", "ray.util.client.logsclient"):  # of each attempt to reconnect
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()


def _refused(address: str, error: Exception) -> str:
    """Ray's own words, of which there may be a page, in a line."""
    if isinstance(error, ConnectionError) and "timeout" in str(error):
        return (
            f"{address}: what answers there isn't Ray Client's server, or has another token: its port is 10001 unless "
            f"`ray start --ray-client-server-port` says otherwise, and where the cluster asks for a token, set "
            f"RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) as on its head"
        )
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{address}: {lines[-1] if 'Traceback' in str(error) else ' '.join(map(str.strip, lines))}"


def _driver() -> Any:
    import ray

    by_value(Driver)
    head = next(node for node in alive_nodes() if node.is_head)
    actor: Any = ray.remote(Driver)
    words = [Path(in_job.__file__).name, in_job.ATTACHED]
    columns = get_terminal_size().columns
    return actor.options(num_cpus=0, max_concurrency=2, **place_on(head)).remote(words, columns)


def _follow(address: str, driver: Any, write: Callable[[int, str], None]) -> int:
    taken, stopped, code = 0, 0, None
    while code is None:
        try:
            lines, code = _asked(address, driver.read, taken)
            for number, line in lines:
                taken += 1
                write(number, line)
        except SystemExit as signalled:
            if stopped:
                raise
            stopped = int(str(signalled.code))
            _asked(address, driver.stop)
    if code == _KILLED:
        raise EngineError(
            f"{address}: the command's process on the head was killed; was there too little memory? What was committed "
            f"stays, the same command goes on from there"
        )
    return stopped if stopped and code == _STOPPED else code


def _asked(address: str, method: Any, *arguments: Any) -> Any:
    import ray

    try:
        return ray.get(method.remote(*arguments))
    except Exception as error:  # Ray's and gRPC's are of many classes
        lines = str(error).strip().splitlines() or [type(error).__name__]
        why = "there is no connection" if isinstance(error, ConnectionError) else lines[-1].strip()
        raise LostError(
            f"{address}: lost sight of what runs there ({why}). The cluster stops it within {ALONE:.0f} s, if it "
            f"goes on at all; what was committed stays, the same command goes on from there"
        ) from error
