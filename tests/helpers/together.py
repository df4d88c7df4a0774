"""Several processes that compute together by gloo, without Ray."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn


def together(work: Callable[..., Any], *given: Any, world: int = 2) -> list[Any]:
    """What `work(rank, world, *given)` gives in each process, as JSON has it. work: a function of a module."""
    with tempfile.TemporaryDirectory(prefix="tokenloom-together-") as folder:
        spawn(_process, (world, Path(folder), work, given), world)
        return [json.loads(Path(folder, str(rank)).read_text()) for rank in range(world)]


def _process(rank: int, world: int, folder: Path, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    (folder / str(rank)).write_text(json.dumps(work(rank, world, *given)))
    dist.destroy_process_group()
