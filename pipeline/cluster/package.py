"""What is sent to a cluster for a command to be done there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import in_job
from .session import EngineError

MOST = 100 * 2**20
"""Bytes of one package, at most: those that Ray's Jobs API takes (ray_constants.DASHBOARD_CLIENT_MAX_SIZE)."""


class LostError(EngineError):
    """What runs there can't be followed any more; the message says what becomes of it, as far as that is known."""


class SendError(ValueError):
    """What can't be sent, or where it can't be sent to; the message names the way out."""


@dataclass(frozen=True)
class Package:
    """files: where they lie here, by their names in the working directory there. needs: the versions of the
    distributions that the cluster must have. words: those that come after `tokenloom`."""

    files: Mapping[str, Path]
    needs: Mapping[str, str]
    words: Sequence[str]

    def check_size(self) -> None:
        """Raises SendError where it is more than Ray takes, with the largest files."""
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        if (total := sum(sizes.values())) < MOST:
            return
        largest = sorted(sizes, key=lambda name: -sizes[name])[:5]
        named = ", ".join(f"{name} {sizes[name] / 2**20:,.1f} MiB" for name in largest)
        raise SendError(
            f"the recipe and its plugins are {total / 2**20:,.1f} MiB, and Ray takes {MOST / 2**20:.0f}: {named}; put "
            f"what is large into object storage, or install the plugin on the cluster and here"
        )

    def write(self, folder: Path) -> None:
        for name, path in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        shutil.copyfile(in_job.__file__, folder / Path(in_job.__file__).name)
        (folder / in_job.JOB).write_text(json.dumps({"needs": dict(self.needs), "words": list(self.words)}))
