"""Exports as WebDataset, read by the package of that name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from command import command
from small_dataset import SmallDataset, repair_palette, rewrite_tokens, write_dataset
from tokenloom import open_dataset
from webdataset.compat import WebDataset


def read(folder) -> list[dict]:
    urls = sorted(map(str, folder.glob("shard-*.tar")))
    decoded: Any = WebDataset(urls, shardshuffle=False, empty_check=False).decode()
    return list(decoded)


def check(small: SmallDataset, folder) -> None:
    expected = open_dataset(small.store.url).iterate()
    found = read(folder)
    for row, sample in zip(expected, found, strict=True):
        assert sample["json"] == {"key": row.key, "view": row.view}
        fields = {name.removesuffix(".npy"): ids for name, ids in sample.items() if name.endswith(".npy")}
        there = {name: ids for name, ids in row.values.items() if ids is not None}
        assert fields.keys() == there.keys()
        for name, ids in there.items():
            assert fields[name].dtype == ids.dtype
            np.testing.assert_array_equal(fields[name], ids)


def test_webdataset_reads_every_row(tmp_path):
    small = write_dataset(tmp_path / "dataset")
    ended = command("export", small.store.url, tmp_path / "out", "--to", "webdataset")
    assert ended.code == 0, ended.err
    assert "32 rows of caption, color_palette, dinov2 in 4 files" in ended.out
    check(small, tmp_path / "out")


def test_units_that_were_tried_again_and_what_nearly_no_sample_has(tmp_path):
    small = write_dataset(tmp_path / "dataset")
    repair_palette(small, small.units[0])
    for unit in small.units:
        rewrite_tokens(small, "caption", unit, change=lambda tokens: [tokens[0], *[None] * (len(tokens) - 1)])
    for to in ("webdataset", "hf", "lm"):
        ended = command("export", small.store.url, tmp_path / to, "--to", to)
        assert ended.code == 0, ended.err
        assert "32 rows of caption, color_palette, dinov2" in ended.out
    check(small, tmp_path / "webdataset")


def test_keys_that_look_like_views_stay_apart(tmp_path):
    from tokenloom.training.use.to_webdataset import stem_of

    keys = ("a", "a%v1", "a.v1", "a.b/c", "a%2Eb/c", "%")
    stems = [stem_of(key, view) for key in keys for view in range(3)]
    assert len(set(stems)) == len(stems)
    assert all("." not in stem for stem in stems)


@pytest.mark.ray
def test_through_ray(tmp_path, ray_session, monkeypatch, capsys):
    import sys

    import ray
    from tokenloom.pipeline.cli import main

    small = write_dataset(tmp_path / "dataset", samples=2)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # other tests go on with it
    monkeypatch.setattr(sys, "argv", ["tokenloom", "export", small.store.url, f"{tmp_path}/out", "--to", "webdataset"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    check(small, tmp_path / "out")
    (tmp_path / "out/receipts/00001.json").unlink()
    path = small.store.url + "/" + small.token_path("caption", small.units[1])
    with open(path, "wb") as file:
        file.write(b"PAR1")
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert "it isn't a readable Parquet file" in capsys.readouterr().err


@pytest.mark.s3
def test_on_s3(s3_url, tmp_path):
    small = write_dataset(f"{s3_url}/dataset", samples=2)
    for _ in range(2):
        ended = command("export", small.store.url, f"{s3_url}/out", "--to", "webdataset")
        assert ended.code == 0, ended.err
    assert "made before: 4 of 4 pieces" in ended.out
    from tokenloom.pipeline.storage.store import Store

    out = Store(f"{s3_url}/out")
    for entry in out.list():
        path = tmp_path / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(out.read(entry.name))
    check(small, tmp_path)
    assert json.loads((tmp_path / "export.json").read_text())["pieces"] == 4
