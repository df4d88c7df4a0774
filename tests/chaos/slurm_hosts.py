"""A Slurm of three hosts, each with two CPUs and a GPU that it claims; its controller runs beside them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hosts import HERE, Host
from processes import descendants
from runs import ChaosError

PACKAGES = "slurmctld slurmd slurm-client slurm-wlm-basic-plugins"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "scancel")
SIZE = 3

_START = 60.0
"""Seconds within which all nodes have to be idle."""

_CONF = """
ClusterName=tokenloom
SlurmctldHost={host}({here})
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdTimeout=20
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=30
{nodes}
PartitionName=all Nodes=h[0-{last}] Default=YES MaxTime=INFINITE State=UP
"""


@dataclass
class Slurm:
    """folder: which all hosts see, a short path; jobs are submitted in it."""

    folder: Path
    hosts: dict[int, Host] = field(default_factory=dict)
    _controller: subprocess.Popen[bytes] = field(init=False)
    _daemons: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self) -> None:
        for name in ("state", *(f"spool/h{number}" for number in range(SIZE))):
            (self.folder / name).mkdir(parents=True)
        nodes = "\n".join(f"NodeName=h{n} NodeAddr=10.77.0.{n + 1} CPUs=2 Gres=gpu:1" for n in range(SIZE))
        settings = {"host": socket.gethostname(), "here": HERE, "folder": self.folder, "nodes": nodes}
        (self.folder / "slurm.conf").write_text(_CONF.format(**settings, last=SIZE - 1))
        (self.folder / "gres.conf").write_text(f"NodeName=h[0-{SIZE - 1}] Name=gpu Count=1 File=/dev/null\n")
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        os.environ["SLURM_CONF"] = str(self.folder / "slurm.conf")
        self._controller = self._start("slurmctld", ["slurmctld", "-D"])
        self.mend()

    def mend(self) -> None:
        """Afterwards all hosts are there, with nothing to do."""
        for number in range(SIZE):
            if number not in self.hosts or not self.hosts[number].is_up:
                self.hosts[number] = host = Host(number, (self.folder,))
                self._daemons[number] = self._start(f"slurmd-{host.name}", host.command("slurmd", "-D"))
        self.wait(lambda: self.states() == ["idle"] * SIZE, _START, "the nodes to be idle")

    def _start(self, name: str, words: list[str]) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{name}.log", "ab") as log:
            return subprocess.Popen(words, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self) -> None:
        for host in self.hosts.values():
            host.end()
        self._controller.terminate()
        for process in (self._controller, *self._daemons.values()):
            process.wait()

    def wait(self, what: Callable[[], object], seconds: float, name: str) -> None:
        """ChaosError if it takes longer."""
        until = time.monotonic() + seconds
        while not what():
            if time.monotonic() > until:
                raise ChaosError(f"waited {seconds:.0f} s for {name}; nodes are {self.states()}; logs in {self.folder}")
            time.sleep(0.2)

    def processes(self) -> list[str]:
        """What runs on the hosts, but for Slurm's daemons."""
        spaces = {_space(host.first) for host in self.hosts.values()}
        own = {host.first for host in self.hosts.values()}
        found = [process for process in descendants() if process.pid not in own and _space(process.pid) in spaces]
        return [command for process in found if (command := process.command) and not command.startswith("slurmd ")]

    def states(self) -> list[str]:
        return self._say("sinfo", "--noheader", "--Node", "--format=%T").split()

    def submit(self, script: Path, *words: str, options: str = "", **environment: str) -> Job:
        """A job. words: for the script. options: for sbatch."""
        said = self._say("sbatch", "--parsable", *options.split(), str(script), *words, **environment)
        return Job(int(said), self)

    def _say(self, *words: str, **environment: str) -> str:
        done = subprocess.run(
            words, cwd=self.folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60
        )
        if done.returncode and words[0] == "sbatch":
            raise ChaosError(f"{' '.join(words)}: {done.stderr}")
        return done.stdout


@dataclass(frozen=True)
class Job:
    number: int
    slurm: Slurm

    def __getitem__(self, name: str) -> str:
        """What `scontrol show job` says of it: JobState, Restarts, BatchHost, ..."""
        said = self.slurm._say("scontrol", "show", "job", "--oneliner", str(self.number))
        found = re.search(rf"\b{name}=(\S*)", said)
        return found[1] if found else ""

    @property
    def is_over(self) -> bool:
        return self["JobState"] not in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED", "")

    @property
    def log(self) -> str:
        path = self.slurm.folder / f"tokenloom-{self.number}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def nodes(self) -> list[int]:
        """The numbers of its hosts, that of its batch host first."""
        names = self.slurm._say("scontrol", "show", "hostnames", self["NodeList"]).split()
        return [int(name.removeprefix("h")) for name in names]

    def command(self, *words: str) -> None:
        """Words of `scontrol` or `scancel`, before its number."""
        self.slurm._say(*words, str(self.number))


def _space(pid: int) -> str:
    """That of its numbers of processes; "" once it is gone."""
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    return ""


def why_not() -> str:
    """Why no Slurm can be made here; "" where it can."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"no {lacking[0]} here; apt-get install --no-install-recommends {PACKAGES}" if lacking else ""
