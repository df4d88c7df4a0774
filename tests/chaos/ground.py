"""What all schedules have in common: corpora and outputs, on a disk and on S3, and what runs in peace leave there."""

from __future__ import annotations

import gzip
import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from in_process import weave
from places import BUCKET, write_corpus
from runs import check_dataset, check_same, seen_objects
from schedules import Schedule, content
from tokenloom.pipeline.plan.recipe import parse_recipe
from tokenloom.pipeline.storage.store import Store

_SENTENCE = "The {} of {} lies {} steps from the {}, and nobody has counted them but once."
_WORDS = ["house", "river", "bridge", "garden", "tower", "market", "harbour", "orchard", "mill", "chapel"]


@dataclass(frozen=True)
class Reference:
    """What a run in peace left. objects: SHA-256 by path. keys: of all labels and tokens, how often each is there."""

    objects: Mapping[str, str]
    keys: Counter[tuple[str, ...]]


@dataclass
class Ground:
    """folder: which all nodes see. s3: the server's endpoint. disks: small ones, one for each kind of cluster, if there
    are any."""

    folder: Path
    s3: str
    disks: Mapping[str, Path]
    _references: dict[tuple[str, str], Reference] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def prepare(self) -> None:
        for name in ("logs", "recipes", "outputs"):
            (self.folder / name).mkdir()
        shutil.copy(Path(__file__).with_name("slow_labelers.py"), self.folder)
        write_corpus(self.folder / "photographs", 2, 8)
        _write_texts(self.folder / "texts")
        for name in ("photographs", "texts"):
            for path in sorted((self.folder / name).iterdir()):
                Store(f"s3://{BUCKET}/{name}").replace(path.name, path.read_bytes())

    def output(self, schedule: Schedule) -> str:
        name = str(schedule.seed)
        if schedule.storage == "s3":
            return f"s3://{BUCKET}/{name}"
        full = any(fault.name == "disk full" for fault in schedule.faults)
        return str((self.disks[schedule.kind] if full else self.folder / "outputs") / name)

    def content(self, schedule: Schedule, output: str, options: dict[str, Any] | None) -> dict[str, Any]:
        place = f"s3://{BUCKET}" if schedule.storage == "s3" else str(self.folder)
        return content(schedule.recipe, place, output, options)

    def reference(self, recipe: str, storage: str) -> Reference:
        """Made where it is first asked for: in this process, without Ray."""
        with self._lock:
            if (recipe, storage) not in self._references:
                place, options = str(self.folder), None
                output = f"{self.folder}/outputs/peace-{recipe.replace(' ', '-')}"
                if storage == "s3":
                    place, options = f"s3://{BUCKET}", {"endpoint_url": self.s3}
                    output = f"{place}/peace-{recipe.replace(' ', '-')}"
                weave(parse_recipe(content(recipe, place, output, options)))
                check_dataset(output)
                self._references[recipe, storage] = Reference(seen_objects(output), self.keys(output))
            return self._references[recipe, storage]

    def keys(self, output: str) -> Counter[tuple[str, ...]]:
        """Every label and row of tokens of a dataset by modality, generation, key and view: how often it is there."""
        store, found = Store(output), Counter[tuple[str, ...]]()
        for entry in store.list():
            place = entry.name.rpartition("/")[0]
            if entry.name.endswith(".parquet"):
                table = pq.read_table(pa.BufferReader(store.read(entry.name)))
                names = [name for name in ("key", "view") if name in table.column_names]
                rows = zip(*(table[name].to_pylist() for name in names), strict=True)
                found.update((place, *map(str, row)) for row in rows)
            elif entry.name.endswith(".tar"):
                found.update((place, name) for name in _members(store.read(entry.name)))
        return found

    def check(self, output: str, expected: Reference) -> None:
        """ChaosError where anything differs, or `verify` finds a fault."""
        check_same(output, expected.objects, seen_objects(output))
        check_dataset(output)
        if "://" not in output:
            shutil.rmtree(output)

    @contextmanager
    def full_disk(self, kind: str) -> Iterator[None]:
        """Meanwhile the small disk is full."""
        ballast = self.disks[kind] / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"0" * 4096):
                pass
        try:
            yield
        finally:
            ballast.unlink()


def _members(tar: bytes) -> list[str]:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return opened.getnames()


def _write_texts(folder: Path) -> None:
    folder.mkdir()
    for shard in range(2):
        lines = []
        for number in range(12):
            words = [_WORDS[(number * step + shard) % len(_WORDS)] for step in (1, 3, 7, 9)]
            lines.append(json.dumps({"text": " ".join([_SENTENCE.format(*words)] * (1 + number % 3))}))
        (folder / f"{shard}.json.gz").write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
