"""Writing small corpora, and reading them whole, for the tests of the corpus."""

from __future__ import annotations

import io
import json
import tarfile
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenloom.pipeline.corpus.corpus import Corpus, CorpusSettings, Rejection, Sample, UnitLimits, UnitSamples
from tokenloom.pipeline.corpus.left_out import LEFT_OUT
from tokenloom.pipeline.storage.store import Store


def memory_store(name: str, data: bytes) -> Store:
    """A store in memory that holds one object."""
    store = Store(f"memory://{uuid.uuid4()}")
    store.create(name, data)
    return store


def tar_bytes(members: Iterable[tuple[str, bytes] | tarfile.TarInfo], format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of regular members (name, content), and of TarInfos as they are."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, errors="surrogateescape") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return file.getvalue()


def parquet_bytes(columns: dict[str, Any], rows_per_group: int = 10, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, row_group_size=rows_per_group, **options)
    return file.getvalue()


def put_all(store: Store, files: Mapping[str, bytes]) -> None:
    """Writes them, several at once: to S3, one takes as long as eight."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store.replace, files, files.values()))


def write_corpus(store: Store, format: str, sizes: list[int]) -> None:
    """One shard of images of these sizes, with keys 00000, 00001, ... and their own number as field and caption."""
    keys = [f"{index:05d}" for index in range(len(sizes))]
    images = [bytes([index % 251]) * size for index, size in enumerate(sizes)]
    texts = [json.dumps({"number": index}).encode() for index in range(len(sizes))]
    if format == "parquet":
        numbers = pa.array(range(len(sizes)), pa.int64())
        captions = [f"caption {key}" for key in keys]
        columns = {"key": pa.array(keys, pa.string()), "jpg": pa.array(images, pa.binary()), "number": numbers}
        store.replace("shard.parquet", parquet_bytes({**columns, "caption": pa.array(captions, pa.string())}))
        return
    members = []
    for key, image, text in zip(keys, images, texts, strict=True):
        members += [(f"{key}.jpg", image), (f"{key}.json", text), (f"{key}.txt", f"caption {key}".encode())]
    if format == "tar":
        store.replace("shard.tar", tar_bytes(members))
    else:
        put_all(store, {f"shard/{name}": data for name, data in members})


def corpus_of(url: str | list[str], **settings: Any) -> Corpus:
    return Corpus(CorpusSettings(url=url, **settings))


def units_of(corpus: Corpus, limits: UnitLimits | None = None) -> list[UnitSamples]:
    """All units of all shards, after the check that a run makes."""
    shards = corpus.shards()
    corpus.check(shards)
    return [unit for shard in shards for unit in corpus.read(shard, limits=limits)]


def contents(corpus: Corpus) -> tuple[dict[str, Sample], list[Rejection]]:
    """All samples by key, and all that was refused."""
    units = units_of(corpus)
    samples = [sample for unit in units for sample in unit.samples]
    assert len({sample.key for sample in samples}) == len(samples)
    refused = [one for unit in units for one in unit.rejected if one.error != LEFT_OUT]
    return {sample.key: sample for sample in samples}, refused


def left_out(corpus: Corpus) -> list[str]:
    """What isn't taken: as the listing tells it, the check before a run, then unit by unit."""
    told = [*corpus.find().left_out, *corpus.check(corpus.shards())]
    notes = (one.reason for unit in units_of(corpus) for one in unit.rejected if one.error == LEFT_OUT)
    return [*told, *notes]
