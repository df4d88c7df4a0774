"""Hosts on one machine: namespaces with an address, a name, processes, a /tmp and a /dev/shm of their own, on a bridge.

All of them lie in namespaces of the program itself, so that the machine's own network and mounts stay as they are, and
nothing is left of them, nor of any process, once it has ended. Linux only; needs root, iproute2, nftables, util-linux.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from processes import descendants

HERE = "10.77.0.254"
"""The program's own address on the bridge."""

_INSIDE = "TOKENLOOM_CHAOS_INSIDE"
_OWN = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_PROGRAMS = ("unshare", "nsenter", "ip", "nft", "tc", "mount")

# $1: the host's name. $2: its /etc/hosts. $3...: folders that it shares with the others, wherever they lie.
_HOST = """
set -e
mount -t tmpfs -o size=2g tmpfs /mnt
for path in "${@:3}"; do
    case $path in /tmp/*) mkdir -p "/mnt${path#/tmp}"; mount --rbind "$path" "/mnt${path#/tmp}" ;; esac
done
mount --move /mnt /tmp
mount -t tmpfs -o size=1g tmpfs /dev/shm
hostname "$1"
mount --bind "$2" /etc/hosts
echo ready
exec sleep infinity
"""

_numbers = count()


def go_inside() -> str:
    """Runs the program once more, in namespaces of its own, in which hosts can be made; returns in there, with "", or
    where that can't be with the reason."""
    if _INSIDE not in os.environ:
        if why := why_not():
            return why
        os.environ[_INSIDE] = "1"
        os.execvp(_OWN[0], [*_OWN, sys.executable, *sys.argv])
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "br0", "type", "bridge")
    _run("ip", "addr", "add", f"{HERE}/24", "dev", "br0")
    _run("ip", "link", "set", "br0", "up")
    return ""


def why_not() -> str:
    """Why no hosts can be made here; "" where they can."""
    if lacking := [name for name in _PROGRAMS if shutil.which(name) is None]:
        return f"there is no {lacking[0]} here"
    tried = subprocess.run([*_OWN, "true"], capture_output=True, text=True)
    return tried.stderr.strip().splitlines()[-1] if tried.returncode else ""


def _run(*words: str, said: str | None = None) -> None:
    subprocess.run(words, check=True, input=said, text=True)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """The folder, which is made, as a disk of so many bytes; after `go_inside` alone."""
    folder.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _run("umount", "--lazy", str(folder))


@dataclass
class Host:
    """One that runs. shared: folders that it has in common with the others and the program."""

    number: int
    shared: Sequence[Path]
    _holder: subprocess.Popen[str] = field(init=False)
    first: int = field(init=False)
    """The first of its processes, which lasts as long as it does."""
    _port: str = field(init=False)
    _wire: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        names = self.shared[0] / "hosts"
        names.write_text("127.0.0.1 localhost\n" + "".join(f"10.77.0.{n + 1} h{n}\n" for n in range(9)))
        words = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        words += ["bash", "-c", _HOST, "bash", self.name, str(names), *map(str, self.shared)]
        self._holder = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            raise OSError(f"{self.name} didn't start")
        self.first = descendants(self._holder.pid)[0].pid
        self._plug()

    def _plug(self) -> None:
        self._port = f"p{next(_numbers)}"
        _run("ip", "link", "add", self._port, "type", "veth", "peer", "name", "eth0", "netns", str(self.first))
        self._join()

    def _join(self) -> None:
        """Puts its end of a wire to use, and the other one on the bridge."""
        _run("ip", "link", "set", self._port, "master", "br0", "up")
        # The others go on sending to this address, whatever wire it is on.
        own = f"link set eth0 address 02:00:00:00:00:{self.number:02x}"
        for words in (own, f"addr add {self.address}/24 dev eth0", "link set lo up", "link set eth0 up"):
            _run(*self.command("ip", *words.split()))

    @property
    def name(self) -> str:
        return f"h{self.number}"

    @property
    def address(self) -> str:
        return f"10.77.0.{self.number + 1}"

    @property
    def is_up(self) -> bool:
        return self._holder.poll() is None

    @property
    def received(self) -> int:
        """Bytes that came over its wire so far, with all headers."""
        told = subprocess.check_output(["ip", "-json", "-stats", "link", "show", "dev", self._port])
        return json.loads(told)[0]["stats64"]["tx"]["bytes"]  # by the bridge's end of it

    def command(self, *words: str) -> list[str]:
        """The words of a command that runs them on it."""
        return ["nsenter", "--net", "--mount", "--uts", "--pid", "--target", str(self.first), *words]

    def end(self) -> None:
        """As when the power goes."""
        if self._wire:
            self._wire.kill()
            self._wire.wait()
        self._holder.kill()  # and by --kill-child the first of its processes, with which all others end
        self._holder.wait()

    def cut(self) -> None:
        """Pulls its plug."""
        _run("ip", "link", "set", self._port, "down")

    def heal(self) -> None:
        _run("ip", "link", "set", self._port, "up")

    def lose(self, percent: int) -> None:
        """So much of what it receives, from now on."""
        rule = f"numgen random mod 100 < {percent} drop"
        rules = f"table inet chaos {{ chain in {{ type filter hook input priority 0; {rule}; }}; }}"
        _run(*self.command("nft", "-f", "-"), said=rules)

    def narrow(self, rate: str) -> None:
        """What it sends goes at that rate, and waits for up to 400 ms."""
        words = f"qdisc replace dev eth0 root tbf rate {rate} burst 64kb latency 400ms"
        _run(*self.command("tc", *words.split()))

    def delay(self, seconds: float) -> None:
        """What it sends and receives takes so long, on another wire."""
        _run("ip", "link", "del", self._port)
        self._port, end = f"p{next(_numbers)}", f"p{next(_numbers)}"
        words = [sys.executable, str(Path(__file__).with_name("wire.py")), self._port, end, str(seconds)]
        self._wire = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._wire.stdout is not None
        if self._wire.stdout.readline() != "ready\n":
            raise OSError(f"the wire of {self.name} didn't start")
        _run("ip", "link", "set", end, "netns", str(self.first), "name", "eth0")
        self._join()

    def clear(self) -> None:
        """Its network is as it was at first."""
        _run(*self.command("nft", "flush", "ruleset"))
        subprocess.run(self.command("tc", "qdisc", "del", "dev", "eth0", "root"), stderr=subprocess.DEVNULL)
        if self._wire:
            self._wire.kill()
            self._wire.wait()
            self._wire = None
            self._plug()
