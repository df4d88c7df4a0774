"""What the sequences of an export for decoder-only trainers are: which modalities follow which, drawn for each row."""

from __future__ import annotations

import hashlib
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ...pipeline.plan.mistakes import MistakesError, Places, checked
from ...pipeline.plan.yaml_text import YamlTextError, read_yaml
from .pieces import ExportError


class Task(BaseModel):
    """order: of modalities, of which a row has those that its sample has; `any`: all, in an order drawn for each row.
    weight: how often it is drawn, beside the other tasks'."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: Annotated[list[str], Field(min_length=1)] | Literal["any"]
    weight: Annotated[float, Field(gt=0, le=1e9)] = 1.0


class LmTasks(BaseModel):
    """seed: of what is drawn, which is a function of it, the key and the view alone. length: of the sequences into
    which documents are packed, in Parquet; a longer one goes on in the next. files: which to write."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    length: Annotated[int, Field(ge=8, le=2**24)] = 4096
    files: Annotated[list[Literal["parquet", "megatron"]], Field(min_length=1)] = ["parquet", "megatron"]
    tasks: Annotated[list[Task], Field(min_length=1)] = [Task(order="any")]

    def order(self, modalities: Sequence[str], key: str, view: int) -> list[str]:
        """The modalities of a row's document, in order. modalities: all that there are."""
        place = f"{self.seed}/{view}/{key}"
        sums = list(accumulate(task.weight for task in self.tasks))
        task = self.tasks[bisect(sums, _draw(f"task/{place}") * sums[-1], hi=len(sums) - 1)]
        return sorted(modalities, key=lambda name: _draw(f"{name}/{place}")) if task.order == "any" else task.order


def read_tasks(path: Path | None) -> tuple[LmTasks, Places]:
    """Those in a YAML file, and where its keys stand; without a file the defaults. Raises ExportError with the lines of
    all mistakes."""
    if path is None:
        return LmTasks(), Places("the tasks")
    try:
        data, lines = read_yaml(path.read_bytes())
    except OSError as error:
        raise ExportError(f"{path}: it can't be read ({error.strerror}): give a YAML file of tasks") from None
    except YamlTextError as error:
        raise ExportError(f"{path}:{error.line}: {error}" if error.line else f"{path}: {error}") from None
    places = Places(str(path), {key: f"{path}:{line}" for key, line in lines.items()})
    if not isinstance(data, dict):
        raise ExportError(f"{path}: tasks are a mapping with the keys {', '.join(LmTasks.model_fields)}")
    try:
        return checked(LmTasks, data), places
    except MistakesError as error:
        raise ExportError("\n".join(f"{places.of(one.key)}: {one}" for one in error.found)) from None


def _draw(text: str) -> float:
    """In [0, 1), from SHA-256: the same on every platform."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:6], "big") / 2**48
