"""Faults of hosts as tests/chaos/run.py plays them, each by itself: a clock that is off, a wire that takes its time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHAOS = Path(__file__).resolve().parents[1] / "chaos"
sys.path.append(str(CHAOS))

import clocks  # noqa: E402 - tests/chaos/ holds scripts, and is on no path
import hosts  # noqa: E402

# What the clock says; and how long it takes to sleep for half a second, and to wait as long, by each way that there is.
_WAITS = """
import asyncio, ctypes, json, multiprocessing, queue, subprocess, threading, time
held = threading.Lock()
held.acquire()
library = ctypes.CDLL(None, use_errno=True)

def futex():  # until a moment by the wall clock, as Abseil does
    class Moment(ctypes.Structure):
        _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]
    word, until = ctypes.c_int(0), time.time() + 0.5
    moment = Moment(int(until), int(until % 1 * 1e9))
    library.syscall(ctypes.c_long(202), ctypes.byref(word), ctypes.c_long(9 | 256), ctypes.c_long(0),
                    ctypes.byref(moment), ctypes.c_long(0), ctypes.c_long(0xFFFFFFFF))

ways = {
    "sleep": lambda: time.sleep(0.5),
    "lock": lambda: held.acquire(timeout=0.5),
    "event": lambda: threading.Event().wait(0.5),
    "semaphore": lambda: multiprocessing.Semaphore(0).acquire(timeout=0.5),
    "asyncio": lambda: asyncio.run(asyncio.sleep(0.5)),
    "futex": futex,
}
took = {}
for name, way in ways.items():
    began = time.monotonic()
    way()
    took[name] = time.monotonic() - began
print(json.dumps({"now": time.time(), "took": took, "child": int(subprocess.check_output(["date", "+%s"]))}))
"""

# How long a connection from a host takes: at first, with 50 ms each way, and afterwards.
_WIRE = """
import json, socket, subprocess, sys
from pathlib import Path
sys.path.append({chaos!r})
from hosts import HERE, Host, go_inside
assert not go_inside()
server, host = socket.create_server((HERE, 0)), Host(0, (Path({folder!r}),))
code = f"import socket, time; b = time.monotonic(); socket.create_connection(('{{HERE}}', {{server.getsockname()[1]}}))"
code += "; print(time.monotonic() - b)"

def seconds():
    times = [float(subprocess.check_output(host.command(sys.executable, "-c", code))) for _ in range(3)]
    return min(times)

before = seconds()
host.delay(0.05)
delayed = seconds()
host.clear()
print(json.dumps([before, delayed, seconds()]))
host.end()
"""


@pytest.mark.skipif(bool(clocks.why_not()), reason="there is no C compiler")
@pytest.mark.parametrize("seconds", [600, -600])
def test_a_clock_is_off_and_nothing_lasts_longer_for_it(tmp_path: Path, seconds: int):
    environment = {**os.environ, **clocks.environment(clocks.build(tmp_path), seconds)}
    printed = subprocess.check_output([sys.executable, "-c", _WAITS], env=environment, timeout=60)
    told = json.loads(printed)
    assert abs(told["now"] - time.time() - seconds) < 30
    assert abs(told["child"] - time.time() - seconds) < 30
    assert all(0.4 < took < 5 for took in told["took"].values()), told


@pytest.mark.skipif(bool(hosts.why_not()), reason="no hosts can be made here")
def test_a_wire_takes_its_time_until_it_is_changed_back(tmp_path: Path):
    script = tmp_path / "wire.py"
    script.write_text(_WIRE.format(chaos=str(CHAOS), folder=str(tmp_path)))
    before, delayed, after = json.loads(subprocess.check_output([sys.executable, script], timeout=60))
    assert delayed > 0.1
    assert max(before, after) < delayed
