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
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from . import in_job
from .package import LostError, Package, SendError
from .session import TOKEN, EngineError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_ANSWER = 10.0
"""Seconds within which a dashboard has to answer."""
_TAKING = 60.0
"""Seconds within which it has to answer what is sent to it."""
_PATIENCE = 60.0
"""Seconds for which it may be out of reach while a job is followed."""
_SILENCE = 30.0
"""Seconds without a line of a job's log after which the job is asked for: the connection may have broken unheard."""
_SILENCES = 10
"""Of them in a row, after which the log is asked for anew."""
_CHATTY = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging")
"""Loggers that tell of every upload and connection."""
_OUTPUT = "tokenloom_output"
"""The entry of a job's metadata that says what it makes."""
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
        from ray.exceptions import AuthenticationError

        try:
            headers = get_auth_headers_if_auth_enabled({})
        except AuthenticationError:
            raise SendError(f"--address {url}: RAY_AUTH_MODE is token, and there is none here: {TOKEN}") from None
        _check_dashboard(url, headers)
        return _client(url)
    except (ImportError, RuntimeError) as error:
        raise EngineError(
            f"Ray's Jobs API can't be used from here: {error}; pip install 'tokenloom[cluster]'"
        ) from error


def _client(url: str) -> JobSubmissionClient:
    """Ray's, which would wait for ever, with a limit to each wait."""
    from ray.job_submission import JobSubmissionClient

    for chatty in _CHATTY:  # after their import, which sets their levels
        logging.getLogger(f"ray.{chatty}").setLevel(logging.WARNING)

    class Client(JobSubmissionClient):
        def _do_request(self, method: str, endpoint: str, **words: Any) -> Any:
            limit = _ANSWER if method == "GET" else _TAKING
            return super()._do_request(method, endpoint, timeout=limit, **words)

    return Client(url)


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
            raise SendError(f"{told}: the cluster {has} token: set RAY_AUTH_MODE=token and {TOKEN}") from None
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


def new_job(name: str) -> str:
    """The id of a job that is to be: it begins with what `name` has of letters, digits, - and _, since it stands in
    URLs and in commands."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", name)[:40].strip("-") or "recipe"
    return f"tokenloom-{plain}-{os.urandom(4).hex()}"


def at_work_on(client: JobSubmissionClient, output: str) -> list[str]:
    """The ids of the cluster's jobs that were sent to make this output and haven't ended; none where it doesn't say."""
    try:
        return [
            job.submission_id or ""
            for job in client.list_jobs()
            if (job.metadata or {}).get(_OUTPUT) == output and not job.status.is_terminal()
        ]
    except (RuntimeError, OSError):
        return []


def send(client: JobSubmissionClient, package: Package, job: str, name: str, output: str = "") -> None:
    """Starts a job of the package, with this id. output: what it makes, for `at_work_on`. Raises SendError,
    EngineError, and LostError where the cluster may or may not have taken it."""
    from requests.exceptions import ConnectionError, Timeout

    package.check_size()
    with TemporaryDirectory(prefix="tokenloom-job-") as folder:
        package.write(Path(folder))
        try:
            client.submit_job(
                entrypoint=f"python {Path(in_job.__file__).name}",
                runtime_env={"working_dir": folder},
                submission_id=job,
                metadata={"tokenloom": name, **({_OUTPUT: output} if output else {})},
            )
        except (ConnectionError, Timeout) as error:
            raise LostError(f"{job}: the dashboard doesn't say that it has taken the job: {error}") from error
        except (RuntimeError, OSError) as error:
            raise EngineError(f"the cluster doesn't take the job: {error}") from error


def _is_forgotten(client: JobSubmissionClient, job: str) -> bool:
    """Whether the dashboard, and nothing before it, says that there is no such job."""
    try:
        client.get_job_info(job)
    except (RuntimeError, OSError) as error:
        return f"404: Job {job} does not exist" in str(error)
    return False


def follow(
    client: JobSubmissionClient, job: str, write: Callable[[str], None], say: Callable[[str], None] = print
) -> int:
    """Hands on the job's log until it ends; its exit code. After a lost connection, of which it tells, it goes on where
    it was. Raises LostError when the dashboard is out of reach for a minute, and EngineError when it doesn't know the
    job."""
    from aiohttp import ClientError

    written, lost, unheard = 0, 0.0, False

    def back() -> None:
        nonlocal lost
        if lost:
            say("the dashboard is back")
        lost = 0.0

    async def tail() -> bool:
        """Whether the log was heard until its end."""
        nonlocal written
        passed = 0  # of what comes again after a lost connection
        log = client.tail_job_logs(job)
        while True:
            piece = asyncio.ensure_future(anext(log, None))
            for _ in range(_SILENCES):
                if (await asyncio.wait({piece}, timeout=_SILENCE))[0]:
                    break
                if client.get_job_info(job).status.is_terminal():
                    return False
            else:
                return False
            if (text := await piece) is None:
                return True
            new, passed = text[max(0, written - passed) :], passed + len(text)
            if new:
                write(new)
                written += len(new)
            back()

    while True:
        try:
            if lost:
                client.get_job_info(job)  # which has a limit
            heard = asyncio.run(tail())
            details = client.get_job_info(job)
        except (RuntimeError, OSError, ClientError) as error:
            if "404" in str(error) and _is_forgotten(client, job):
                raise EngineError(
                    f"{job}: the cluster doesn't know this job any more: its head was started anew, and what ran there "
                    f"has ended. Submit the recipe again, which goes on where this stopped"
                ) from None
            if not lost:
                lost = time.monotonic()
                say(f"the dashboard is out of reach; trying again for {_PATIENCE:.0f} s")
            if time.monotonic() - lost > _PATIENCE:
                raise LostError(f"{job}: the dashboard is out of reach for {_PATIENCE:.0f} s: {error}") from error
        else:
            back()
            if details.status.is_terminal():
                if heard or unheard:
                    break
                unheard = True  # the rest of its log is asked for once more
        time.sleep(1.0)
    if details.status == "SUCCEEDED":
        return 0
    if details.status == "STOPPED":
        return _STOPPED
    if details.driver_exit_code is None:  # it never came to the log
        write(f"tokenloom: the job failed: {details.message}\n")
    return details.driver_exit_code or 1
