"""The Ray session: connecting to a cluster or starting one here, quietly, and how large it is."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...labelers.plugins.registry import PLUGINS
from .ray_data import keep_on_head
from .takes_nothing import TakesNothing

DEVICE = "TOKENLOOM_DEVICE"
"""Names the device on which workers compute, as torch does, in place of what is found: `cpu` where Ray counts GPUs that
shouldn't be used."""


TOKEN = "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) as on the cluster's head"
"""What is to be set where a cluster asks for a token."""

_ANSWER = 30.0
"""Seconds within which a cluster has to take a connection, and to answer."""


_SETTINGS = 4
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])
"""How a client begins HTTP/2, which gRPC speaks (RFC 9113, 3.4)."""


class EngineError(RuntimeError):
    """The run can't go on; the message is the cause as the worker saw it."""


def start_ray() -> None:
    """Connects to the cluster that RAY_ADDRESS names, or starts Ray here, quietly. Raises EngineError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray's core warns of Ray Data's own actors on every run
    # Of a Ray that is started here: it would keep 100,000, some 5 kB each, for a dashboard that it hasn't.
    os.environ.setdefault("RAY_task_events_max_num_task_in_gcs", "1000")
    import ray

    if not ray.is_initialized():
        # Without an address Ray would join whatever other cluster runs on this machine.
        address = os.environ.get("RAY_ADDRESS") or "local"
        refuse_ray_client(address)
        check_address(address)
        started = address == "local"
        variables = {
            PLUGINS: str(Path.cwd()),
            "TOKENIZERS_PARALLELISM": "false",  # there is a worker for each CPU already
        }
        if started:
            # What is started here has this process' environment. By a runtime_env each worker would be started twice,
            # by a process that imports Ray to set the variables, and those that wait already would wait for nothing.
            options: dict[str, Any] = {"include_dashboard": False}
        else:
            variables |= {name: os.environ.get(name, "") for name in ("PYTHONPATH", DEVICE)}
            options = {"runtime_env": {"env_vars": variables}}
        options["job_config"] = _job_config()
        try:
            # Ray reports its log level on stderr
            with _silent_stderr(), _own_sigterm(), _environment(variables if started else {}):
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # some of Ray's are of this very class
            # It answered in Ray's way a moment ago, and Ray doesn't tell why it takes no driver.
            refused = isinstance(error, ConnectionError) and not started
            why = f". If the cluster asks for a token: set RAY_AUTH_MODE=token and {TOKEN}" if refused else ""
            raise EngineError(f"Ray could not be started or reached: {error}{why}") from error
    else:
        started = False
        if ray.util.client.ray.is_connected():  # type: ignore[attr-defined] - Ray imports it by itself
            refuse_ray_client("ray://HEAD:10001")
    from ray.data import DataContext

    context = DataContext.get_current()
    with suppress(ImportError, AttributeError):  # other versions of Ray hold what they hold
        from .driver_memory import hold_little

        hold_little(context)
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.target_max_block_size = 1  # every row its own block: a unit is what moves, and what is tried again
    context.execution_options.verbose_progress = False
    context.execution_no_progress_timeout_s = -1  # half an hour by itself, in which no autoscaler may find a machine
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its tracebacks; the cause becomes an EngineError
    warnings.filterwarnings("ignore", module=r"ray\.data\.")
    if not started:
        keep_on_head()


def through_client(address: str) -> bool:
    """Whether it is one of Ray Client's."""
    return address.startswith("ray://")


def refuse_ray_client(address: str) -> None:
    """Raises EngineError for an address of Ray Client's: the driver has to live in the cluster (see client.py)."""
    if through_client(address):
        host = urlsplit(address).hostname or "HEAD"
        raise EngineError(
            f"{address}: through Ray Client the commands `run`, `plan` and `doctor` work, and nothing else that needs "
            f"Ray: do it on one of the cluster's machines, with RAY_ADDRESS={host}:6379"
        )


def check_address(address: str, told: str = "RAY_ADDRESS") -> None:
    """Raises EngineError where nothing answers at a cluster's address, which Ray takes ten minutes to notice, or
    something that isn't Ray, for which it waits for ever. told: what the user gave it by."""
    refuse_dashboard(address)
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if through_client(address) and not port.isdigit():
        raise EngineError(f"{told} is {address}: name the port, too, as ray://HEAD:10001")
    if not port.isdigit():
        return  # local, auto, or something that Ray knows better
    else_here = "unset it to have Ray started here" if told == "RAY_ADDRESS" else "leave it out for this machine alone"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER) as connection:
            speaks = os.environ.get("RAY_USE_TLS", "0") != "0" or _speaks_grpc(connection)
    except OSError as error:
        raise EngineError(
            f"{told} is {address}, and nothing answers there ({error.strerror or error}): name the head of a "
            f"cluster that runs, or {else_here}"
        ) from None
    if not speaks:
        raise EngineError(
            f"{told} is {address}, and what answers there isn't Ray: name the address that `ray start --head` "
            f"printed (port 6379 unless told otherwise, 10001 of ray://; a dashboard's begins with http://, and is for "
            f"`submit` and `doctor --address`), or {else_here}"
        )


def is_dashboard(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def refuse_dashboard(address: str) -> None:
    """Raises EngineError for an address by which Ray's own `ray job` finds a cluster, and drivers don't."""
    if is_dashboard(address):
        raise EngineError(
            f"RAY_ADDRESS is {address}, the address of a dashboard: unset it and give that to `tokenloom submit` or "
            f"`doctor` as --address, or name {urlsplit(address).hostname or 'HEAD'}:6379 on a machine of the cluster"
        )


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether HTTP/2's greeting is answered in kind: by a frame of settings, whose type is its fourth byte."""
    try:
        connection.sendall(_GREETING)
        frame = connection.recv(9, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(frame) == 9 and frame[3] == _SETTINGS


def _job_config() -> Any:
    """One by which workers don't look for modules in the working directory first, as Ray would have them: a `random.py`
    there would take the place of Python's own. Plugins are looked for there last, by PLUGINS."""
    from ray.job_config import JobConfig

    config = JobConfig()
    config._py_driver_sys_path = TakesNothing()
    return config


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """This process' environment, and what is started meanwhile, has these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keeps SIGTERM's handler. Ray puts others in its place that exit without a word, and its core, natively, one that
    may abort: SIGTERM waits for as long as that begins, and then finds ours."""
    from ray._private import utils

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    native: Any = sys.modules["ray._raylet"]
    ours, theirs, core = signal.getsignal(signal.SIGTERM), utils.set_sigterm_handler, native.CoreWorker

    def begun(*words: Any, **more: Any) -> Any:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            return core(*words, **more)
        finally:
            signal.signal(signal.SIGTERM, ours)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    utils.set_sigterm_handler, native.CoreWorker = lambda handler: None, begun
    try:
        yield
    finally:
        utils.set_sigterm_handler, native.CoreWorker = theirs, core
        signal.signal(signal.SIGTERM, ours)


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
    """Disconnects from the cluster, or stops the Ray that `start_ray` started here.

    Where the head or the raylet is gone Ray takes half a minute for this, or ends the process out of native code. So
    commands that fail say why first, and leave this to the process' end, at which Ray does the same.
    """
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
