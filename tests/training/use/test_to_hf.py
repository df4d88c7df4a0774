"""Exports for Hugging Face, loaded by `datasets`."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import datasets
import pytest
import yaml
from command import command
from in_process import weave
from small_dataset import write_dataset
from tokenloom import open_dataset
from tokenloom.pipeline.dataset.manifest import publish
from tokenloom.pipeline.plan.recipe import parse_recipe
from tokenloom.training.use import to_hf


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """A dataset, and its export in two pieces."""
    monkeypatch.setattr(to_hf.HuggingFace, "most_rows", 16)
    small = write_dataset(tmp_path / "dataset")
    ended = command("export", small.store.url, tmp_path / "out", "--to", "hf")
    assert ended.code == 0, ended.err
    return small, tmp_path / "out"


def loaded(folder, tmp_path) -> datasets.Dataset:
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert isinstance(found, datasets.DatasetDict)
    assert list(found) == ["train"]
    return found["train"]


def test_a_folder_is_loaded_with_its_features(exported, tmp_path):
    small, out = exported
    assert [path.name for path in sorted((out / "data").iterdir())] == [
        f"train-0000{number}-of-00002.parquet" for number in range(2)
    ]
    found = loaded(out, tmp_path)
    expected = list(open_dataset(small.store.url).iterate())
    assert found.num_rows == len(expected)
    for row, other in zip(expected, found, strict=True):
        values = {name: None if ids is None else ids.tolist() for name, ids in row.values.items()}
        assert other == {"key": row.key, "view": row.view, **values}
    assert found.features["view"].dtype == "uint8"
    assert found.features["dinov2"].feature.dtype == "uint16"
    assert found.features["dinov2"].length == 9
    assert found.features["caption"].length == -1


def test_the_card_says_what_made_the_tokens(exported):
    small, out = exported
    _, front, text = (out / "README.md").read_text().split("---\n", 2)
    info = yaml.safe_load(front)["dataset_info"]
    assert [one["name"] for one in info["features"]] == ["key", "view", "caption", "color_palette", "dinov2"]
    assert info["splits"][0]["num_examples"] == 32
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    of = {(row[0], len(row)): row for row in rows}
    card = small.manifest.modalities["dinov2"]
    assert of["dinov2", 7][1:6] == ["feature_map", "9", "16", "3 x 3", f"codebook {card.tokenizer_digest}"]
    assert of["dinov2", 6][1:] == ["dinov2", "Apache-2.0", "hub/model", "Apache-2.0", ("ab" * 32)[:16]]
    assert of["caption", 6][3:] == ["none", "-", "-"]
    assert of["caption", 7][6] != "-"


def test_the_card_of_texts_says_nothing_of_images(exported, tmp_path):
    assert "# Tokens of images" in (exported[1] / "README.md").read_text()
    (tmp_path / "one.txt").write_text("a line of text\n")
    corpus = {"url": str(tmp_path / "one.txt"), "format": "text"}
    weave(parse_recipe({"corpus": corpus, "output": str(tmp_path / "texts"), "modalities": {"text": {}}}))
    assert command("export", tmp_path / "texts", tmp_path / "card", "--to", "hf").code == 0
    card = (tmp_path / "card/README.md").read_text()
    assert "# Tokens of texts" in card
    assert "The texts have licences of their own" in card
    assert "1 row, one for each sample, made by tokenloom." in card
    assert "image" not in card


def test_names_of_weights_keep_the_table_whole(tmp_path):
    small = write_dataset(tmp_path / "dataset")
    card = small.manifest.modalities["dinov2"]
    assert card.weights
    odd = replace(card, weights=replace(card.weights, licence="mine | not yours\nat all"))
    publish(small.store, lambda now: replace(small.manifest, modalities={**small.manifest.modalities, "dinov2": odd}))
    assert command("export", small.store.url, tmp_path / "out", "--to", "hf").code == 0
    lines = (tmp_path / "out/README.md").read_text().splitlines()
    tables = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    assert set(chain(line.count("|") for line in tables)) == {7, 8}
    yaml.safe_load("\n".join(lines).split("---\n")[1])
