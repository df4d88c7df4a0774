"""Makes this checkout importable as `tokenloom`, with its labelers registered, where it isn't installed."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import sys
import tempfile
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "tests" / "benchmarks"
_GROUP = re.compile(r'^\[project\.entry-points\."([\w.]+)"\]\n((?:\w+ = ".*"\n)+)', re.MULTILINE)


def make_importable() -> None:
    """Puts the benchmarks on the path of this process and of those that it starts, and the package where need be."""
    _prepend(BENCHMARKS)
    if find_spec("tokenloom") is None or not entry_points(group="tokenloom.labelers"):
        _prepend(_linked())


def _linked() -> Path:
    """A folder, until this process ends, with the package under its name and what an installation says of it."""
    folder = Path(tempfile.mkdtemp(prefix="tokenloom-checkout-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "tokenloom").symlink_to(ROOT)
    metadata = folder / "tokenloom-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tokenloom\nVersion: 0\n")
    groups = _GROUP.findall((ROOT / "pyproject.toml").read_text())
    lines = [f"[{name}]\n{entries.replace(chr(34), '')}" for name, entries in groups]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return folder


def _prepend(folder: Path) -> None:
    sys.path.insert(0, str(folder))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), *([before] if before else [])])
