"""What `infra/dev test --fast` has time for: tests that took longest lately are left out, until the rest fits.

Every run keeps in pytest's cache how long its tests took. One that was never run is not left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

_KEY = "tokenloom/seconds"


def longest(seconds: Mapping[str, float], budget: float) -> set[str]:
    """Those of these tests, the longest first, without which the others take `budget` seconds or less."""
    rest, out = sum(seconds.values()), set[str]()
    for name in sorted(seconds, key=lambda name: (-seconds[name], name)):
        if rest <= budget:
            break
        out.add(name)
        rest -= seconds[name]
    return out


def _name(tests: pytest.Item | pytest.TestReport) -> str:
    """Not its node id, to which pytest-xdist adds its group."""
    path, _, name = tests.location
    return f"{path}::{name}"


class Budget:
    """Of one session; of several workers, each leaves out the same, and the one that started them remembers."""

    def __init__(self, config: pytest.Config, cache: pytest.Cache) -> None:
        self._config, self._cache = config, cache
        self._known: dict[str, float] = cache.get(_KEY, {})
        self._took: dict[str, float] = {}
        self._left_out: list[str] = []

    @pytest.hookimpl(wrapper=True)  # of those that the other options leave
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> Iterator[None]:
        yield
        budget: float | None = self._config.getoption("budget")
        if budget is not None:
            known = {name: self._known[name] for name in map(_name, items) if name in self._known}
            out = longest(known, budget)
            self._config.hook.pytest_deselected(items=[item for item in items if _name(item) in out])
            items[:] = [item for item in items if _name(item) not in out]
            self._left_out = sorted(out)
        if hasattr(self._config, "workeroutput"):
            self._output(self._config)["left_out"] = self._left_out

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self._took[_name(report)] = round(report.duration, 3)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._left_out = self._output(node).get("left_out", self._left_out)

    @staticmethod
    def _output(worker: Any) -> dict[str, Any]:
        """What a worker of pytest-xdist tells when it ends."""
        return getattr(worker, "workeroutput", {})

    def pytest_sessionfinish(self) -> None:
        if not hasattr(self._config, "workeroutput"):
            self._cache.set(_KEY, {**self._known, **self._took})

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._left_out:
            spared = sum(self._known[name] for name in self._left_out)
            told = f"left out for the time: tests that took {spared:.1f} s when they last ran: {len(self._left_out)}"
            terminalreporter.write_line(told)


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "leave out the tests that took longest when they last ran, until the others take so long or less"
    parser.addoption("--budget", type=float, metavar="SECONDS", help=told)


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("cacheprovider"):
        config.pluginmanager.register(Budget(config, config.cache))
