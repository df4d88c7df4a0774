"""Writing small corpora, and reading them whole, for the tests of the corpus."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenloom.pipeline.corpus import Corpus, CorpusSettings, Rejection, Sample, UnitLimits, UnitSamples


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


def corpus_of(url: str | list[str], **settings: Any) -> Corpus:
    return Corpus(CorpusSettings(url=url, **settings))


def units_of(corpus: Corpus, limits: UnitLimits | None = None) -> list[UnitSamples]:
    """All units of all shards, after the check that a run makes."""
    shards = corpus.shards()
    corpus.check(shards)
    return [unit for shard in shards for unit in corpus.read(shard, limits=limits)]


def contents(corpus: Corpus) -> tuple[dict[str, Sample], list[Rejection]]:
    """All samples by key, and all rejections."""
    units = units_of(corpus)
    samples = [sample for unit in units for sample in unit.samples]
    assert len({sample.key for sample in samples}) == len(samples)
    return {sample.key: sample for sample in samples}, [one for unit in units for one in unit.rejected]
