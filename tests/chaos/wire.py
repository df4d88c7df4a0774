"""A wire on which every frame takes its time: two network devices, and a queue between them.

    python wire.py ONE OTHER SECONDS

Makes both devices (TAPs), prints `ready`, and carries frames from each to the other until it is killed, by which they
vanish. It is for kernels without netem, and imports little, so that it starts at once.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_LARGEST = 65536
_AT_ONCE = 64
"""Frames that are taken from one device before the other has its turn."""


def main() -> None:
    one, other = map(_device, sys.argv[1:3])
    seconds = float(sys.argv[3])
    across = {one: other, other: one}
    under_way: deque[tuple[float, int, bytes]] = deque()
    poll = select.poll()
    for end in across:
        poll.register(end, select.POLLIN)
    print("ready", flush=True)
    while True:
        patience = max(0.0, under_way[0][0] - time.monotonic()) * 1000 if under_way else None
        for end, _ in poll.poll(patience):
            under_way.extend((time.monotonic() + seconds, across[end], frame) for frame in _frames(end))
        while under_way and under_way[0][0] <= time.monotonic():
            _, end, frame = under_way.popleft()
            with suppress(OSError):  # it is down, or full: the frame is lost, as on any wire
                os.write(end, frame)


def _device(name: str) -> int:
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return end


def _frames(end: int) -> Iterator[bytes]:
    with suppress(OSError):  # there are no more
        for _ in range(_AT_ONCE):
            yield os.read(end, _LARGEST)


if __name__ == "__main__":
    main()
