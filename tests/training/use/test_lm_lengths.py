"""Documents of any length in the exports for decoder-only trainers: what is cut, where, and what is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from command import command
from hypothesis import given
from hypothesis import strategies as st
from in_process import weave
from lm_files import MegatronReader, documents, packed, vocabulary
from small_dataset import SmallDataset, rewrite_tokens, write_dataset
from tokenloom import open_dataset
from tokenloom.pipeline.plan.recipe import load_recipe, parse_recipe
from tokenloom.training.use import export
from tokenloom.training.use.megatron import count_sequences
from tokenloom.training.use.to_lm import DecoderOnly, Document, pack


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> SmallDataset:
    """Not to be changed."""
    return write_dataset(tmp_path_factory.mktemp("small") / "dataset")


def test_texts_longer_than_a_sequence_go_on_in_the_next(tmp_path):
    """Of a corpus of texts, whose longest may have 16,777,216 tokens."""
    texts = ["a short one", "one two, three four. " * 60, "another", "five six seven. " * 5, "the last of them"]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    weave(load_recipe("text", [], [str(tmp_path / "texts.jsonl")], str(tmp_path / "dataset")))
    (tmp_path / "tasks.yaml").write_text("length: 32")
    out = tmp_path / "out"
    ended = command("export", tmp_path / "dataset", out, "--to", "lm", "--tasks", tmp_path / "tasks.yaml")
    assert ended.code == 0, ended.err
    dataset = open_dataset(tmp_path / "dataset")
    rows = {row.key: row.values["text"] for row in dataset}
    found = documents(out)
    assert [key for key, _, _ in found] == list(rows)
    words = vocabulary(out)
    for key, _, ids in found:
        (segment,) = words.parse(ids)
        np.testing.assert_array_equal(segment.ids, rows[key])
    reader = MegatronReader(out / "megatron/00000")
    assert [one.tolist() for one in (reader[n] for n in range(len(reader)))] == [ids.tolist() for _, _, ids in found]
    long = sum(len(ids) > 32 for _, _, ids in found)
    assert long >= 1
    assert "5 rows of text in 3 files" in ended.out
    assert f"{long} row{'s' * (long > 1)} longer than `length: 32`, and cut over several sequences" in ended.out
    assert all(row["starts"][0] or not any(row["starts"]) for row in packed(out))
    assert "starts" in json.loads((out / "vocabulary.json").read_text())["sequences"]
    # the rows of a document, as they are and one behind the other, are decoded
    (tmp_path / "ids.json").write_text(json.dumps([id for row in packed(out) for id in row["tokens"]]))
    said = command("decode", out, tmp_path / "ids.json")
    assert said.code == 0, said.err
    lines = [line.partition(": ")[2] for line in said.out.splitlines()]
    assert lines == [dataset.decode("text", ids) for ids in rows.values()]


def test_the_only_modality_can_not_be_left_out(tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n')
    weave(load_recipe("text", [], [str(tmp_path / "texts.jsonl")], str(tmp_path / "dataset")))
    ended = command("export", tmp_path / "dataset", tmp_path / "out", "--to", "ml-4m")
    assert ended.code == 2
    assert ended.err.endswith(
        "text can't be exported to ml-4m: ml-4m takes such tokens as labels that it tokenises "
        "itself, and knows none of that name; webdataset, hf and lm take it\n"
    )


def test_a_piece_holds_so_much_text_at_most(tmp_path, monkeypatch):
    (tmp_path / "texts.txt").write_text("".join(f"line {number}\n" for number in range(6)))
    units = {"samples": 1, "bytes": 2**20}
    corpus = {"url": str(tmp_path / "texts.txt"), "format": "text"}
    recipe = {"corpus": corpus, "output": str(tmp_path / "dataset"), "units": units, "modalities": {"text": {}}}
    weave(parse_recipe(recipe))
    monkeypatch.setattr(export, "_MOST_TEXT", 3 * 2**20 + 1)
    ended = command("export", tmp_path / "dataset", tmp_path / "out", "--to", "lm")
    assert ended.code == 0, ended.err
    assert [count_sequences(path.read_bytes()) for path in sorted((tmp_path / "out/megatron").glob("*.idx"))] == [3, 3]
    assert [len(row["keys"]) for row in packed(tmp_path / "out")] == [3, 3]


def test_megatron_takes_documents_of_any_length(small, tmp_path):
    (tmp_path / "tasks.yaml").write_text("length: 8\nfiles: [megatron]")
    out = tmp_path / "out"
    assert command("export", small.store.url, out, "--to", "lm", "--tasks", tmp_path / "tasks.yaml").code == 0
    assert not (out / "sequences").exists()
    assert max(MegatronReader(out / "megatron/00000").lengths) > 8


def test_no_document_is_left(tmp_path):
    own = write_dataset(tmp_path / "dataset")
    for unit in own.units:
        rewrite_tokens(own, "caption", unit, change=lambda tokens: [None] * len(tokens))
    (tmp_path / "tasks.yaml").write_text("tasks: [{order: [caption]}]")
    ended = command("export", own.store.url, tmp_path / "out", "--to", "lm", "--tasks", tmp_path / "tasks.yaml")
    assert ended.code == 2
    assert "no sample has any of its task's modalities" in ended.err


@pytest.mark.parametrize("files", ["[megatron]", "[parquet, megatron]"])
def test_a_piece_without_a_document_has_nothing_that_can_not_be_mapped(tmp_path, monkeypatch, files):
    own = write_dataset(tmp_path / "dataset")
    rewrite_tokens(own, "caption", own.units[1], change=lambda tokens: [None] * len(tokens))
    monkeypatch.setattr(DecoderOnly, "most_rows", 8)
    (tmp_path / "tasks.yaml").write_text(f"files: {files}\ntasks: [{{order: [caption]}}]")
    words = ("export", own.store.url, tmp_path / "out", "--to", "lm", "--tasks", tmp_path / "tasks.yaml", "--verify")
    for _ in range(2):
        ended = command(*words)
        assert ended.code == 0, ended.err
        assert "14 rows left out" in ended.out
    found = sorted(path.name for path in (tmp_path / "out/megatron").iterdir())
    assert found == [f"{number:05d}.{end}" for number in (0, 2, 3) for end in ("bin", "idx")]
    assert all(len(MegatronReader(tmp_path / f"out/megatron/{number:05d}")) for number in (0, 2, 3))


def test_tokens_of_a_fixed_length_are_never_cut(small, tmp_path):
    """Captions may be longer than a sequence of 16, features are 9."""
    (tmp_path / "tasks.yaml").write_text("length: 16\ntasks: [{order: [caption, dinov2]}, {order: [dinov2, caption]}]")
    out = tmp_path / "out"
    ended = command("export", small.store.url, out, "--to", "lm", "--tasks", tmp_path / "tasks.yaml")
    assert ended.code == 0, ended.err
    words = vocabulary(out)
    features = words.places["dinov2"]
    cut = 0
    for row in packed(out):
        ids = row["tokens"]
        assert len(ids) == 16
        assert ids.count(features.begin) == ids.count(features.end)
        cut += any(row["starts"])
    assert cut
    assert {one.problem for _, _, ids in documents(out) for one in words.parse(ids)} == {""}
    assert {one.problem for one in words.parse([id for row in packed(out) for id in row["tokens"]])} == {""}


def test_the_length_that_is_advised_is_enough(small, tmp_path):
    for order in ("any", "[dinov2]", "[color_palette, dinov2]"):
        tasks = tmp_path / "tasks.yaml"
        tasks.write_text(f"length: 8\ntasks: [{{order: {order}}}]")
        words = ("export", small.store.url, tmp_path / order, "--to", "lm", "--tasks", tasks)
        refused = command(*words)
        assert refused.code == 2
        assert ("fewer modalities" in refused.err) == ("," in order or order == "any")
        advice = re.search(r"`(length: \d+)`", refused.err)
        assert advice
        tasks.write_text(f"{advice[1]}\ntasks: [{{order: {order}}}]")
        assert command(*words).code == 0


@given(
    st.lists(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), min_size=1, max_size=5), max_size=8),
    st.integers(8, 24),
)
def test_packing_loses_nothing_and_cuts_nothing_that_stays_whole(shapes, length):
    """shapes: of each document whether a stretch of it stays whole, and how long it is."""
    made = []
    for number, shape in enumerate(shapes):
        sizes = [min(size, length) if whole else size for whole, size in shape]
        stops = np.cumsum(sizes).tolist()
        spans = [(stop - size, stop) for (whole, _), size, stop in zip(shape, sizes, stops, strict=True) if whole]
        made.append(Document(str(number), 0, np.arange(stops[-1] + 1), spans))
    rows = pack(made, length)
    assert all(0 < sum(map(len, row)) <= length for row in rows)
    parts = [part for row in rows for part in row]
    for one in made:
        own = [part for part in parts if part.document is one]
        assert [part.start for part in own] == [0, *(part.stop for part in own[:-1])]
        assert own[-1].stop == len(one.ids)
        assert len(own) == 1 or len(one.ids) > length
        assert not any(begin < part.stop < end for part in own for begin, end in one.whole)
