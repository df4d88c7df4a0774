"""Drivers in lock-step: threads of which one runs at a time, that take turns before each operation on a store.

Whose turn is next is drawn from a seed, so that a schedule can be repeated. What a driver's thread pools would do at
the same time it does itself, one after another.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from tokenloom.pipeline.storage.store import Store

OPERATIONS = ("create", "list", "read", "read_range", "replace", "delete", "exists", "children", "stat")


class Killed(BaseException):
    """A driver was killed before an operation: nothing that it would do afterwards is done."""


@dataclass
class Driver:
    """What one thread does; `outcome` is what it returned, or what it raised. dies_at: the operation before which it is
    killed."""

    work: Callable[[], Any]
    dies_at: int | None = None
    outcome: Any = None
    error: BaseException | None = None
    steps: int = 0
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


class LockStep:
    """Runs drivers by a schedule."""

    def __init__(self, *drivers: Driver) -> None:
        self.drivers = list(drivers)
        self._of_thread: dict[int, Driver] = {}
        self._back = threading.Semaphore(0)

    def run(self, seed: int) -> None:
        rng = random.Random(seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ThreadPoolExecutor, "submit", _at_once)
            patch.setattr(ThreadPoolExecutor, "map", lambda pool, function, *items: map(function, *items))
            for name in OPERATIONS:
                patch.setattr(Store, name, self._stepwise(getattr(Store, name)))
            alive = list(self.drivers)
            for driver in alive:
                threading.Thread(target=self._live, args=(driver,), daemon=True).start()
            while alive:
                driver = rng.choice(alive)
                driver.turn.release()
                self._back.acquire()
                alive = [one for one in alive if one.outcome is None and one.error is None]

    def _live(self, driver: Driver) -> None:
        driver.turn.acquire()
        self._of_thread[threading.get_ident()] = driver
        try:
            driver.outcome = driver.work() or True
        except BaseException as error:
            driver.error = error
        self._back.release()

    def _stepwise(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def step(store: Store, *arguments: Any, **more: Any) -> Any:
            driver = self._of_thread.get(threading.get_ident())
            if driver is not None:
                self._back.release()
                driver.turn.acquire()
                if driver.steps == driver.dies_at:
                    raise Killed
                driver.steps += 1
            return operation(store, *arguments, **more)

        return step


def _at_once(pool: ThreadPoolExecutor, function: Callable[..., Any], /, *arguments: Any, **more: Any) -> Future[Any]:
    future: Future[Any] = Future()
    try:
        future.set_result(function(*arguments, **more))
    except Exception as error:
        future.set_exception(error)
    return future
