"""Ray's Jobs API: what is sent to a cluster as a job, and what is heard of it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from . import in_job
from .package import LostError, Package, SendError
from .session import EngineError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_ANSWER = 10.0
"""Seconds within which a dashboard has to answer."""
_PATIENCE = 60.0
"""Seconds for which it may be out of reach while a job is followed."""
_CHATTY = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging")
"""Loggers that tell of every upload and connection."""
_STOPPED = 143
"""A stopped job's exit code: Ray ends it by SIGTERM, and tells none."""


def connect(address: str) -> JobSubmissionClient:
    """A client of the dashboard at http://HEAD:8265. Raises SendError within seconds where there is none, or it
    refuses; EngineError where Ray's own client is lacking here."""
    url = dashboard_url(address)
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):  # either would take the place of the client's argument
        os.environ.pop(name, None)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
        from ray.job_submission import JobSubmissionClient

        for chatty in _CHATTY:
            logging.getLogger(f"ray.{chatty}").setLevel(logging.WARNING)
        _check_dashboard(url, get_auth_headers_if_auth_enabled({}))
        return JobSubmissionClient(url)
    except (ImportError, RuntimeError) as error:
        raise EngineError(
            f"Ray's Jobs API can't be used from here: {error}; pip install 'tokenloom[cluster]'"
        ) from error


def dashboard_url(address: str) -> str:
    """Written out where it is HEAD:8265 alone. SendError for what can't be a dashboard's."""
    if "@" in address:  # not shown: what stands before it is a secret
        raise SendError("--address: Ray's client sends no user or password; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN")
    url = address.rstrip("/") if "://" in address else f"http://{address.rstrip('/')}"
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise SendError(f"--address {address}: name the cluster's dashboard, as http://HEAD:8265")
    return url


def _check_dashboard(url: str, headers: Mapping[str, str]) -> None:
    """Raises SendError where no dashboard of Ray's answers at the URL, where its client would wait for ever."""
    told = f"--address {url}"
    try:
        with urlopen(Request(f"{url}/api/version", headers=dict(headers)), timeout=_ANSWER) as answer:
            if "ray_version" not in json.load(answer):
                raise ValueError
    except HTTPError as error:
        if error.code in (401, 403):
            has = "refuses this one's" if headers else "asks for a"
            raise SendError(
                f"{told}: the cluster {has} token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) "
                f"as on its head"
            ) from None
        raise SendError(f"{told}: what answers there isn't Ray's dashboard (HTTP {error.code}); {_WHERE}") from None
    except (ValueError, HTTPException):
        raise SendError(f"{told}: what answers there isn't Ray's dashboard; {_WHERE}") from None
    except OSError as error:
        why = getattr(error, "reason", error)
        said = getattr(why, "strerror", None) or why
        if isinstance(why, ConnectionResetError):
            raise SendError(f"{told}: what answers there isn't Ray's dashboard ({said}); {_WHERE}") from None
        raise SendError(
            f"{told}: nothing answers there ({said}); is the cluster up, with its dashboard? The head needs "
            f"ray[default], which tokenloom[cluster] brings, and --dashboard-host 0.0.0.0 to be reached from elsewhere"
        ) from None


_WHERE = "its port is 8265 unless `ray start --dashboard-port` says otherwise, not 6379 or 10001"


def send(client: JobSubmissionClient, package: Package, name: str) -> str:
    """Starts a job of the package; its id, which begins with what `name` has of letters, digits, - and _: it stands in
    URLs and in commands. Raises SendError, EngineError."""
    package.check_size()
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", name)[:40].strip("-") or "recipe"
    with TemporaryDirectory(prefix="tokenloom-job-") as folder:
        package.write(Path(folder))
        try:
            return client.submit_job(
                entrypoint=f"python {Path(in_job.__file__).name}",
                runtime_env={"working_dir": folder},
                submission_id=f"tokenloom-{plain}-{os.urandom(4).hex()}",
                metadata={"tokenloom": name},
            )
        except (RuntimeError, OSError) as error:
            raise EngineError(f"the cluster doesn't take the job: {error}") from error


def follow(
    client: JobSubmissionClient, job: str, write: Callable[[str], None], say: Callable[[str], None] = print
) -> int:
    """Hands on the job's log until it ends; its exit code. After a lost connection, of which it tells, it goes on where
    it was. Raises LostError when the dashboard is out of reach for a minute."""
    from aiohttp import ClientError

    written, lost = 0, 0.0

    def back() -> None:
        nonlocal lost
        if lost:
            say("the dashboard is back")
        lost = 0.0

    async def tail() -> None:
        nonlocal written, lost
        passed = 0  # of what comes again after a lost connection
        async for text in client.tail_job_logs(job):
            new, passed = text[max(0, written - passed) :], passed + len(text)
            if new:
                write(new)
                written += len(new)
            back()

    while True:
        try:
            asyncio.run(tail())
            details = client.get_job_info(job)
        except (RuntimeError, OSError, ClientError) as error:
            if not lost:
                lost = time.monotonic()
                say(f"the dashboard is out of reach; trying again for {_PATIENCE:.0f} s")
            if time.monotonic() - lost > _PATIENCE:
                raise LostError(f"{job}: the dashboard is out of reach for {_PATIENCE:.0f} s: {error}") from error
        else:
            back()
            if details.status.is_terminal():
                break
        time.sleep(1.0)
    if details.status == "SUCCEEDED":
        return 0
    if details.status == "STOPPED":
        return _STOPPED
    if details.driver_exit_code is None:  # it never came to the log
        write(f"tokenloom: the job failed: {details.message}\n")
    return details.driver_exit_code or 1
