"""`infra/dev test --fast` keeps to its time however many tests there are: those that took longest are left out."""

from __future__ import annotations

import pytest
from budget import longest

pytest_plugins = ["pytester"]

TESTS = """
import time
import pytest

@pytest.mark.parametrize("seconds", [0, 0.3, 0.01])
def test_wait(seconds):
    time.sleep(seconds)

def test_new():
    pass
"""


def test_the_longest_are_left_out_until_the_others_fit():
    seconds = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 0.5}
    assert longest(seconds, 6.5) == set()
    assert longest(seconds, 6.4) == {"a"}
    assert longest(seconds, 1.5) == {"a", "c"}
    assert longest(seconds, 0.1) == set(seconds)


def test_they_are_told_and_what_was_never_run_is_not_among_them(pytester: pytest.Pytester):
    pytester.makepyfile(TESTS)
    pytester.runpytest_inprocess("-p", "budget", "-k", "wait").assert_outcomes(passed=3)
    again = pytester.runpytest_inprocess("-p", "budget", "--budget", "0.1")
    again.assert_outcomes(passed=3, deselected=1)
    again.stdout.fnmatch_lines("left out for the time: tests that took 0.3 s when they last ran: 1")
