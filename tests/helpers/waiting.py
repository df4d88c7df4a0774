"""Waiting for Ray."""

from __future__ import annotations

import time


def wait_for_cpus() -> None:
    """Until all are there for the next run, though somebody may hold the error of this one."""
    import ray

    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline, "workers of a run that failed go on"
        time.sleep(0.1)
