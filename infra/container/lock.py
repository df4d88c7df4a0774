"""Writes requirements.txt beside it: what the image installs, with hashes.

infra/dev run python infra/container/lock.py

What pip's resolver gives for tokenloom[s3,cluster,hub] by constraints.txt, for Linux on x86-64 with Debian 12's Python.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = Path(__file__).with_name("requirements.txt")
EXTRAS = "s3,cluster,hub"
PYTHON = (3, 11)
HEAD = f"# tokenloom[{EXTRAS}] by constraints.txt, for Linux on x86-64, Python 3.11; written by lock.py\n"


def lines() -> Iterator[str]:
    """A line for each package, in the order of their names."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    command += ["--no-build-isolation", "--constraint", ROOT / "constraints.txt", f"{ROOT}[{EXTRAS}]"]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    for package in sorted(json.loads(report.stdout)["install"], key=lambda one: canonical(one["metadata"]["name"])):
        name, archive = canonical(package["metadata"]["name"]), package["download_info"].get("archive_info")
        if archive:  # tokenloom itself is a folder
            yield f"{name}=={package['metadata']['version']} --hash=sha256:{archive['hashes']['sha256']}\n"


def canonical(name: str) -> str:
    """As PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    if sys.version_info[:2] != PYTHON:
        sys.exit(f"lock.py: the image has Python {PYTHON[0]}.{PYTHON[1]}, and this is {sys.version.split()[0]}")
    LOCK.write_text(HEAD + "".join(lines()))
    print(f"{LOCK.relative_to(ROOT)}: {LOCK.read_text().count('--hash')} packages")
