"""What an export costs, beside a plain loop that reads the same shards and writes the same content.

    python tests/benchmarks/exports.py [--quick]

One dataset of 18 modalities (4M-21's without pixels and T5, and SigLIP) with tokens of their lengths, in units of 256
samples, exported to each format in this process, on one thread, without Ray:

- ours: `tokenloom export`, with its checks of what is read, and everything written, read back and given a receipt;
- plain: pyarrow, tarfile and numpy, unit by unit, which checks nothing and reads nothing back.

Seconds are those of the processor, the least of the rounds. `ratio` is ours by plain's over all formats together; by
format in `ratios`. rows_per_s: of ours. ml-4m isn't among them: what it writes is mostly the corpus's own images. The
last line is a JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenloom.pipeline.dataset.dataset import Dataset, open_dataset
from tokenloom.pipeline.storage.store import Store
from tokenloom.training.use import export as exporting
from tokenloom.training.use.lm_tasks import read_tasks
from tokenloom.training.use.pieces import Format
from tokenloom.training.use.to_hf import HuggingFace
from tokenloom.training.use.to_lm import DecoderOnly
from tokenloom.training.use.to_webdataset import WebDataset
from training_sets import NAMES, write_dataset

LENGTH = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of 968 samples instead of three of 4,040")
    quick = parser.parse_args().quick
    pa.set_cpu_count(1)
    ways: dict[str, tuple[Callable[[], Format], Callable[[Dataset, Path], None]]] = {
        "webdataset": (WebDataset, plain_webdataset),
        "hf": (HuggingFace, plain_hf),
        "lm": (lambda: DecoderOnly(*read_tasks(None)), plain_lm),
    }
    with tempfile.TemporaryDirectory(prefix="tokenloom-benchmark-") as folder:
        write_dataset(Store(f"{folder}/dataset"), 4 if quick else 16)
        dataset = open_dataset(f"{folder}/dataset")
        cpu: dict[str, tuple[float, float]] = {}
        for name, (format, plain) in ways.items():
            rounds = []
            for number in range(1 if quick else 3):
                out = Path(folder, f"{name}-{number}")
                (out / "plain").mkdir(parents=True)
                rounds.append(
                    (seconds(lambda: ours(dataset, out, format())), seconds(lambda: plain(dataset, out / "plain")))  # noqa: B023
                )
            cpu[name] = min(one for one, _ in rounds), min(one for _, one in rounds)
        rows = len(dataset)
    ratios = {name: round(one / other, 2) for name, (one, other) in cpu.items()}
    both = [sum(found[way] for found in cpu.values()) for way in (0, 1)]
    speeds = {name: round(rows / one) for name, (one, _) in cpu.items()}
    print(json.dumps({"rows": rows, "rows_per_s": speeds, "ratios": ratios, "ratio": round(both[0] / both[1], 2)}))


def seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def ours(dataset: Dataset, out: Path, format: Format) -> None:
    with mock.patch.object(exporting, "run_tasks", lambda work, items, paths: map(work, items)):
        exporting.export(dataset.store, Store(out / "ours"), format)


def shards(dataset: Dataset) -> list[dict[str, Path]]:
    """Of each unit the files of all modalities."""
    columns = dataset.reader.columns
    return [
        {name: Path(dataset.store.url, columns.token_path(unit, name)) for name in NAMES} for unit in dataset.units()
    ]


def plain_webdataset(dataset: Dataset, out: Path) -> None:
    for number, paths in enumerate(shards(dataset)):
        found = {name: pq.read_table(path, use_threads=False) for name, path in paths.items()}
        with tarfile.open(out / f"{number}.tar", "w") as tar:
            for row, key in enumerate(found["rgb"]["key"].to_pylist()):
                _add(tar, f"{key}.json", json.dumps({"key": key, "view": 0}).encode())
                for name, table in found.items():
                    buffer = io.BytesIO()
                    np.save(buffer, table["tokens"][row].values.to_numpy())
                    _add(tar, f"{key}.{name}.npy", buffer.getvalue())


def plain_hf(dataset: Dataset, out: Path) -> None:
    parts = []
    for paths in shards(dataset):
        found = {name: pq.read_table(path, use_threads=False) for name, path in paths.items()}
        joined = found["rgb"].select(["key", "view"])
        for name, table in found.items():
            joined = joined.append_column(name, table["tokens"])
        parts.append(joined)
    pq.write_table(pa.concat_tables(parts), out / "train.parquet", compression="zstd", compression_level=3)


def plain_lm(dataset: Dataset, out: Path) -> None:
    offsets = {name: 38 + 30_000 * at for at, name in enumerate(NAMES)}
    chance = random.Random(0)
    documents = []
    for paths in shards(dataset):
        found = {name: pq.read_table(path, use_threads=False)["tokens"] for name, path in paths.items()}
        for row in range(len(found["rgb"])):
            parts: list[np.ndarray] = []
            for name in chance.sample(NAMES, len(NAMES)):
                ids = found[name][row].values.to_numpy().astype(np.int32)
                parts += [np.array([2], np.int32), ids + offsets[name], np.array([3], np.int32)]
            documents.append(np.concatenate([*parts, np.array([1], np.int32)]))
    sequences = np.zeros((len(documents), LENGTH), np.int32)
    used, room = -1, 0
    for one in documents:
        if len(one) > room:
            used, room = used + 1, LENGTH
        sequences[used, LENGTH - room : LENGTH - room + len(one)] = one
        room -= len(one)
    tokens = pa.FixedSizeListArray.from_arrays(pa.array(sequences[: used + 1].ravel()), LENGTH)
    pq.write_table(pa.table({"tokens": tokens}), out / "lm.parquet", compression="zstd", compression_level=3)
    np.concatenate(documents).tofile(out / "lm.bin")
    np.array([len(one) for one in documents], np.int32).tofile(out / "lm.idx")


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    main()
