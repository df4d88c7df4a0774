"""A dataset's shards, read by what people have: pyarrow, DuckDB, Hugging Face datasets, webdataset and Ray."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenloom
from in_process import without_ray
from small_dataset import SmallDataset, write_dataset
from tokenloom.pipeline.checks.garbage import remove_garbage
from tokenloom.pipeline.compact import compact


@pytest.fixture(scope="module", params=["as it was made", "compacted"])
def dataset(request, tmp_path_factory) -> SmallDataset:
    written = write_dataset(str(tmp_path_factory.mktemp("data") / "set"))
    if request.param == "compacted":
        with without_ray():
            compact(written.store.url)
        remove_garbage(written.store, timedelta(seconds=-2))
        assert len(list(Path(written.store.url).rglob("*.tar"))) == 3
    return written


def expected(dataset: SmallDataset, modality: str) -> dict[tuple[str, int], list[int] | None]:
    """Tokens by key and view, as tokenloom itself reads them."""
    rows = tokenloom.open_dataset(dataset.store.url).iterate([modality])
    tokens = {(row.key, row.view): row.values[modality] for row in rows}
    return {row: None if ids is None else ids.tolist() for row, ids in tokens.items()}


@pytest.mark.parametrize("modality", ["caption", "dinov2"])
def test_token_shards_are_plain_parquet(dataset, modality, tmp_path):
    """Texts are lists of varying length with nulls, maps are lists of fixed size."""
    import datasets
    import duckdb

    pattern = f"{dataset.store.url}/{modality}/tokens-*/*.parquet"
    wanted = expected(dataset, modality)
    assert None in wanted.values() or modality == "dinov2"

    arrow = pa.concat_tables(
        pq.read_table(path) for path in Path(dataset.store.url, modality).glob("tokens-*/*.parquet")
    ).to_pylist()
    assert {(row["key"], row["view"]): row["tokens"] for row in arrow} == wanted
    assert {(k, v): t for k, v, t in duckdb.execute(f"from '{pattern}'").fetchall()} == wanted
    hub: Any = datasets.load_dataset("parquet", data_files=pattern, split="train", cache_dir=str(tmp_path))
    assert {(row["key"], row["view"]): row["tokens"] for row in hub} == wanted


def test_token_shards_by_ray(dataset, ray_session):
    import ray.data

    rows = ray.data.read_parquet(
        [str(path) for path in Path(dataset.store.url, "caption").glob("tokens-*/*.parquet")]
    ).take_all()
    read = {(row["key"], row["view"]): None if row["tokens"] is None else list(row["tokens"]) for row in rows}
    assert read == expected(dataset, "caption")


def test_label_shards_are_webdataset(dataset):
    from webdataset.compat import WebDataset

    tars = tokenloom.open_dataset(dataset.store.url).files("canny_edge", labels=True)
    decoded: Any = WebDataset(tars, shardshuffle=False).decode("l8")
    samples = list(decoded)
    assert [sample["__key__"] for sample in samples] == [
        key.replace(".", "%2E") for unit in sorted(dataset.units) for key in dataset.keys[unit]
    ]
    first = samples[0]["__key__"].replace("%2E", ".")
    assert np.array_equal(samples[0]["png"], dataset.labels["canny_edge"][first, 0])


def test_label_shards_align_though_labels_are_missing(dataset):
    from webdataset.compat import WebDataset

    tars = tokenloom.open_dataset(dataset.store.url).files("caption", labels=True)
    samples = {sample["__key__"]: sample for sample in WebDataset(tars, shardshuffle=False)}
    assert len(samples) == sum(len(keys) for keys in dataset.keys.values())
    for key, sample in samples.items():
        label = dataset.labels["caption"][key.replace("%2E", "."), 0]
        assert ("null" in sample) == (label is None)
        assert label is None or io.BytesIO(sample["txt"]).read().decode() == label
