"""The process beside an actor: what is heard of it, and what ends it. Without Ray, but for its environment."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
from tokenloom.pipeline.cluster import driver, in_job
from tokenloom.pipeline.cluster.driver import Driver

HELD = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); print('held', flush=True); "
HELD += "signal.pause()"


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "_own", lambda: dict(os.environ))


def heard(one: Driver, taken: int = 0) -> tuple[list[tuple[int, str]], int]:
    """All lines after those that were taken, and the exit code."""
    lines, code = [], None
    while code is None:
        more, code = one.read(taken + len(lines))
        lines += more
    return lines, code


def test_lines_come_once_by_their_streams_and_then_the_exit_code():
    said = "import sys; print('ä'); print('b', end=''); sys.stderr.buffer.write(b'\\xff\\n'); sys.exit(3)"
    lines, code = heard(Driver(["-X", "utf8", "-c", said], 80))
    assert code == 3
    assert [line for number, line in lines if number == 1] == ["ä\n", "b"]
    assert [line for number, line in lines if number == 2] == ["\ufffd\n"]


def test_an_answer_that_got_lost_is_given_again():
    one = Driver(["-c", "import os; print('a\\n' + os.environ['COLUMNS'])"], 120)
    while one.read(0)[1] is None:
        pass
    assert one.read(0) == ([(1, "a\n"), (1, "120\n")], 0)
    assert one.read(1) == one.read(1) == ([(1, "120\n")], 0)
    assert one.read(2) == ([], 0)


@pytest.mark.parametrize("how", ["told", "alone", "before Python is up"])
def test_it_is_stopped(how, monkeypatch):
    monkeypatch.setattr(driver, "_LOOK", 0.05)
    if how == "before Python is up":
        one = Driver(["-c", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"], 80)
        assert heard(one) == ([], 143)
        return
    one = Driver(["-c", HELD], 80)
    assert one.read(0) == ([(1, "held\n")], None)
    if how == "told":
        one.stop()
    else:
        monkeypatch.setattr(driver, "ALONE", 0.1)
        assert one._process.wait(timeout=30) == 143
    assert heard(one, 1) == ([], 143)


def test_what_is_run_ends_with_who_started_it(tmp_path: Path):
    """A job that is attached stops when its standard input ends."""
    (tmp_path / in_job.JOB).write_text('{"needs": {}, "words": []}')
    job = tmp_path / "in_job.py"
    job.write_text(Path(in_job.__file__).read_text().replace("    run_job(", "    signal.pause()\n    run_job("))
    process = Popen([sys.executable, job, in_job.ATTACHED], stdin=PIPE)
    assert process.stdin is not None
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(timeout=30) == -signal.SIGTERM
